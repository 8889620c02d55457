"""Turns: in which order a worker asks its queues, so that over time each brings jobs in proportion to its weight.

Stride scheduling: a queue moves on by ``1 / weight`` with each job that it brings, and who is furthest behind is asked
first. So a queue of weight 3 brings three jobs for each one of a queue of weight 1 while both have some, none waits for
ever behind another, and what one does not use is the others'. A queue that had nothing to give starts again beside
the last of those that had: it saves up nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from asyncworker.errors import BadParameters


class Turns:
    """Keep the order of queues by their *weights*; those not named have 1."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._moved: dict[str, float] = {}

    def order(self, room: dict[str, int]) -> dict[str, int]:
        """Return what may be claimed of each queue in the order in which to ask; equals stay as they are."""
        moved = self._moved
        if len(room) < 2 or not moved:
            return room
        return dict(sorted(room.items(), key=lambda one: moved.get(one[0], 0.0)))

    def took(self, room: Mapping[str, int], want: int, before: Mapping[str, int], running: Mapping[str, int]) -> None:
        """Hear what a claim has brought: *running* jobs by queue, *before* and after; *room* as it was ordered."""
        if len(room) < 2:
            return
        moved, empty = self._moved, []
        for name, most in room.items():
            got = running.get(name, 0) - before.get(name, 0)
            if got < min(most, want):
                empty.append(name)
            moved[name] = moved.get(name, 0.0) + got / self._weights.get(name, 1)
            want -= got
        behind = min((moved[name] for name in room if name not in empty), default=None)
        if behind is None:
            moved.clear()  # nobody waits: nobody is ahead of anybody
            return
        for name in empty:
            moved[name] = max(moved[name], behind)


def check_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Return weights of queues.

    Raises:
        BadParameters: one is no number above 0.
    """
    for name, weight in weights.items():
        if type(weight) not in {int, float} or not 0 < weight < math.inf:
            raise BadParameters(f"the weight of the queue {name!r} must be a number above 0, not {weight!r}")
    return dict(weights)

"""Slots: how many jobs may run in a worker at once, in all and of each queue. Here as somebody said; see also `sought`."""

from __future__ import annotations

from collections.abc import Mapping

from asyncworker.queue.worker.attempt import Attempt


class Slots:
    """Fixed numbers.

    Args:
        queues: name -> how many of its jobs. concurrency: how many jobs in all.
    """

    def __init__(self, queues: Mapping[str, int], concurrency: int) -> None:
        self._queues = list(queues.items())
        self._concurrency = concurrency

    def ask(
        self, running: Mapping[str, int], live: Mapping[str, Attempt], most: int, lent: int = 0
    ) -> tuple[dict[str, int], int]:
        """Return what to claim: of each queue at most, in the order in which to ask them; and in all.

        Args:
            running: how many jobs run, by queue. live: those that do. most: what one claim brings at most. lent: of these, how many
                wait for other jobs and need no slot.
        """
        want = min(self._concurrency - len(live) + lent, most)
        room = {name: n for name, slots in self._queues if (n := min(want, slots - running.get(name, 0))) > 0}
        if len(self._queues) > 1:
            self._queues.append(self._queues.pop(0))  # so that each is asked first in turn
        return room, max(0, want)

    def took(self, room: Mapping[str, int], want: int, before: Mapping[str, int], running: Mapping[str, int]) -> None:
        """Hear what a claim has brought: *running* jobs by queue, *before* and after."""

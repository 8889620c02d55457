"""Which failures come from too many calls at once: those that go when there are fewer.

A share of failures beyond the usual is answered by backing off, step by step. If it falls, the limit from which that
began was too much. If it stays, four steps further down, it does not come from load (bad items, a dependency that is
gone): then the limit goes back to where it was, and so many failures are usual.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

FAILING = 0.05
"""The share of failures, beyond the usual one, that is answered by backing off."""
BACK_OFF = 0.7
TRIES = 4
"""Steps back after which failures that stay are taken for usual."""
HOLD = 2
"""Epochs to let pass after a step."""


class Trial(msgspec.Struct):
    """A back-off that goes on: from which limit and share of failures, and how many steps so far."""

    limit: int
    share: float
    steps: int = 0


class Answer(NamedTuple):
    """What to do about an epoch's failures: the limit to set, None where they are bearable, and why.

    ``hold``: epochs to let pass then. ``too_many``: a limit that was found to be too much, 0 for none.
    """

    limit: float | None
    because: str = ""
    hold: int = 0
    too_many: int = 0


class Failures(msgspec.Struct):
    """What is known of them: the usual share, and the trial that goes on."""

    usual: float = 0.0
    trial: Trial | None = None

    def answer(self, share: float, count: int, limit: int, low: int) -> Answer:
        """Judge an epoch of *count* calls at this *limit*, of which *share* failed; *low* is the least limit."""
        bearable = min(0.95, self.usual + FAILING)
        bearable += 2 * math.sqrt(bearable * (1 - bearable) / count)
        trial = self.trial
        if share <= bearable:
            self.trial = None
            self.usual += 0.2 * (share - self.usual)
            cured = trial and share + 2 * math.sqrt(trial.share * (1 - trial.share) / count) < trial.share
            return Answer(None, too_many=trial.limit if trial and cured else 0)
        if trial is not None and (trial.steps >= TRIES or limit == low):
            self.trial, self.usual = None, share
            return Answer(trial.limit, f"{share:.0%} of calls fail at any limit")
        if trial is None:
            trial = self.trial = Trial(limit, share)
        trial.steps += 1
        return Answer(limit * BACK_OFF, f"{share:.0%} of calls fail", HOLD)

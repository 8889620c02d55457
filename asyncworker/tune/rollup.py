"""Roll-ups: what was decided about each actuator in a stretch of some seconds, small enough to be kept for long."""

from __future__ import annotations

import msgspec

from asyncworker.events import Decided
from asyncworker.tune.decisions import UNDONE, Decisions


class Rollup(msgspec.Struct, frozen=True, omit_defaults=True):
    """One actuator over ``seconds`` that ended at ``at_s``.

    Attributes:
        source: which process. first, last, low, high: sizes. causes: changes by cause.
        undone: changes that took back others. rate: pieces of work a second; None where nobody counts them.
    """

    at_s: float
    seconds: float
    name: str
    first: int
    last: int
    low: int
    high: int
    source: str = ""
    causes: dict[str, int] = {}
    undone: int = 0
    rate: float | None = None


class Rollups:
    """Roll up one log, stretch by stretch, from *now* on."""

    def __init__(self, decisions: Decisions, now: float, source: str = "") -> None:
        self._decisions, self._source, self._at = decisions, source, now
        self._total, self._made = decisions.total, decisions.made.copy()
        self._completed = {name: thing.completed for name, thing in dict(decisions.watched).items()}

    def take(self, now: float) -> list[Rollup]:
        """Return what was since the last call, of each actuator for which there is anything to tell."""
        decisions = self._decisions
        seconds, self._at = now - self._at, now
        changes: dict[str, list[Decided]] = {}
        for one in decisions.since(self._total):
            changes.setdefault(one.name, []).append(one)
        self._total = decisions.total
        made, self._made = self._made, decisions.made.copy()
        causes: dict[str, dict[str, int]] = {}
        for (name, cause), number in self._made.items():
            if number > (before := made.get((name, cause), 0)):
                causes.setdefault(name, {})[cause] = number - before
        watched = dict(decisions.watched)
        completed, self._completed = self._completed, {name: thing.completed for name, thing in watched.items()}
        found = []
        for name in sorted(changes.keys() | watched.keys()):
            rate = None
            if name in self._completed and seconds > 0:
                rate = max(0.0, self._completed[name] - completed.get(name, 0.0)) / seconds
            if not rate and name not in changes:
                continue
            told = changes.get(name, ())
            sizes = [size for one in told for size in (one.old, one.new)] or [watched[name].size]
            kinds = causes.get(name, {})
            undone = sum(number for cause, number in kinds.items() if cause in UNDONE)
            found.append(
                Rollup(
                    now, seconds, name, sizes[0], sizes[-1], min(sizes), max(sizes), self._source, kinds, undone, rate
                )
            )
        return found

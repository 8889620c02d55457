"""Which sizes were decided on, and because of what: what the keep knows of it, made readable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from asyncworker.queue.archive import History, Kept
from asyncworker.tune.decisions import undone
from asyncworker.tune.rollup import Rollup


class Explained(Kept, frozen=True, omit_defaults=False):
    """A decision, and whether a later one took it back."""

    undone: bool = False


class Sized(msgspec.Struct, frozen=True):
    """One actuator over all its roll-ups: ``low`` and ``high`` are the sizes it had, ``rate`` is its mean."""

    name: str
    size: int
    low: int
    high: int
    changes: int
    undone: int
    causes: dict[str, int]
    rate: float | None
    since_s: float


class Explanation(msgspec.Struct, frozen=True):
    """Sizes over all that is known of them, and the decisions themselves, oldest first."""

    sizes: list[Sized]
    decisions: list[Explained]


def explained(known: History, thing: str = "", since_s: float = 0.0) -> Explanation:
    """Return what is known about *thing*: a task, or what else is sized, by its name; "": about all."""
    wanted = (thing, f"task {thing}")  # also what is no task has a name: a pool
    decisions = [
        Explained(one.name, one.old, one.new, one.because, one.at_s, one.source, back)
        for one, back in zip(known.decisions, _undone(known.decisions), strict=True)
        if one.at_s >= since_s and (not thing or one.name in wanted)
    ]
    rollups = [one for one in known.rollups if one.at_s >= since_s and (not thing or one.name in wanted)]
    return Explanation(summed(rollups), decisions)


def summed(rollups: Iterable[Rollup]) -> list[Sized]:
    """Sum up roll-ups by actuator, whatever process they came from."""
    by_name: dict[str, list[Rollup]] = {}
    for one in rollups:
        by_name.setdefault(one.name, []).append(one)
    found = []
    for name, told in sorted(by_name.items()):
        causes: Counter[str] = Counter()
        for one in told:
            causes.update(one.causes)
        counted = [one for one in told if one.rate is not None]
        span = max(one.at_s for one in told) - min(one.at_s - one.seconds for one in told)
        done = sum((one.rate or 0.0) * one.seconds for one in counted)
        found.append(
            Sized(
                name,
                max(told, key=lambda one: one.at_s).last,
                min(one.low for one in told),
                max(one.high for one in told),
                causes.total(),
                sum(one.undone for one in told),
                dict(causes.most_common()),
                done / span if counted and span > 0 else None,
                min(one.at_s - one.seconds for one in told),
            )
        )
    return found


def _undone(decisions: Sequence[Kept]) -> list[bool]:
    """Return of each whether it was taken back, by the process that made it."""
    back = [False] * len(decisions)
    places: dict[str, list[int]] = {}
    for at, one in enumerate(decisions):
        places.setdefault(one.source, []).append(at)
    for own in places.values():
        for at, taken_back in zip(own, undone([decisions[at] for at in own]), strict=True):
            back[at] = taken_back
    return back

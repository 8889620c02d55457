"""What holds a program up, by its share of the critical paths, and what to do about it where the numbers say so.

Each piece of advice rests on a measurement that is told with it. Two pieces that profilers like to give are not here:
to cache (nothing measured says that arguments come again), and to run in parallel what is not known to be independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from asyncworker.tune.metered import AWAIT, ON_LOOP, READY, Record, Stack

HELD_S = 0.05
"""A step this long is felt by everything else in the loop."""
ON_CPU = 0.8
OFF_CPU = 0.5
SLACK = 0.25
"""How much less on the CPU than the others a function must be to be blamed for it, rather than the host."""
ENOUGH_S = 0.01
"""Less time in the loop than this says nothing about how much of it was on the CPU."""

Kind = Literal["on loop", "await", "ready"]
_KINDS: dict[str, Kind] = {ON_LOOP: "on loop", AWAIT: "await", READY: "ready"}


class Bottleneck(msgspec.Struct, frozen=True):
    """``share`` (0..1) of the critical paths went by in ``function``, in this ``kind`` of time; ``advice`` may be empty."""

    function: str
    file: str
    line: int
    kind: Kind
    share: float
    seconds: float
    calls: int
    advice: str


def bottlenecks(stacks: Mapping[Stack, float], records: Mapping[str, Record]) -> list[Bottleneck]:
    """Return the functions and kinds of time that the critical paths consist of, the largest share first.

    Args:
        stacks: labels from the root inwards, the kind of time last; seconds.
        records: by label.
    """
    parts: dict[tuple[str, str], float] = {}
    for stack, seconds in stacks.items():
        parts[stack[-2], stack[-1]] = parts.get((stack[-2], stack[-1]), 0.0) + seconds
    whole = sum(parts.values())
    loop, cpu = sum(of.clocked_loop for of in records.values()), sum(of.cpu for of in records.values())
    told = []
    for (label, mark), seconds in sorted(parts.items(), key=lambda part: part[1], reverse=True):
        record = records.get(label)
        if record is None or seconds <= 0:
            continue
        kind, share = _KINDS[mark], seconds / whole
        advice = _advice(kind, record, share, (cpu - record.cpu, loop - record.clocked_loop))
        told.append(Bottleneck(*record.frame, kind, share, seconds, record.calls, advice))
    return told


def _advice(kind: Kind, record: Record, share: float, others: tuple[float, float]) -> str:
    if kind == "ready":
        return (
            f"It is ready and waits for its turn, {share:.0%} of the time: other steps hold the loop. "
            "Shorten the longest steps, or run more worker processes."
            if share > 0.1
            else ""
        )
    if kind == "await":
        each = record.nested / record.calls if record.calls else 0.0
        return (
            f"Awaited in place {record.nested} times ({record.await_s / record.calls:.3g} s each), one after "
            "another within a task; those that do not need each other's results may wait together."
            if each > 0.5 and record.calls >= 4 and share > 0.3
            else ""
        )
    if record.clocked_loop < ENOUGH_S:
        return ""
    on_cpu = record.cpu / record.clocked_loop
    their_cpu, their_loop = others
    if on_cpu < OFF_CPU:
        if their_loop >= ENOUGH_S and their_cpu / their_loop - on_cpu > SLACK:
            return (
                f"Of its time on the loop only {on_cpu:.0%} is CPU time, of others' {their_cpu / their_loop:.0%}: it "
                "calls something that blocks (a file, a name look-up, a lock, time.sleep). Await that, or use a thread."
            )
        return f"Of its time on the loop only {on_cpu:.0%} is CPU time: it blocks, or the host is short of processors."
    if on_cpu >= ON_CPU and record.longest > HELD_S:
        return (
            f"It computes, and holds the loop for up to {record.longest:.3g} s at a time: "
            "hand that to a process, or yield in between."
        )
    return ""

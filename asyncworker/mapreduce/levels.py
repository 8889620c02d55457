"""Levels: how a reduction that is too much for one worker is cut into steps that many can do.

Where partials are many and large, neighbours are merged first, up to `FAN_IN` at once, and again what comes of that,
until the rest is little: a tree. Where a `Keyed` function has met very many keys, they are shared out by their hash
instead: each share is merged and made rows of by one step, and none holds more than its share.

What is decided depends on nothing but the plan and what partitions left, so whoever asks comes to the same, also after
a crash; and partials are always merged in the order of their partitions. Level 0 are the partitions; the steps of
level n are the children from part ``n * LEVEL`` on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from asyncworker.mapreduce.functions.function import Keyed, Work, Yielding
from asyncworker.mapreduce.job import Partial, Plan, read
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import unpack_record
from asyncworker.queue.job import child_id

LEVEL = 10**8
FAN_IN = 32
"""How many partials a step merges at most, unless a plan says another number."""
TREE_BYTES = 8 * 2**20
"""Of partials that take less in all no tree is made: to read them takes less time than to hand them out."""
SHARE_BYTES = 4 * 2**20
"""How much of what mappers left one share may be at most, packed: if no key occurred twice, some 100 MB of memory."""
MOST_SHARES = 2**10
SAMPLE = 16
"""How many partials are looked at to know how large all are."""


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step: merge parts *first* to *stop* of the children; or, with *bits*, their share number *share* of 2^bits."""

    first: int
    stop: int
    share: int = 0
    bits: int = -1


class Level(msgspec.Struct, frozen=True):
    """What is to be merged: the children from part *first* to *stop*, shares of all keys where *shared*."""

    first: int
    stop: int
    shared: bool = False

    def __len__(self) -> int:
        return self.stop - self.first


async def next_steps(broker: Broker, plan: Plan, work: Work, job_id: str, level: Level) -> list[Step]:
    """Return the steps that make the next level; none where this one is the last."""
    count = len(level)
    if level.shared or count < 1:
        return []
    keyed = isinstance(work, Keyed) and plan.reducers != 1 and not level.first
    few = count <= (plan.fan_in or FAN_IN)
    if few and not keyed:
        return []
    size = await _size(broker, job_id, level)
    if keyed:
        shares = plan.reducers or math.ceil(size / SHARE_BYTES)
        bits = (min(shares, MOST_SHARES) - 1).bit_length()
        if shares > 1:
            return [Step(level.first, level.stop, share, bits) for share in range(1 << bits)]
    fan_in = plan.fan_in or min(FAN_IN, max(2, math.isqrt(count - 1) + 1))
    if few or (not plan.fan_in and size < TREE_BYTES) or _gives_rows(plan, work):
        return []
    starts = range(level.first, level.stop, fan_in)
    return [Step(start, min(start + fan_in, level.stop)) for start in starts]


def level_of(number: int, steps: Sequence[Step]) -> Level:
    """Return level *number*, made of these steps."""
    return Level(number * LEVEL, number * LEVEL + len(steps), steps[0].bits >= 0)


async def partials(broker: Broker, job_id: str, parts: Sequence[int]) -> list[tuple[str, Partial]]:
    """Return what children left that have succeeded, each with its id."""
    ids = [child_id(job_id, part) for part in parts]
    ends = await broker.wait(ids, 0)
    return [
        (partial.at or child, partial)
        for child, end in zip(ids, ends, strict=True)
        if end is not None
        for partial in (read(Partial, unpack_record(end.record).value),)
    ]


async def _size(broker: Broker, job_id: str, level: Level) -> float:
    """Return about how much all partials of a level take, packed."""
    some = await partials(broker, job_id, range(level.first, min(level.first + SAMPLE, level.stop)))
    return sum(partial.size for _, partial in some) / max(len(some), 1) * len(level)


def _gives_rows(plan: Plan, work: Work) -> bool:
    """Return whether rows go to a sink partition by partition: nothing is won by merging them before."""
    return plan.to is not None and isinstance(work, Yielding) and work.take_rows(work.initial()) is not None

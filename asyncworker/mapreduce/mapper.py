"""Mapper: one partition. Reads its items, maps and folds each, and leaves what they came to as a `Partial`.

An item that fails is counted and told of apart; it never mixes with results and never fails its neighbours. A long
partition leaves a `Checkpoint` now and then, from which whoever takes it over goes on: the items before it are read
again, not mapped.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, cast

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import Discard, JobNotFound, SourceError
from asyncworker.mapreduce.digest import Digest, Slow
from asyncworker.mapreduce.folding import Folding, Pair
from asyncworker.mapreduce.functions.function import Function, Holding, Seeing, Work
from asyncworker.mapreduce.job import CHUNK_BYTES, FAILURES_KEPT, Failure, Partial, Plan, read, read_call
from asyncworker.mapreduce.offers import offers
from asyncworker.mapreduce.openings import Openings
from asyncworker.mapreduce.pieces import Outbound
from asyncworker.mapreduce.rejects import FIRST as REJECTED
from asyncworker.mapreduce.skew import function_or_snooze
from asyncworker.mapreduce.sources.source import Narrow, Partition
from asyncworker.mapreduce.straggler import tame
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import pack, unpack
from asyncworker.queue.context import Context
from asyncworker.queue.job import Counted, original_of, parent_of
from asyncworker.secret import mask_text

PLANS_KEPT = 16
"""How many jobs' plans are remembered, so that a job costs a worker one look-up and not one a partition."""
CHECKPOINT_S = 5.0
"""How often what a partition came to so far is kept, so that whoever takes it over goes on from there."""
CHECKPOINT = -1
"""The number of the chunk that holds it."""
TAMING_S = 1.0
"""About how often a worker looks after the late partitions of the jobs that it knows: others do so, too, and the submitter
more often, while it is there."""
log = logging.getLogger(__name__)


class Checkpoint(msgspec.Struct, frozen=True):
    """What the first *items* of a partition came to."""

    items: int = 0
    failed: int = 0
    failures: list[Failure] = []
    acc: bytes = b""
    rejected: list[bytes] = []


class Mapper:
    """The task ``asyncworker.map``.

    Args:
        find_function: gives the function of a name, or raises `UnknownName`.
        openings: where sources are kept open.
        concurrency: how many items of one partition are awaited at once, where the map is a coroutine.
    """

    def __init__(
        self,
        broker: Broker,
        find_function: Callable[[str], Function],
        openings: Openings,
        *,
        concurrency: int = 32,
        clock: Clock = SYSTEM,
    ) -> None:
        self._broker = broker
        self._find_function = find_function
        self._concurrency = concurrency
        self._clock = clock
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self._plans: dict[str, Plan] = {}
        self._looking = asyncio.Lock()
        self._openings = openings
        self._taming: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Look after no job any more."""
        for taming in self._taming.values():
            taming.cancel()
        await asyncio.gather(*self._taming.values(), return_exceptions=True)

    async def __call__(self, spec: dict[str, Any], ctx: Context) -> Counted:
        """Process the partition *spec*; a large accumulator is sent ahead in chunks.

        Raises:
            SourceError: it cannot be read, or holds nothing where items were planned. JobFailed: more items failed
            than the job allows; running it again would not help. Discard: the job is over. Snooze: this worker lacks the
            function.
        """
        began = self._clock.now()
        partition = read(Partition, spec)
        plan = await self._plan(parent_of(ctx.id) or "")
        work = function_or_snooze(self._find_function, plan.function, ctx, self._clock).prepare(plan.params)
        if offers(work, Seeing):
            work.see(ctx)
        course = Course(work, plan, self._concurrency, await self._left(ctx), Outbound(ctx, work))
        try:
            async with self._openings.open(plan.source) as source:
                if (fields := course.folding.reads) and isinstance(source, Narrow):
                    await course.run(source.read_fields(partition, fields), ctx)
                else:
                    await course.run(source.read(partition), ctx)
        finally:
            course.folding.abandon()
            if offers(work, Holding):
                await work.close()
        if partition.items and not course.items:
            raise SourceError(
                f"partition {partition.index} of {source.label} holds nothing where {partition.items} items were planned"
            )
        return await self._sent(course, partition, ctx, began)

    async def _sent(self, course: Course, partition: Partition, ctx: Context, began: float) -> Counted:
        """Send what is too large for one message, and return the rest."""
        since = time.perf_counter()
        acc, failed = await course.out.end(course.acc()), course.failed
        rejected = pack(course.rejected) if course.rejected else b""
        send_s = time.perf_counter() - since
        seconds = course.read_s + course.map_s + send_s
        digest = Digest(
            partitions=1,
            items=course.items,
            seconds=seconds,
            read_s=course.read_s,
            map_s=course.map_s,
            send_s=send_s,
            wait_s=max(0.0, began - partition.cut_s) if partition.cut_s else 0.0,
            retries=ctx.attempt - 1,
            deaths=ctx.deliveries,
            item_retries=course.folding.retried,
            resumed=course.saved.items,
            cut_until=partition.cut_s,
            began=began,
            ended=self._clock.now(),
            slowest=[Slow(partition.index, course.items, seconds, self._worker, ctx.attempt + ctx.deliveries)],
        )
        partial = Partial(
            items=course.items,
            succeeded=course.items - failed,
            failed=failed,
            seconds=seconds,
            acc=acc,
            chunks=course.out.chunks,
            runs=course.out.runs,
            size=course.out.size,
            failures=course.failures,
            worker=self._worker,
            digest=digest,
            place=partition.place,
            at=ctx.id if original_of(ctx.id) else "",
            rejected=[(ctx.id, await _send(ctx, rejected, REJECTED))] if rejected else [],
        )
        return Counted(partial, partial.items)

    async def _left(self, ctx: Context) -> Checkpoint:
        """Return where to begin: what an earlier attempt, or who is slower, left behind; else nothing."""
        name = original_of(ctx.id) or ctx.id
        if ctx.attempt == 1 and not ctx.deliveries and name == ctx.id:
            return Checkpoint()
        try:
            (left,) = await self._broker.wait([f"{name}:{CHECKPOINT}"], 0)
        except JobNotFound:
            return Checkpoint()
        return read(Checkpoint, unpack(left.record)) if left else Checkpoint()

    async def _plan(self, parent: str) -> Plan:
        plan = self._plans.get(parent)
        if plan is None:
            async with self._looking:  # a job's first partitions come together
                plan = self._plans.get(parent) or await self._found(parent)
        if plan.speculate and parent not in self._taming:
            self._taming[parent] = asyncio.create_task(self._tame(parent), name=f"tamer of {parent}")
            self._taming[parent].add_done_callback(partial(self._tamed, parent))
        return plan

    async def _found(self, parent: str) -> Plan:
        found = (await self._broker.find([parent]))[0]
        if found is None or found.state.terminal:
            raise Discard("the job of this partition is over")
        while len(self._plans) >= PLANS_KEPT:
            del self._plans[next(iter(self._plans))]
        plan = self._plans[parent] = read_call(Plan, found.payload)
        return plan

    async def _tame(self, parent: str) -> None:
        every = TAMING_S * (0.5 + random.random())
        await asyncio.sleep(every)  # most jobs are over by then
        await tame(self._broker, parent, every=every)

    def _tamed(self, parent: str, taming: asyncio.Task[None]) -> None:
        del self._taming[parent]
        if not taming.cancelled() and (error := taming.exception()) is not None:
            log.error("%s ended: %s", taming.get_name(), mask_text(str(error)) or type(error).__name__)


class Course:
    """One partition on its way: folded from where an earlier attempt left off, and timed.

    Where it meets very many keys, what it folded goes ahead whenever it is large, and there are no checkpoints then.
    """

    def __init__(self, work: Work, plan: Plan, concurrency: int, saved: Checkpoint, out: Outbound) -> None:
        self.saved = saved
        self.out = out
        self.read_s = self.map_s = 0.0
        limit = plan.max_failures if type(plan.max_failures) is int else None
        self.folding = Folding(
            work,
            None if limit is None else max(0, limit - saved.failed),
            concurrency,
            attempts=plan.item_attempts,
            reject=plan.failed_to is not None,
        )
        self._work = work

    @property
    def items(self) -> int:
        return self.saved.items + self.folding.items

    @property
    def failed(self) -> int:
        return self.saved.failed + self.folding.failed

    @property
    def failures(self) -> list[Failure]:
        return [*self.saved.failures, *self.folding.failures][:FAILURES_KEPT]

    @property
    def rejected(self) -> list[bytes]:
        return [*self.saved.rejected, *self.folding.rejected]

    def acc(self) -> Any:
        """Return what all items came to that has not been sent ahead."""
        return unpack(self.packed()) if self.saved.items else self.folding.acc

    def packed(self) -> bytes:
        """Return what all items came to, also those before the checkpoint: merged, as in the reducer."""
        acc = pack(self.folding.acc)
        if self.saved.items:
            merged = self._work.merge(self._work.initial(), unpack(self.saved.acc))
            acc = pack(self._work.merge(merged, unpack(acc)))
        return acc

    async def run(self, lists: AsyncIterator[Sequence[Pair]], ctx: Context) -> None:
        """Read and map what is left of the partition."""
        skip, folding = self.saved.items, self.folding
        folding.save, folding.due = lambda: self._keep(ctx), time.monotonic() + CHECKPOINT_S
        async with aclosing(cast("AsyncGenerator[Sequence[Pair], None]", lists)) as pulled:
            at = time.perf_counter()
            async for pairs in pulled:
                at, since = time.perf_counter(), at
                self.read_s += at - since
                passed, skip = min(skip, len(pairs)), max(0, skip - len(pairs))
                await folding.take(pairs[passed:] if passed else pairs)
                if self.out.is_full(folding.acc):
                    await self.out.spill(self.acc())
                    folding.acc = self._work.initial()
                    self.saved = msgspec.structs.replace(self.saved, acc=pack(folding.acc))
                at, since = time.perf_counter(), at
                self.map_s += at - since
        at = time.perf_counter()
        await folding.drain()
        self.map_s += time.perf_counter() - at

    async def _keep(self, ctx: Context) -> float:
        """Leave a checkpoint; returns when the next one is due. One that is too large for a message is left out."""
        if self.out.runs:
            return math.inf
        data = pack(Checkpoint(self.items, self.failed, self.failures, self.packed(), self.rejected))
        if len(data) <= CHUNK_BYTES:
            await ctx.send_chunk(CHECKPOINT, data)
        return time.monotonic() + CHECKPOINT_S


async def _send(ctx: Context, data: bytes, first: int) -> int:
    """Send *data* in pieces, numbered from *first* on; returns how many."""
    starts = range(0, len(data), CHUNK_BYTES)
    for number, start in enumerate(starts, first):
        await ctx.send_chunk(number, data[start : start + CHUNK_BYTES])
    return len(starts)

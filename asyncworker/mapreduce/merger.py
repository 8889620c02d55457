"""Merger: one step of a reduction. Merges what some partitions left, or one share of what all left, in their order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import Discard
from asyncworker.mapreduce.digest import Digest
from asyncworker.mapreduce.functions.function import Condensing, Function, Keyed, Work
from asyncworker.mapreduce.job import Partial, Plan, read, read_call
from asyncworker.mapreduce.levels import Step, partials
from asyncworker.mapreduce.pieces import AT_ONCE, Outbound, load
from asyncworker.mapreduce.skew import function_or_snooze
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.context import Context
from asyncworker.queue.job import Counted, parent_of

SLICE = 16
"""How many partials are held at once, besides what they are merged into."""
ROWS = 256
"""Rows a chunk: who puts the shares together holds one chunk of each."""


class Merger:
    """The task ``asyncworker.merge``; see `Reducer` for its arguments."""

    def __init__(self, broker: Broker, find_function: Callable[[str], Function], *, clock: Clock = SYSTEM) -> None:
        self._broker = broker
        self._find_function = find_function
        self._clock = clock

    async def __call__(self, spec: dict[str, Any], ctx: Context) -> Counted:
        """Do the step *spec*; what it comes to lies with the job, as that of a partition does.

        Raises:
            Discard: the job is over. Snooze: this worker lacks the function.
        """
        since = time.perf_counter()
        step, parent = read(Step, spec), parent_of(ctx.id) or ""
        (found,) = await self._broker.find([parent])
        if found is None or found.state.terminal:
            raise Discard("the job of this step is over")
        plan = read_call(Plan, found.payload)
        work = function_or_snooze(self._find_function, plan.function, ctx, self._clock).prepare(plan.params)
        out = Outbound(ctx, work)
        data, digest = b"", Digest()
        if step.bits < 0:
            data, digest = await self._merge(step, parent, work, out)
        else:
            await self._share(step, parent, work, out)
        digest += Digest(steps=1, step_s=time.perf_counter() - since)
        return Counted(Partial(0, 0, 0, 0.0, data, out.chunks, runs=out.runs, size=out.size, digest=digest), 0)

    async def _merge(self, step: Step, parent: str, work: Work, out: Outbound) -> tuple[bytes, Digest]:
        """Return what the step comes to, and what steps took that it merges."""
        acc, digest = work.initial(), Digest()
        for start in range(step.first, step.stop, SLICE):
            some = await partials(self._broker, parent, range(start, min(start + SLICE, step.stop)))
            digest = sum((partial.digest for _, partial in some if partial.digest.steps), digest)
            async for other in load(self._broker, some):
                acc = await _merged(work, acc, other)
        return await out.end(acc), digest

    async def _share(self, step: Step, parent: str, work: Work, out: Outbound) -> None:
        """Merge one share of all keys, and leave a row of each in their order."""
        assert isinstance(work, Keyed), "only keys can be shared out"
        acc: dict[str, Any] = work.initial()
        for start in range(step.first, step.stop, AT_ONCE):
            some = await partials(self._broker, parent, range(start, min(start + AT_ONCE, step.stop)))
            async for other in load(self._broker, some, bits=step.bits, share=step.share):
                acc = await _merged(work, acc, other)
        if isinstance(work, Condensing):
            await out.put([("", await asyncio.to_thread(work.condense, acc))])
            return
        keys = await asyncio.to_thread(sorted, acc, key=work.order)
        for start in range(0, len(keys), ROWS):
            await out.put([(key, work.row(key, acc.pop(key))) for key in keys[start : start + ROWS]])


async def _merged(work: Work, acc: Any, other: Any) -> Any:
    acc = work.merge(acc, other)
    await asyncio.sleep(0)
    return acc

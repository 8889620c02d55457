"""Reducer: the job's own end. Merges what the partitions left, in their order, finishes, saves, and sums up.

It runs once the broker has counted all partitions over, or one failed for good. Where that is too much for one
worker it leaves steps for others (`asyncworker.mapreduce.levels`), and runs again when they are done. It may also run
again after a crash, and then comes to the same end: partials stay with the job until it is over, and a sink replaces
what it wrote.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BadParameters, JobFailed, SourceError
from asyncworker.mapreduce.dataset import open_cache
from asyncworker.mapreduce.digest import Digest
from asyncworker.mapreduce.functions.function import Condensing, Function, Keyed, Work
from asyncworker.mapreduce.job import (
    CHUNK_BYTES,
    FAILURES_KEPT,
    MERGE_TASK,
    Failure,
    Partial,
    Plan,
    Summary,
    read,
)
from asyncworker.mapreduce.levels import Level, Step, level_of, next_steps, partials
from asyncworker.mapreduce.openings import Openings
from asyncworker.mapreduce.outlet import Outlet, in_order
from asyncworker.mapreduce.pieces import load, read_rows
from asyncworker.mapreduce.rejects import write_rejects
from asyncworker.mapreduce.skew import function_or_snooze
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import MAX_PAYLOAD_BYTES, born_ms, pack, pack_call, unpack_record
from asyncworker.queue.context import Context
from asyncworker.queue.job import Found, Job, Parted, Progress, Record, State, child_id
from asyncworker.secret import mask_text

log = logging.getLogger(__name__)
SLICE = 16
"""How many partials are held at once, besides what they are merged into."""
WIDEST, SMALL_BYTES = 200, 1024
"""As long as they take no more than so many bytes each, so many are."""
A_ROUND_TRIP = 1000
BROKEN_BYTES = 64 * 2**20
"""Of a job that fails no more than so much is merged, to say what did succeed: there are no steps to share it out."""
OPTIONS = {"max_deliveries": 10}
RESULT_BYTES = MAX_PAYLOAD_BYTES - 2**18
"""The largest summary that a job's record can carry, its failure's detail included."""


class Reducer:
    """The task ``asyncworker.reduce``.

    Args:
        find_function: gives the function of a name, or raises `UnknownName`. openings: where sources are kept open.
    """

    def __init__(
        self, broker: Broker, find_function: Callable[[str], Function], openings: Openings, *, clock: Clock = SYSTEM
    ) -> None:
        self._broker = broker
        self._find_function = find_function
        self._openings = openings
        self._clock = clock

    async def __call__(self, spec: dict[str, Any], ctx: Context) -> Summary | Parted:
        """Reduce the job *spec*, or leave steps of that to others.

        Raises:
            JobFailed: its submitter died, a partition failed for good, too many items did, or its result is too
            large; with the summary over what did succeed. Snooze: this worker lacks the function.
        """
        since = time.perf_counter()
        plan = read(Plan, spec)
        found = (await self._broker.find([ctx.id]))[0]
        children = found.children if found else None
        if found is None or children is None:
            raise JobFailed("the job has lost its partitions")
        function = function_or_snooze(self._find_function, plan.function, ctx, self._clock)
        work = function.prepare(plan.params)
        level = Level(0, children.total)
        if children.sealed and not children.failed:
            job = Job(ctx.id, found.queue, b"", found.priority, OPTIONS)
            climbed = await self._climb(plan, work, ctx, job, level)
            if climbed is None:
                return Parted()
            level = climbed
        tally, outlet = Tally(work, since), Outlet(plan.to, ctx.id, work)
        try:
            return await self._reduce(plan, ctx, children, level, tally, outlet)
        except BaseException:
            await outlet.abort()
            raise

    async def _climb(self, plan: Plan, work: Work, ctx: Context, job: Job, level: Level) -> Level | None:
        """Return what is left to be merged; None where steps have to be done before."""
        number = 0
        while steps := await next_steps(self._broker, plan, work, ctx.id, level):
            number += 1
            level = level_of(number, steps)
            ids = [child_id(ctx.id, part) for part in range(level.first, level.stop)]
            if not await self._are_over(ids):
                await ctx.reopen()
                await self._enqueue(job, ids, steps)
                return None
        return level

    async def _are_over(self, ids: Sequence[str]) -> bool:
        for start in range(0, len(ids), A_ROUND_TRIP):
            for found in await self._broker.find(ids[start : start + A_ROUND_TRIP]):
                if found is None or found.state is not State.SUCCEEDED:
                    return False
        return True

    async def _enqueue(self, job: Job, ids: Sequence[str], steps: Sequence[Step]) -> None:
        """Enqueue steps beside the job; of those that are there already nothing is added."""
        jobs = [
            msgspec.structs.replace(job, id=child, payload=pack_call(MERGE_TASK, (step,), {}))
            for child, step in zip(ids, steps, strict=True)
        ]
        for start in range(0, len(jobs), A_ROUND_TRIP):
            await self._broker.enqueue(jobs[start : start + A_ROUND_TRIP])

    async def _reduce(
        self, plan: Plan, ctx: Context, children: Progress, level: Level, tally: Tally, outlet: Outlet
    ) -> Summary:
        await outlet.take(tally.acc)
        for parts in _slices(children.total, tally):
            ids = [child_id(ctx.id, part) for part in parts]
            ends = zip(ids, await self._broker.find(ids), strict=True)
            some = [(left.at or child, left) for child, end in ends if (left := tally.count(child, end))]
            if not level.first and (tally.size <= BROKEN_BYTES or not children.failed):
                await self._merge(some, tally, outlet)
        if children.failed and not tally.refused:
            await self._blame(plan, ctx.id, children, tally)
        if plan.failed_to is not None:
            await write_rejects(self._broker, plan.failed_to, ctx.id, tally.rejected)
        because = _because(plan, children, tally)
        if because and (level.first or tally.size > BROKEN_BYTES):
            result = None
        elif level.shared:
            result = await self._join(plan, ctx.id, level, tally, outlet)
        else:
            for start in range(level.first, level.stop if level.first else 0, SLICE):
                parts = range(start, min(start + SLICE, level.stop))
                some = await partials(self._broker, ctx.id, parts)
                tally.count_steps(some)
                await self._merge(some, tally, outlet)
            result = await asyncio.to_thread(tally.work.finish, tally.acc, tally.failed)
        summary = tally.summary(plan, ctx.id, children.total, result, self._clock.now())
        if tally.surplus:
            raise _too_large(tally.surplus, summary)
        if because:
            partial = summary if _size(summary) <= RESULT_BYTES else {**summary, "final_result": None}
            raise JobFailed(because, partial=partial, failures=summary["failures"])
        saved = await self._save(plan, summary, outlet)
        if (size := _size(summary)) > (CHUNK_BYTES if saved else RESULT_BYTES):
            if not saved:
                raise _too_large(size, {**summary, "final_result": None})
            summary["final_result"] = saved
        if plan.cache is not None:
            await _keep(*plan.cache, summary)
        return summary

    async def _save(self, plan: Plan, summary: Summary, outlet: Outlet) -> dict[str, Any]:
        """Write rows and result row where the plan has them; returns where they went."""
        result = summary["final_result"]
        saved = await outlet.commit(result)
        if outlet.taken:  # the result is without them, and says where they are
            summary["final_result"] = {**(result if isinstance(result, dict) else {}), **saved}
        if plan.results:
            async with self._openings.results(plan.results) as table:
                await table.save(summary)
            saved.setdefault("saved_to", table.label)
        return saved

    async def _merge(self, some: Sequence[tuple[str, Partial]], tally: Tally, outlet: Outlet) -> None:
        async for acc in load(self._broker, some):
            await outlet.take(acc)
            tally.acc = tally.work.merge(tally.acc, acc)
            await asyncio.sleep(0)

    async def _join(self, plan: Plan, job_id: str, level: Level, tally: Tally, outlet: Outlet) -> Any:
        """Put the rows of all shares together, in the order of their keys; returns them where they go nowhere else."""
        work, rows = tally.work, list[Any]()
        assert isinstance(work, Keyed), "only keys can be shared out"
        shares = []
        for start in range(level.first, level.stop, A_ROUND_TRIP):
            shares += await partials(self._broker, job_id, range(start, min(start + A_ROUND_TRIP, level.stop)))
        tally.count_steps(shares)
        streams = [read_rows(self._broker, child, partial.chunks) for child, partial in shares]
        if isinstance(work, Condensing):
            return work.joined([one for stream in streams async for some in stream for _, one in some])
        size = sum(partial.size for _, partial in shares)
        if not (plan.to or plan.results) and size > RESULT_BYTES:
            tally.surplus = size
            return None
        async for some in in_order(streams, work.order):
            if plan.to:
                await outlet.put(some)
            else:
                rows += some
        return {} if plan.to else work.whole(rows)

    async def _blame(self, plan: Plan, job_id: str, children: Progress, tally: Tally) -> None:
        """Find the step that failed where no partition did."""
        number, level = 0, Level(0, children.total)
        while not tally.broken and (steps := await next_steps(self._broker, plan, tally.work, job_id, level)):
            number += 1
            level = level_of(number, steps)
            ids = [child_id(job_id, part) for part in range(level.first, level.stop)]
            for start in range(0, len(ids), SLICE):
                for found in await self._broker.find(ids[start : start + SLICE]):
                    if found and found.state.terminal and found.state is not State.SUCCEEDED and not tally.broken:
                        record = unpack_record(found.record)
                        tally.broken = f"{record.error_type}: {record.error_text}"


def _slices(total: int, tally: Tally) -> Iterator[range]:
    """Return which partitions to look at in one round trip: ever more, while what they leave is small."""
    start, count = 0, SLICE
    while start < total:
        yield range(start, min(start + count, total))
        start += count
        count = min(2 * count, WIDEST) if tally.size <= start * SMALL_BYTES else SLICE


class Tally:
    """What the partitions came to so far."""

    def __init__(self, work: Work, since: float) -> None:
        self.work = work
        self._since = since
        self.acc = work.initial()
        self.items = self.succeeded = self.failed = 0
        self.partitions = 0
        self.refused: list[str] = []
        self.failures: list[Failure] = []
        self.seconds = self.longest = 0.0
        self.digest = Digest()
        self.rejected: list[tuple[str, int]] = []
        self.size = self.surplus = 0
        self.broken = ""

    def count(self, child: str, ended: Found | None) -> Partial | None:
        """Count a partition; returns what it left, None where it did not succeed."""
        if ended is None or not ended.state.terminal:
            return None  # dropped, or still under way, because the job is over
        record = unpack_record(ended.record)
        if ended.state is not State.SUCCEEDED:
            self.refuse(child, record)
            return None
        partial = read(Partial, record.value)
        self.partitions += 1
        self.size += partial.size
        self.items += partial.items
        self.succeeded += partial.succeeded
        self.failed += partial.failed
        self.failures += partial.failures[: FAILURES_KEPT - len(self.failures)]
        self.seconds += partial.seconds
        self.longest = max(self.longest, partial.seconds)
        self.digest += partial.digest
        self.rejected += partial.rejected
        return partial

    def count_steps(self, some: Sequence[tuple[str, Partial]]) -> None:
        """Count what steps of the reduction took."""
        self.digest = sum((partial.digest for _, partial in some), self.digest)

    def refuse(self, child: str, record: Record) -> None:
        part, kind = child.rpartition(".")[2], f"{record.error_type}: " if record.error_type else ""
        self.refused.append(f"partition {part}: {kind}{record.error_text}")
        if isinstance(record.detail, dict):
            failures = read(list[Failure], record.detail.get("failures") or [])
            self.failures += failures[: FAILURES_KEPT - len(self.failures)]

    def summary(self, plan: Plan, job_id: str, partitions: int, result: Any, now_s: float) -> Summary:
        wall_s = max(now_s - born_ms(job_id) / 1000, self.longest, 1e-6)
        return {
            "job_id": job_id,
            "dataset_id": plan.dataset_id,
            "processing_function": plan.function,
            "total_processed": self.items,
            "total_successful": self.succeeded,
            "total_failed": self.failed,
            "success_rate": 100 * self.succeeded / self.items if self.items else 0.0,
            "final_result": result,
            "partitions_processed": self.partitions,
            "partitions_failed": len(self.refused),
            "processing_stats": {
                "partitions_total": partitions,
                "partitions_processed": self.partitions,
                "partitions_failed": len(self.refused),
                "total_processing_time": self.seconds,
                "wall_time": wall_s,
                "average_items_per_second": round(self.items / wall_s, 2),
                "digest": msgspec.to_builtins(self.digest + Digest(reduce_s=time.perf_counter() - self._since)),
            },
            "failures": [msgspec.to_builtins(failure) for failure in self.failures],
            "completed_at": now_s,
        }


def _too_large(size: int, partial: Summary) -> JobFailed:
    return JobFailed(
        f"the result takes {size:,} bytes, more than a broker carries ({RESULT_BYTES:,}): "
        "name a file or table for its rows with to=",
        partial=partial,
        failures=partial["failures"],
    )


def _because(plan: Plan, children: Progress, tally: Tally) -> str:
    """Return why the job fails, "" where it does not."""
    if tally.refused:
        refused, total = len(tally.refused), children.total
        return f"{refused} of {total} partitions failed for good; {tally.refused[0]}"
    if tally.broken:
        return f"its reduction failed: {tally.broken}"
    if not children.sealed:
        return f"the submitter died: of its source only {children.total} partitions were shipped"
    if tally.partitions < children.total:
        return f"the results of {children.total - tally.partitions} partitions are gone"
    limit = plan.max_failures
    if limit is None or tally.failed <= (limit * tally.items if type(limit) is float else limit):
        return ""
    allowed = f"{limit:.3%}" if type(limit) is float else str(limit)
    return f"{tally.failed} of {tally.items} items failed, more than {allowed}"


async def _keep(url: str, key: str, ttl_s: float, summary: Summary) -> None:
    """Keep a result for whoever asks again; where that cannot be, the job is done all the same."""
    table = open_cache(url)
    try:
        await table.save(key, summary, ttl_s)
    except SourceError as exc:
        log.warning("the result of job %s is not cached: %s", summary["job_id"], mask_text(str(exc)))
    finally:
        await table.close()


def _size(summary: Summary) -> int:
    try:
        return len(pack(summary))
    except BadParameters as exc:
        raise JobFailed(f"the result is no plain value: {exc}") from exc

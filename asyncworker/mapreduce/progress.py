"""How far a map/reduce job is: what the broker counts of it, made readable. Anybody may look, from any process."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import JobNotFound
from asyncworker.mapreduce.job import (
    REDUCE_TASK,
    STATUS,
    Partial,
    Plan,
    ProcessingJob,
    ProcessingPartition,
    Progress,
    read,
    read_call,
)
from asyncworker.mapreduce.sources.source import Partition
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import born_ms, is_id, unpack_record
from asyncworker.queue.inputs import GATHER_TASK
from asyncworker.queue.job import Found, Record, State, child_id

__all__ = ["Progress", "describe", "described", "watch"]

WINDOW_S = 10.0
"""The rate is a mean over at least so long, and over at least `MARKS` endings: partitions end in lumps."""
MARKS = 8
SLICE = 64
"""How many partitions one look-up asks for."""


async def watch(broker: Broker, job_id: str, every: float, *, clock: Clock = SYSTEM) -> AsyncIterator[Progress]:
    """Yield how far a job is: at once, then each *every* seconds, and last of all as soon as it is over.

    Of a group, and of any job that waits for others, those are counted as its partitions.

    Raises:
        JobNotFound: nobody knows the id (or no longer), or it is no such job.

    Cost: two round trips a look; no polling in between.
    """
    meter = Meter(job_id, clock)
    waits = False
    while True:
        found, first = await look(broker, job_id, may_wait=True, waits=waits)
        waits = waits or found.after is not None
        now = meter.read(found, first)
        yield now
        if now.state.terminal:
            return
        await broker.wait([job_id], every)


async def describe(broker: Broker, job_id: str, *, partitions: bool = False, clock: Clock = SYSTEM) -> ProcessingJob:
    """Return a job as people look at it; with *partitions* each of them, too, as long as the job is not over.

    What a job was asked to do is known while it is not over, and from its result or failure after that.

    Raises:
        JobNotFound: as `watch`.

    Cost: one round trip, and one more for every 64 partitions.
    """
    found, first = await look(broker, job_id)
    told = described(found, first, clock=clock)
    shown = await _partitions(broker, job_id, told.progress.total) if partitions and found.payload else []
    return msgspec.structs.replace(told, partitions=shown)


def described(found: Found, first: Found | None = None, *, clock: Clock = SYSTEM) -> ProcessingJob:
    """Return a map/reduce job as people look at it, without its partitions; see `Meter.read` for *first*."""
    job_id, record = found.id, unpack_record(found.record)
    outcome = outcome_of(found, record)
    if found.payload:
        plan = read_call(Plan, found.payload)
    else:
        plan = Plan("", outcome.get("dataset_id", ""), outcome.get("processing_function", ""))
    progress = Meter(job_id, clock).read(found, first)
    failed = progress.state in {State.FAILED, State.CANCELLED}
    return ProcessingJob(
        job_id=job_id,
        dataset_id=plan.dataset_id,
        processing_function=plan.function,
        parameters=plan.params,
        status=STATUS.get(progress.state, "pending"),
        start_time=born_ms(job_id) / 1000,
        end_time=record.ended_s,
        result=outcome if progress.state is State.SUCCEEDED else None,
        error=record.error_text or found.error or progress.state.value if failed else None,
        state=progress.state,
        progress=progress,
    )


class Meter:
    """Turn looks at a job into progress. Decides without awaiting; one meter a watcher."""

    def __init__(self, job_id: str, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._born_s = born_ms(job_id) / 1000
        began = clock.monotonic() - max(0.0, clock.now() - self._born_s)
        self._marks = deque([(began, 0, 0)])
        self._last = Progress(State.QUEUED)
        self._waits = False

    def read(self, found: Found, first: Found | None) -> Progress:
        """Return the progress; *first* is its first partition, which tells whether anything has begun."""
        last = self._last
        if found.state.terminal:
            self._last = self._final(found)
        elif children := found.children or found.after:
            self._waits = found.after is not None
            begun = first is not None and first.state not in {State.QUEUED, State.SCHEDULED}
            reducing = children.over and found.state is State.RUNNING
            per_s, items_per_s = self._rates(children.done, children.units)
            known = children.sealed and per_s > 0
            self._last = Progress(
                state=State.RUNNING if children.done or begun or reducing else State.QUEUED,
                done=children.done,
                total=children.total,
                items=children.units,
                items_per_s=items_per_s,
                eta_s=(children.total - children.done) / per_s if known else None,
                failed=children.failed,
                sealed=children.sealed,
            )
            if last.state is State.RUNNING and self._last.state is State.QUEUED:  # its first one is tried again
                self._last = last
        return self._last

    def _rates(self, done: int, items: int) -> tuple[float, float]:
        """Return partitions and items per second."""
        now, marks = self._clock.monotonic(), self._marks
        if done > marks[-1][1]:
            marks.append((now, done, items))
            while len(marks) > MARKS and marks[1][0] < now - WINDOW_S:
                marks.popleft()
        since, done_then, items_then = marks[0]
        elapsed = max(now - since, 1e-9)
        return (done - done_then) / elapsed, (items - items_then) / elapsed

    def _final(self, found: Found) -> Progress:
        record, last, children = unpack_record(found.record), self._last, found.children
        outcome = outcome_of(found, record)
        processed, failed = outcome.get("partitions_processed", 0), outcome.get("partitions_failed", 0)
        total = outcome.get("processing_stats", {}).get("partitions_total", 0)
        seen = last.total if self._waits and found.state is State.SUCCEEDED else last.done
        done = max(seen, processed + failed, children.done if children else 0)
        items = max(last.items, outcome.get("total_processed", 0), children.units if children else 0)
        elapsed = record.ended_s - self._born_s
        return Progress(
            state=found.state,
            done=done,
            total=max(last.total, done, total, children.total if children else 0),
            items=items,
            items_per_s=items / elapsed if elapsed > 0 else last.items_per_s,
            eta_s=0.0,
            failed=max(last.failed, failed, children.failed if children else 0),
            sealed=True,
        )


async def look(
    broker: Broker, job_id: str, *, may_wait: bool = False, waits: bool = False
) -> tuple[Found, Found | None]:
    """Return what is known of a map/reduce job and of its first partition. Raises JobNotFound."""
    found, first = await broker.find([job_id, child_id(job_id, 0)]) if is_id(job_id) else (None, None)
    if found is None:
        raise JobNotFound(f"nobody knows a job {job_id!r}")
    if found.children or waits or (may_wait and found.after):
        return found, first
    tasks = {REDUCE_TASK, "", GATHER_TASK if may_wait else ""}
    if not found.state.terminal or unpack_record(found.record).task not in tasks:
        raise JobNotFound(f"job {job_id} is no map/reduce job" + (", and waits for none" if may_wait else ""))
    return found, first


def outcome_of(found: Found, record: Record) -> dict[str, Any]:
    """Return the summary of a job that is over, also of one that failed; empty where there is none."""
    value = record.value if found.state is State.SUCCEEDED else record.detail
    if found.state is State.FAILED and isinstance(value, dict):
        value = value.get("partial")
    return value if isinstance(value, dict) and record.task in {REDUCE_TASK, ""} else {}


async def _partitions(broker: Broker, job_id: str, total: int) -> list[ProcessingPartition]:
    partitions: list[ProcessingPartition] = []
    waiting: list[tuple[ProcessingPartition, int]] = []
    begin, seconds, done = 0, 0.0, 0
    for start in range(0, total, SLICE):
        ids = [child_id(job_id, part) for part in range(start, min(start + SLICE, total))]
        for part, (name, found) in enumerate(zip(ids, await broker.find(ids), strict=True), start):
            partition = ProcessingPartition(name, (begin, begin), {"partition_index": part})
            partitions.append(partition)
            items = 0
            if found is not None and found.state is State.SUCCEEDED:
                partial = read(Partial, unpack_record(found.record).value)
                items, seconds, done = partial.items, seconds + partial.seconds, done + partial.items
                partition.assigned_worker = partial.worker
                partition.estimated_processing_time = partial.seconds
            elif found is not None and found.payload:
                items = read_call(Partition, found.payload).items
                waiting.append((partition, items))
            partition.data_range = begin, begin + items
            begin += items
    for partition, items in waiting:
        partition.estimated_processing_time = items * seconds / done if done else 0.0
    return partitions

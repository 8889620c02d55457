"""Map/reduce jobs as they can be seen, with each of their partitions."""

from __future__ import annotations

from asyncworker.clock import Clock
from asyncworker.daemon.answers import PartitionSeen, RunSeen
from asyncworker.daemon.text import bounded
from asyncworker.errors import DecodeError
from asyncworker.job import status_of
from asyncworker.mapreduce.job import Partial, read, read_call
from asyncworker.mapreduce.progress import described
from asyncworker.mapreduce.sources.source import Partition
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import born_ms
from asyncworker.queue.job import Found, State, child_id
from asyncworker.queue.search import record_of

SLICE = 64
"""How many partitions one look-up asks for: their results come with them."""


def run_seen(found: Found, first: Found | None, clock: Clock) -> RunSeen:
    """Return a map/reduce job as it can be seen; *first* is its first partition, which tells whether it has begun."""
    try:
        told = described(found, first, clock=clock)
    except DecodeError as exc:
        return RunSeen(
            found.id, found.state, "?", "?", born_ms(found.id) / 1000, None, 0, 0, 0, 0, 0.0, 0.0, False, None, str(exc)
        )
    progress = told.progress
    return RunSeen(
        id=found.id,
        state=progress.state,
        function=told.processing_function,
        dataset=bounded(told.dataset_id),
        created_at=told.start_time,
        ended_at=told.end_time or None,
        done=progress.done,
        total=progress.total,
        failed=progress.failed,
        items=progress.items,
        items_per_s=progress.items_per_s,
        ratio=progress.ratio,
        sealed=progress.sealed,
        eta_s=progress.eta_s,
        error=bounded(told.error) if told.error else None,
        phase=progress.phase,
    )


async def partitions_seen(broker: Broker, job_id: str, parts: range) -> list[PartitionSeen]:
    """Return these partitions of a job; those that nobody knows (any more) are left out.

    Cost: one round trip for every 64.
    """
    seen = []
    for start in range(parts.start, parts.stop, SLICE):
        numbers = range(start, min(start + SLICE, parts.stop))
        found = await broker.find([child_id(job_id, part) for part in numbers])
        seen += [_partition(part, one) for part, one in zip(numbers, found, strict=True) if one]
    return seen


def _partition(part: int, found: Found) -> PartitionSeen:
    status = status_of(found)
    error = status.error
    items, failed, seconds, worker = 0, 0, None, None
    try:
        if found.state is State.SUCCEEDED:
            partial = read(Partial, record_of(found).value)
            items, failed, seconds, worker = partial.items, partial.failed, partial.seconds, partial.worker or None
        elif found.payload:
            items = read_call(Partition, found.payload).items
    except DecodeError as exc:
        error = str(exc)
    return PartitionSeen(
        id=found.id,
        part=part,
        state=found.state,
        items=items,
        failed=failed,
        attempt=status.attempt,
        deliveries=status.deliveries,
        seconds=seconds,
        worker=worker,
        error=bounded(error) if error else None,
    )

"""How calls become jobs: what is done with those that the broker does not simply take."""

from __future__ import annotations

from collections.abc import Sequence

from asyncworker.errors import JobExists
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.job import Job, Twin

A_ROUND_TRIP = 1000


async def enter(broker: Broker, jobs: Sequence[Job], *, on_conflict: str) -> list[str]:
    """Enqueue jobs and return the ids by which they are known: their own, or that of the job with the same key.

    Raises:
        JobExists: *on_conflict* is "raise", and one has a ``unique`` key that another job has.
        BrokerDown, QueueFull, JobTooBig: the round trips before this one are enqueued.
    """
    ids: list[str] = []
    for start in range(0, len(jobs), A_ROUND_TRIP):
        some = jobs[start : start + A_ROUND_TRIP]
        for job, receipt in zip(some, await broker.enqueue(some), strict=True):
            if not isinstance(receipt, Twin):
                ids.append(job.id)
            elif on_conflict == "return":
                ids.append(receipt.id)
            else:
                raise JobExists(f"job {receipt.id} has the key {job.options['unique']!r}", job_id=receipt.id)
    return ids

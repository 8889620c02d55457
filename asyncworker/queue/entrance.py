"""How calls become jobs: what is done with those that the broker does not simply take."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence

import msgspec

from asyncworker.errors import JobExists, JobNotFound, QueueFull
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.job import Job, Missing, Receipt, Twin

A_ROUND_TRIP = 1000
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0


async def enter(broker: Broker, jobs: Sequence[Job], *, on_conflict: str, when_full: str) -> list[str]:
    """Enqueue jobs and return the ids by which they are known: their own, or that of the job with the same key.

    Where a queue is full it waits, looking again after pauses that grow, for as long as the caller has patience. A job
    that is to run after another of these is enqueued after that, or after the job that has that one's key.

    Raises:
        JobExists: *on_conflict* is "raise", and one has a ``unique`` key that another job has.
        QueueFull: *when_full* is "reject", and there is no room for some; the others are enqueued. Or the server is full.
        JobNotFound: one is to run after a job that nobody knows; those before it are enqueued.
        BrokerDown, JobTooBig: the round trips before this one are enqueued.
    """
    known = {job.id: job.id for job in jobs}
    for start in range(0, len(jobs), A_ROUND_TRIP):
        left, pause_s = jobs[start : start + A_ROUND_TRIP], FIRST_PAUSE_S
        while left:
            full, again = list[str](), dict[str, Job]()
            receipts = await broker.enqueue(left)
            if receipts.count(Receipt.ACCEPTED) == len(left):
                break
            for job, receipt in zip(left, receipts, strict=True):
                if receipt is Receipt.FULL:
                    full.append(job.queue)
                    again[job.id] = job
                elif isinstance(receipt, Missing):
                    if receipt.id not in again and known.get(receipt.id, receipt.id) == receipt.id:
                        raise JobNotFound(f"a job is to run after {receipt.id}, which nobody knows, or knows no longer")
                    again[job.id] = _renamed(job, known)
                elif isinstance(receipt, Twin):
                    known[job.id] = receipt.id
                    if on_conflict == "raise":
                        raise JobExists(f"job {receipt.id} has the key {job.options['unique']!r}", job_id=receipt.id)
            if full and when_full == "reject":
                raise QueueFull(f"the queue {full[0]!r} is full: {len(full)} of {len(jobs)} jobs found no room")
            if full:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            left = list(again.values())
    return list(known.values())


def _renamed(job: Job, known: Mapping[str, str]) -> Job:
    """Return a job with its predecessors as they are known; two that have become one count once."""
    after = [known.get(former, former) for former in job.after]
    options = job.options
    if "inputs" in options:
        options = options | {"inputs": len(set(after[: options["inputs"]]))}
    return msgspec.structs.replace(job, after=tuple(dict.fromkeys(after)), options=options)

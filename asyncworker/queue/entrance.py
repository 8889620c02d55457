"""How calls become jobs: what is done with those that the broker does not simply take."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence

import msgspec

from asyncworker.errors import JobExists, JobNotFound, QueueFull
from asyncworker.queue.brokers.broker import Answer, Broker, Plain
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
    if len(jobs) <= A_ROUND_TRIP:
        receipts = await broker.enqueue(jobs)
        if receipts.count(Receipt.ACCEPTED) == len(jobs):
            return [job.id for job in jobs]
        known = dict[str, str]()  # by another id than their own
        await _Round(broker, jobs, known, on_conflict, when_full).run(receipts=receipts)
        return [known.get(job.id, job.id) for job in jobs]
    known = {}
    rounds = [
        _Round(broker, jobs[start : start + A_ROUND_TRIP], known, on_conflict, when_full)
        for start in range(0, len(jobs), A_ROUND_TRIP)
    ]
    if any(job.options or job.after for job in jobs):
        for one in rounds:
            await one.run()
    else:
        await _ahead(rounds)
    return [known.get(job.id, job.id) for job in jobs] if known else [job.id for job in jobs]


def enter_blocking(broker: Plain, job: Job, *, on_conflict: str, when_full: str) -> str:
    """Enqueue one job, blocking, and return the id by which it is known; see `enter`."""
    pause_s = FIRST_PAUSE_S
    while True:
        answer = broker.enqueue_blocking(job)
        if isinstance(answer, Missing):
            raise _unknown(answer)
        if isinstance(answer, Twin):
            if on_conflict == "raise":
                raise _exists(answer, job)
            return answer.id
        if answer is not Receipt.FULL:
            return job.id
        if when_full == "reject":
            raise QueueFull(f"the queue {job.queue!r} is full")
        time.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def reenter(broker: Broker, job: Job, answer: Answer, *, when_full: str) -> None:
    """Go on where a job without options was not simply taken in, as *answer* says; see `enter`."""
    await _Round(broker, [job], {}, "return", when_full).run(receipts=[answer])


async def _ahead(rounds: Sequence[_Round]) -> None:
    """Run rounds of jobs that know nothing of one another: one is packed while the one before it is on its way."""
    under_way: asyncio.Task[None] | None = None
    following: asyncio.Task[None] | None = None
    try:
        for this in rounds:
            following = asyncio.create_task(this.run(under_way), name="asyncworker enqueue")
            await asyncio.sleep(0)  # it is packed, and waits behind the one before
            if under_way is not None:
                await under_way
            under_way = following
        if under_way is not None:
            await under_way
    finally:
        left = [task for task in (under_way, following) if task is not None and not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)


class _Round:
    """The jobs of one round trip, or of as many as it takes until there is room for all."""

    def __init__(
        self, broker: Broker, jobs: Sequence[Job], known: dict[str, str], on_conflict: str, when_full: str
    ) -> None:
        self._broker, self._jobs, self._known = broker, jobs, known
        self._on_conflict, self._when_full = on_conflict, when_full

    async def run(
        self,
        before: asyncio.Task[None] | None = None,
        receipts: Sequence[Answer] | None = None,
    ) -> None:
        """Enqueue them; where there is no room for all, not before the round *before* this one is through.

        Args:
            receipts: what the broker said when they were enqueued for the first time, if they were.
        """
        left, pause_s, known = self._jobs, FIRST_PAUSE_S, self._known
        while left:
            full, again = list[str](), dict[str, Job]()
            receipts = await self._broker.enqueue(left) if receipts is None else receipts
            if receipts.count(Receipt.ACCEPTED) == len(left):
                return
            for job, receipt in zip(left, receipts, strict=True):
                if receipt is Receipt.FULL:
                    full.append(job.queue)
                    again[job.id] = job
                elif isinstance(receipt, Missing):
                    if receipt.id not in again and known.get(receipt.id, receipt.id) == receipt.id:
                        raise _unknown(receipt)
                    again[job.id] = _renamed(job, known)
                elif isinstance(receipt, Twin):
                    known[job.id] = receipt.id
                    if self._on_conflict == "raise":
                        raise _exists(receipt, job)
            if full and self._when_full == "reject":
                raise QueueFull(f"the queue {full[0]!r} is full: {len(full)} of {len(left)} jobs found no room")
            if full and before is not None:
                await asyncio.wait([before])
            if full:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            left, receipts = list(again.values()), None


def _unknown(former: Missing) -> JobNotFound:
    return JobNotFound(f"a job is to run after {former.id}, which nobody knows, or knows no longer")


def _exists(twin: Twin, job: Job) -> JobExists:
    return JobExists(f"job {twin.id} has the key {job.options['unique']!r}", job_id=twin.id)


def _renamed(job: Job, known: Mapping[str, str]) -> Job:
    """Return a job with its predecessors as they are known; two that have become one count once."""
    after = [known.get(former, former) for former in job.after]
    options = job.options
    if "inputs" in options:
        options = options | {"inputs": len(set(after[: options["inputs"]]))}
    return msgspec.structs.replace(job, after=tuple(dict.fromkeys(after)), options=options)

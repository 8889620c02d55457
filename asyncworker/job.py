"""What `enqueue` gives back: a handle by which a job is awaited, looked at and cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

import msgspec

from asyncworker.errors import JobNotFound, ResultExpired
from asyncworker.mapreduce.job import REDUCE_TASK
from asyncworker.mapreduce.progress import Progress, watch
from asyncworker.mapreduce.report import Report, report
from asyncworker.queue.admin import Admin
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import born_ms, is_id, unpack_record
from asyncworker.queue.ending import error_of
from asyncworker.queue.job import Ended, Found, State
from asyncworker.queue.search import Query, record_of, task_of
from asyncworker.queue.worker.lending import lent

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
log = logging.getLogger(__name__)

RELAY_S = 0.05
NOBODY_S = 2.0
"""After this long without a result, somebody looks whether any worker reads the queue at all."""


class JobStatus(msgspec.Struct, frozen=True):
    """Where a job is. Dates in seconds since the epoch, None where it has not come to that.

    ``reason`` of a failed job: error, timeout, worker_lost, bad_payload, dependency, unknown_task. ``error`` is
    the last attempt's, also of a job that will be tried again. ``deliveries``: workers that died with it in hand. Of a
    job that waits for others ``after_done`` of ``after_total`` are over; ``waits_for`` are the first few that are not.
    """

    id: str
    state: State
    reason: str | None
    task: str
    queue: str
    priority: int
    attempt: int
    deliveries: int
    error: str | None
    enqueued_at: float
    due_at: float | None
    started_at: float | None
    ended_at: float | None
    progress_done: float | None = None
    progress_total: float | None = None
    partitions_done: int | None = None
    partitions_total: int | None = None
    after_done: int | None = None
    after_total: int | None = None
    waits_for: tuple[str, ...] | None = None


class Bound(Protocol[R]):
    """A call that can be enqueued after a job."""

    async def enqueue_after(self, job: JobHandle[Any]) -> JobHandle[R]:
        """Enqueue it, to be given what *job* returns."""
        ...


class Follower(Protocol[P, R]):
    """A task, as far as a handle must know."""

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Bound[R]:
        """Return a call of it."""
        ...


class JobHandle(Generic[R]):
    """One job, by its id. Cheap: it holds no state of its own.

    Args:
        queue: where the job went, if known: then a wait warns once when no live worker reads it.
        parent: it is known to be a map/reduce job.
        written: it lies in an outbox, so that the broker may come to know it later; `result` waits for that, too.
    """

    __slots__ = ("_broker", "_parent", "_queue", "_written", "id")

    _warned: set[int] = set()  # noqa: RUF012 - brokers whose users were told, for the life of the process

    def __init__(
        self, broker: Broker, id: str, queue: str = "", *, parent: bool = False, written: bool = False
    ) -> None:
        self.id = id
        self._written = written
        self._parent = parent
        self._broker = broker
        self._queue = queue

    def __repr__(self) -> str:
        return f"<job {self.id}>"

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the job's end and return its value.

        Raises:
            TaskFailed, TaskTimeout, JobFailed: it failed for good. TaskCancelled, JobCancelled, TaskExpired.
            TimeoutError: the wait is over; the job goes on. JobNotFound: nobody knows the id. ResultExpired: it
            is over and its result is no longer kept, or never was (``result_ttl=0``).

        Cost: one round trip where it is over already, else two; no polling.
        """
        with lent():  # in a job, another may run meanwhile: it may be the one that is waited for
            ended = await (self._relayed(timeout) if self._written else self._ended(timeout))
        if ended is None:
            raise TimeoutError(f"job {self.id} is not over after {timeout:g} s; it goes on")
        record = unpack_record(ended.record)
        if ended.state is State.SUCCEEDED:
            if not ended.record:
                raise ResultExpired(f"job {self.id} succeeded; its task keeps no results (result_ttl=0)")
            if record.stored:
                raise ResultExpired(
                    f"the result of job {self.id} is no longer in the store, or this engine has no result_store="
                )
            value: R = record.value
            return value
        raise error_of(self.id, ended.state, record, parent=self._parent or record.task == REDUCE_TASK)

    async def _ended(self, timeout: float | None) -> Ended | None:
        try:
            if self._queue and (timeout is None or timeout > NOBODY_S):
                (ended,) = await self._broker.wait([self.id], NOBODY_S)
                if ended is not None:
                    return ended
                await self._warn()
                timeout = None if timeout is None else timeout - NOBODY_S
            return (await self._broker.wait([self.id], timeout))[0]
        except JobNotFound:
            if not self._queue:
                raise
            raise ResultExpired(f"job {self.id} is over and its result is no longer kept") from None

    async def _relayed(self, timeout: float | None) -> Ended | None:
        """Wait until the job has come out of its outbox, and then for its end."""
        loop = asyncio.get_running_loop()
        end, pause_s = None if timeout is None else loop.time() + timeout, RELAY_S
        while True:
            try:
                return await self._ended(timeout)
            except JobNotFound:
                if end is not None and (timeout := end - loop.time()) <= 0:
                    return None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, NOBODY_S)

    async def _warn(self) -> None:
        if id(self._broker) in self._warned:
            return
        workers = (await self._broker.depth([])).workers.values()
        if not any(card.role == "worker" and self._queue in card.queues for card in workers):
            self._warned.add(id(self._broker))
            log.warning("no live worker reads the queue %r; start one with: asyncworker worker", self._queue)

    async def status(self) -> JobStatus:
        """Look where the job is.

        Raises:
            JobNotFound: nobody knows the id, or no longer.

        Cost: one round trip.
        """
        return status_of(await self._found())

    async def cancel(self) -> bool:
        """Cancel the job: at once where it waits, by asking its worker where it runs; children go with it.

        Returns:
            False when it was over already.

        Raises:
            JobNotFound: nobody knows the id.
        """
        state = await self._broker.cancel(self.id) if is_id(self.id) else None
        if state is None:
            raise JobNotFound(f"nobody knows a job {self.id!r}")
        return not state.terminal

    async def then(self, task: Follower[Concatenate[R, P], S], *args: P.args, **kwargs: P.kwargs) -> JobHandle[S]:
        """Enqueue a call of *task* that runs when this job has succeeded, and whose first argument is its result.

        It is given the result also where that would have expired meanwhile. See `asyncworker.flow.Flow.then`.

        Raises:
            JobNotFound: nobody knows this job, or no longer. BadParameters, BrokerDown, QueueFull, JobTooBig.
        """
        call: Any = task.bind
        bound: Bound[S] = call(*args, **kwargs)
        return await bound.enqueue_after(self)

    async def progress(self, every: float = 1.0) -> AsyncIterator[Progress]:
        """Yield how far a map/reduce job or a group is: at once, then each *every* seconds, last of all when it is over.

        Of a group, and of any job that waits for others, those are counted as its partitions.

        Raises:
            JobNotFound: nobody knows the id, or it is neither of these.
        """
        async for now in watch(self._broker, self.id, every):
            yield now

    async def report(self) -> Report:
        """Return where the time of a map/reduce job went: slowest partitions, retries, skew; also while it runs.

        Raises:
            JobNotFound: nobody knows the id, or it is no such job, or it ended before its partitions did.
        """
        return await report(self._broker, self.id)

    async def _found(self) -> Found:
        found = (await self._broker.find([self.id]))[0] if is_id(self.id) else None
        if found is None:
            raise JobNotFound(f"nobody knows a job {self.id!r}")
        return found


class FlowHandle(JobHandle[R]):
    """The last job of a flow, with all of them (*jobs*: their ids and queues).

    Attributes: ``jobs``, in the order in which they were enqueued: each after those that it waits for.
    """

    __slots__ = ("jobs",)

    def __init__(self, broker: Broker, jobs: Sequence[tuple[str, str]]) -> None:
        self.jobs: list[JobHandle[Any]] = [JobHandle(broker, job_id, queue) for job_id, queue in jobs]
        super().__init__(broker, *jobs[-1])

    async def cancel(self) -> bool:
        """Cancel all jobs of the flow that are not over, the last first. Returns False when all were.

        Raises:
            JobNotFound: nobody knows any of them.

        Cost: one round trip a job.
        """
        states = [await self._broker.cancel(job.id) for job in reversed(self.jobs)]
        if not any(states):
            raise JobNotFound(f"nobody knows a job {self.id!r}")
        return any(state is not None and not state.terminal for state in states)


def status_of(found: Found) -> JobStatus:
    """Return what is known of a job, as people look at it."""
    record = record_of(found)
    error = found.error or (f"{record.error_type}: {record.error_text}" if record.error_type else record.error_text)
    children = found.children
    done, _, total = found.progress.partition(" ")
    return JobStatus(
        id=found.id,
        state=found.state,
        reason=record.reason or None,
        task=task_of(found),
        queue=found.queue,
        priority=found.priority,
        attempt=record.attempt or found.attempt,
        deliveries=found.deliveries,
        error=error or None,
        enqueued_at=born_ms(found.id) / 1000,
        due_at=found.due_s or None,
        started_at=record.started_s or found.started_s or None,
        ended_at=record.ended_s or None,
        progress_done=float(done) if done else None,
        progress_total=float(total) if total else None,
        partitions_done=children.done if children else None,
        partitions_total=children.total if children else None,
        after_done=found.after.done if found.after else None,
        after_total=found.after.total if found.after else None,
        waits_for=found.waits_for or None,
    )


async def walk(admin: Admin, query: Query) -> AsyncIterator[JobStatus]:
    """Yield the jobs that are meant, each once, also where one is met again on its way back."""
    seen: set[str] = set()
    cursor = ""
    while True:
        page = await admin.jobs(query, cursor)
        for found in page.jobs:
            if found.id not in seen:
                seen.add(found.id)
                yield status_of(found)
        if not (cursor := page.cursor):
            return


async def gather(handles: list[JobHandle[R]], timeout: float | None = None) -> list[R]:
    """Return many results in order; the first error ends the wait and is raised. The jobs go on."""
    async with asyncio.timeout(timeout), asyncio.TaskGroup() as waits:
        tasks = [waits.create_task(handle.result()) for handle in handles]
    return [task.result() for task in tasks]

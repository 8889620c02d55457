"""DistributedProcessor: map/reduce jobs by plain methods and plain dicts, over the engine's `map_reduce`.

It has nothing of its own but a memory of what was submitted through it: how far a job is, and how it ended, is
asked of the broker, so any process can ask, and nothing depends on being polled.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, Self

import msgspec

from asyncworker.errors import BadParameters, BrokerDown, JobNotFound
from asyncworker.mapreduce.job import STATUS, ProcessingJob
from asyncworker.mapreduce.progress import describe
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.job import State

HISTORY = 1000
PARTITION_SIZE = 10_000
RECONNECT_S = 1.0


class Handle(Protocol):
    """A submitted job."""

    id: str


class MapReduceEngine(Protocol):
    """What is asked of the engine."""

    @property
    def broker(self) -> Broker: ...

    async def map_reduce(
        self,
        source: Any,
        function: str | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        partition_size: int | Literal["auto"] = "auto",
        workers: int | Literal["auto"] = "auto",
        cache: bool | str = False,
        database: str | None = None,
    ) -> Handle: ...


class DistributedProcessor:
    """Process large datasets.

    ``active_jobs`` maps the ids of jobs submitted here to what is known of them; a job leaves it by itself when it
    ends. Watching costs a task a job; `close` (or leaving ``async with``) ends it, the jobs go on.

    Args:
        database: a PostgreSQL DSN for dataset ids and result rows; the engine's own where none is given.
    """

    def __init__(self, engine: MapReduceEngine, *, database: str | None = None) -> None:
        self.active_jobs: dict[str, ProcessingJob] = {}
        self._engine = engine
        self._database = database
        self._ended: OrderedDict[str, ProcessingJob] = OrderedDict()
        self._watches: set[asyncio.Task[None]] = set()
        self._counts = {State.SUCCEEDED: 0, State.FAILED: 0, State.CANCELLED: 0}
        self._total = 0
        self._seconds = 0.0

    async def process_large_dataset(
        self,
        dataset_id: str | os.PathLike[str] | Iterable[Any],
        processing_function: str,
        parameters: Mapping[str, Any],
        partition_size: int = PARTITION_SIZE,
        max_workers: int | None = None,
        *,
        dynamic_partitioning: bool = True,
        adaptive_worker_count: bool = True,
        load_balancing: bool = True,
        caching_enabled: bool = False,
    ) -> str:
        """Submit a job and return its id.

        Args:
            dataset_id: a URL or path, a list of items, else an id in ``dataset_items`` of the database.
            max_workers: how many partitions may be in flight at once.
            dynamic_partitioning: choose the size of partitions, unless one is given.
            adaptive_worker_count: let as many workers help as there are, unless *max_workers* is given; else as many
                as this machine has processors.
            load_balancing: any free worker takes the next partition; there is no other way, so False is refused.
            caching_enabled: return the id of a job that does the very same over the same version of the dataset, or has
                done it and whose result is still there, instead of running it again.

        Raises:
            UnknownName, BadParameters, SourceError, EmptyDataset, BrokerDown: and no job is left behind.
        """
        if not load_balancing:
            raise BadParameters("load_balancing=False: partitions always go to whichever worker is free")
        parameters = dict(parameters)
        name = os.fspath(dataset_id) if isinstance(dataset_id, str | os.PathLike) else ""
        auto = dynamic_partitioning and partition_size == PARTITION_SIZE
        workers: int | Literal["auto"] = max_workers or ("auto" if adaptive_worker_count else os.cpu_count() or 1)
        handle = await self._engine.map_reduce(
            dataset_id,
            processing_function,
            params=parameters,
            partition_size="auto" if auto else partition_size,
            workers=workers,
            cache=caching_enabled and bool(name),
            database=self._database,
        )
        if handle.id in self.active_jobs or handle.id in self._ended:
            return handle.id
        dataset = name or f"{type(dataset_id).__name__} in memory"
        self.active_jobs[handle.id] = ProcessingJob(handle.id, dataset, processing_function, parameters)
        self._total += 1
        watch = asyncio.create_task(self._watch(handle.id), name=f"watch of {handle.id}")
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        return handle.id

    async def get_job_status(self, job_id: str) -> dict[str, Any]:
        """Return how a job is, whoever submitted it.

        Keys: ``job_id status state partitions start_time dataset_id processing_function progress``
        (``completed_partitions total_partitions percentage``), and ``end_time duration`` once it is over, with
        ``result`` where it completed, ``error`` where it did not. The percentage is 0 until the total is known.

        Raises:
            JobNotFound: nobody knows the id.
        """
        try:
            job = await self._described(job_id)
        except JobNotFound:
            if job_id not in self._ended:
                raise
            job = self._ended[job_id]  # its result is no longer kept elsewhere
        if job.state.terminal:
            self._end(job)
        return _status(job)

    async def get_job(self, job_id: str) -> ProcessingJob:
        """Return a job with each of its partitions, as long as it is not over; of one that is, all the rest.

        Raises:
            JobNotFound: nobody knows the id, or no longer.

        Cost: a round trip for every 64 partitions.
        """
        return await self._described(job_id, partitions=True)

    async def cancel_job(self, job_id: str) -> bool:
        """Cancel a job for good; returns False when it was over already.

        Raises:
            JobNotFound: nobody knows the id.
        """
        state = await self._engine.broker.cancel(job_id)
        if state is None:
            if job_id in self._ended:
                return False
            raise JobNotFound(f"nobody knows a job {job_id!r}")
        return not state.terminal

    async def get_performance_stats(self) -> dict[str, Any]:
        """Return counts over the jobs submitted here; ``success_rate`` is in percent of those that are over."""
        succeeded = self._counts[State.SUCCEEDED]
        over = sum(self._counts.values())
        return {
            "total_jobs": self._total,
            "successful_jobs": succeeded,
            "failed_jobs": self._counts[State.FAILED],
            "cancelled_jobs": self._counts[State.CANCELLED],
            "total_processing_time": self._seconds,
            "average_processing_time": self._seconds / succeeded if succeeded else 0.0,
            "success_rate": 100 * succeeded / over if over else 0.0,
            "active_jobs": len(self.active_jobs),
            "historical_jobs": len(self._ended),
        }

    @property
    def job_history(self) -> list[dict[str, Any]]:
        """The last thousand jobs that ended here, oldest first, as `get_job_status` tells them, without ``final_result``."""
        return [_status(job) for job in self._ended.values()]

    async def close(self) -> None:
        """Watch no more; the jobs go on."""
        watches = list(self._watches)
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _watch(self, job_id: str) -> None:
        """Move a job into history as soon as it is over."""
        while job_id in self.active_jobs:
            try:
                await self._engine.broker.wait([job_id], None)
                self._end(await self._described(job_id))
            except BrokerDown:
                await asyncio.sleep(RECONNECT_S)
            except JobNotFound:  # its result was kept for less time than it took us to come back
                lost = {"state": State.FAILED, "status": STATUS[State.FAILED], "error": "its end was missed"}
                self._end(msgspec.structs.replace(self.active_jobs[job_id], **lost))

    async def _described(self, job_id: str, *, partitions: bool = False) -> ProcessingJob:
        job = await describe(self._engine.broker, job_id, partitions=partitions)
        if known := self.active_jobs.get(job_id) or self._ended.get(job_id):
            job.dataset_id, job.processing_function = known.dataset_id, known.processing_function
            job.parameters = known.parameters
        if job_id in self.active_jobs:
            self.active_jobs[job_id] = job
        return job

    def _end(self, job: ProcessingJob) -> None:
        """Count a job that is over, once, however many saw it."""
        if self.active_jobs.pop(job.job_id, None) is None:
            return
        self._counts[job.state if job.state in self._counts else State.FAILED] += 1
        if job.state is State.SUCCEEDED:
            self._seconds += _duration(job)
        kept = {**job.result, "final_result": None} if job.result else None
        self._ended[job.job_id] = msgspec.structs.replace(job, result=kept)
        if len(self._ended) > HISTORY:
            self._ended.popitem(last=False)


def _duration(job: ProcessingJob) -> float:
    return max(0.0, job.end_time - job.start_time)


def _status(job: ProcessingJob) -> dict[str, Any]:
    status: dict[str, Any] = {
        "job_id": job.job_id,
        "status": job.status,
        "state": job.state.value,
        "partitions": job.progress.total,
        "start_time": job.start_time,
        "dataset_id": job.dataset_id,
        "processing_function": job.processing_function,
        "progress": {
            "completed_partitions": job.progress.done,
            "total_partitions": job.progress.total,
            "percentage": int(100 * job.progress.ratio),
        },
    }
    if job.state.terminal:
        status |= {"end_time": job.end_time, "duration": _duration(job)}
        status |= {"result": job.result} if job.state is State.SUCCEEDED else {"error": job.error}
    return status

"""A function that does what its items say, and a small fleet that runs map/reduce jobs over a broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from asyncworker.errors import BadParameters, JobFailed, UnknownName
from asyncworker.mapreduce import feeder
from asyncworker.mapreduce.job import MAP_TASK, MERGE_TASK, REDUCE_TASK
from asyncworker.mapreduce.mapper import Mapper
from asyncworker.mapreduce.merger import Merger
from asyncworker.mapreduce.openings import Openings
from asyncworker.mapreduce.progress import Progress, watch
from asyncworker.mapreduce.reducer import Reducer
from asyncworker.queue.brokers import memory
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import unpack_record
from asyncworker.queue.job import Ended, Record, State
from asyncworker.queue.task import Tasks, options_of
from asyncworker.queue.worker.worker import Worker

PATIENCE = 10.0


class Collect:
    """Collect the items: what comes out says which came in, and in which order.

    A dict item may ask for trouble: ``{"raise": text}`` fails, ``{"await": name}`` waits for that gate.
    """

    name = "collect"
    summary = "Collect the items."
    schema: Mapping[str, Any] = {}

    fields = ()

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.mapped = 0
        self.merged = 0

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    def prepare(self, params: Mapping[str, Any]) -> Collect:
        if "wrong" in params:
            raise BadParameters("wrong: there is no such parameter")
        return self

    def initial(self) -> Any:
        return []

    def map(self, item: Any) -> Any:
        self.mapped += 1
        if isinstance(item, dict):
            if "raise" in item:
                raise ValueError(item["raise"])
            if "await" in item:
                return self._later(item)
        return item

    async def _later(self, item: Any) -> Any:
        await self.gate(item["await"]).wait()
        return item

    def fold(self, acc: Any, value: Any) -> Any:
        acc.append(value)
        return acc

    def merge(self, left: Any, right: Any) -> Any:
        self.merged += 1
        return left + right

    def finish(self, acc: Any, failed: int = 0) -> Any:
        return {"items": acc, "failed": failed}


class Fleet:
    """A broker, the two tasks, and the functions they know."""

    def __init__(self, broker: Broker | None = None, **functions: Any) -> None:
        self.broker: Broker = broker or memory.open()
        self.collect = Collect()
        self.functions = {"collect": self.collect, **functions}
        for name, function in functions.items():
            function.name = name
        self.tasks = Tasks()
        options = {"timeout": None, "max_deliveries": 10, "retry_backoff": 0.0, "no_retry_on": (JobFailed,)}
        self.openings = Openings()
        self.mapper = Mapper(self.broker, self.find, self.openings)
        self.tasks.add(MAP_TASK, self.mapper, options_of(options))
        self.tasks.add(MERGE_TASK, Merger(self.broker, self.find), options_of(options))
        self.tasks.add(REDUCE_TASK, Reducer(self.broker, self.find, self.openings), options_of(options))

    def around_reduce(self, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Put something of a test's own around the reduce task."""
        known = self.tasks[REDUCE_TASK]
        self.tasks._known[REDUCE_TASK] = msgspec.structs.replace(known, call=wrap(known.call))

    def find(self, name: str) -> Any:
        if name not in self.functions:
            raise UnknownName("function", name, self.functions)
        return self.functions[name]

    async def submit(self, source: Any, name: str = "collect", **options: Any) -> tuple[str, asyncio.Task[None]]:
        params = options.pop("params", {})
        return await feeder.submit(
            self.broker,
            source,
            self.find(name),
            params,
            **({"partition_size": 10, "openings": self.openings} | options),
        )

    async def sealed(self, source: Any, name: str = "collect", **options: Any) -> str:
        """Submit, and return when it is sealed."""
        job_id, feeding = await self.submit(source, name, **options)
        async with asyncio.timeout(PATIENCE):
            await feeding
        return job_id

    @asynccontextmanager
    async def working(self, **options: Any) -> AsyncIterator[Worker]:
        defaults = {"queues": {"default": 20}, "concurrency": 20, "lease_s": 5.0, "grace_s": 0.0}
        worker = Worker(self.broker, self.tasks, **(defaults | options))
        run = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop(now=True)
            with contextlib.suppress(asyncio.CancelledError):
                await run
            await self.mapper.close()
            await self.openings.close()

    async def end(self, job_id: str) -> tuple[State, Record]:
        (ended,) = await self.broker.wait([job_id], PATIENCE)
        assert isinstance(ended, Ended), f"{job_id} is not over after {PATIENCE} s"
        return ended.state, unpack_record(ended.record)

    async def reached(self, job_id: str, done: int) -> Progress:
        """Return as soon as so many partitions are over."""
        async with asyncio.timeout(PATIENCE):
            async for now in watch(self.broker, job_id, 0.005):
                if now.done >= done:
                    return now
        raise AssertionError(f"{job_id} is over")

    async def run(self, source: Any, name: str = "collect", **options: Any) -> tuple[State, Record]:
        """Submit a job, work, and return how it ended."""
        async with self.working():
            job_id, feeding = await self.submit(source, name, **options)
            ended = await self.end(job_id)
            await asyncio.wait([feeding])
            return ended

    async def summary(self, source: Any, name: str = "collect", **options: Any) -> dict[str, Any]:
        state, record = await self.run(source, name, **options)
        assert state is State.SUCCEEDED, record
        value: dict[str, Any] = record.value
        return value

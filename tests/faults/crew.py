"""Workers in this process, each over a broker of its own, and a client: for faults that need no process to die."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BrokerDown
from asyncworker.events import BrokerDisrupted, Bus, LeaseEnded, WorkerReaped, WorkerStarted
from asyncworker.queue.brokers.redis import RedisBroker
from asyncworker.queue.codec import Ids, pack_call
from asyncworker.queue.context import Context
from asyncworker.queue.job import Ended, Job, QueueDepth, State
from asyncworker.queue.task import Tasks, options_of
from asyncworker.queue.worker.worker import Worker
from tests.faults.ledger import Fault, Run, Story, Verdict, judge

new_id = Ids()
QUEUE = "default"


class Crew:
    """Run workers on the server at *url*.

    Attributes: ``story`` of what happened; ``faults`` done so far; ``tell`` adds a task; ``outages`` that brokers told of.
    """

    def __init__(self, url: str, patience: float) -> None:
        self.url = url
        self.patience = patience
        self.tasks = Tasks()
        self.story = Story()
        self.faults: list[Fault] = []
        self.ids: list[str] = []
        self.outages: Counter[str] = Counter()
        self.client = RedisBroker(url, patience=patience)
        self.runs: list[asyncio.Task[None]] = []
        self._workers: list[tuple[Worker, RedisBroker]] = []
        self._began = time.monotonic()
        self.task()(self.work)

    def task(self, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            given = {"max_attempts": 1, "max_deliveries": 100, "timeout": None} | options
            self.tasks.add(function.__name__, function, options_of(given))
            return function

        return register

    async def work(self, seconds: float, ctx: Context) -> int:
        await asyncio.sleep(seconds)
        self.ran(ctx)
        return ctx.deliveries

    def ran(self, ctx: Context) -> None:
        self.story.runs.append(Run(ctx.id, ctx.deliveries, ctx.attempt, os.getpid(), "", time.monotonic()))

    def start(self, url: str = "", *, lease_s: float = 5.0, clock: Clock = SYSTEM, **options: Any) -> Worker:
        """Start a worker, on the server or on whatever stands before it."""
        bus = Bus()
        bus.listen(WorkerStarted, lambda event: self.story.joined.update({event.epoch: os.getpid()}))
        bus.listen(LeaseEnded, lambda event: self.story.lost.append(event.epoch))
        bus.listen(WorkerReaped, lambda event: self.story.reaped.update({event.epoch: event.jobs}))
        broker = RedisBroker(url or self.url, patience=self.patience, bus=bus)
        bus.listen(BrokerDisrupted, lambda event: self.outages.update([repr(broker)]))
        given = {"queues": {QUEUE: 20}, "concurrency": 20, "grace_s": 5.0} | options
        worker = Worker(broker, self.tasks, lease_s=lease_s, bus=bus, clock=clock, **given)
        self._workers.append((worker, broker))
        self.runs.append(asyncio.create_task(worker.run()))
        return worker

    async def joined(self, count: int) -> None:
        """Return when so many incarnations have begun."""
        await self.until(lambda: len(self.story.joined) >= count)

    async def put(
        self, name: str, *calls: tuple[Any, ...], through: RedisBroker | None = None, durable: str = "memory"
    ) -> list[str]:
        """Enqueue calls however often that takes, and note the jobs as acknowledged."""
        jobs = [Job(new_id(), QUEUE, pack_call(name, call, {}), durable=durable) for call in calls]
        deadline = time.monotonic() + 20
        while True:
            try:
                await (through or self.client).enqueue(jobs)
            except BrokerDown:
                assert time.monotonic() < deadline, "jobs cannot be enqueued"
            else:
                break
        made = [job.id for job in jobs]
        self.ids += made
        return made

    async def ends(self) -> list[Ended | None]:
        """Wait until all acknowledged jobs are over, and return how."""
        deadline = time.monotonic() + 20
        while True:
            try:
                return await self.client.wait(self.ids, 20)
            except BrokerDown:
                assert time.monotonic() < deadline, "nobody says how jobs ended"

    async def depth(self) -> QueueDepth:
        return (await self.client.depth([QUEUE])).queues[QUEUE]

    async def until(self, seen: Callable[[], object], patience: float = 20.0) -> None:
        """Return when there is something to see; a worker that ended in an error raises it here."""
        deadline = time.monotonic() + patience
        while not seen():
            for run in self.runs:
                assert not run.done(), f"a worker is gone: {run.exception()!r}"
            assert time.monotonic() < deadline, "waited in vain"
            await asyncio.sleep(0.005)

    async def judged(self, scenario: str, seed: int) -> Verdict:
        ends = await self.ends()
        completed = sum(end is not None and end.state is State.SUCCEEDED for end in ends)
        depth = await self.depth()
        assert depth.enqueued == len(self.ids), "what was enqueued again was counted again"
        assert (depth.succeeded, depth.failed, depth.cancelled) == (completed, 0, 0)
        assert not any(run.done() for run in self.runs), "a worker is gone"
        elapsed = time.monotonic() - self._began
        return judge(scenario, seed, self.ids, self.story, self.faults, completed=completed, elapsed=elapsed)

    async def close(self) -> None:
        for worker, _ in self._workers:
            worker.stop(now=True)
        ended = await asyncio.gather(*self.runs, return_exceptions=True)
        for _, broker in self._workers:
            await broker.close()
        await self.client.close()
        self.tasks.close()
        assert ended == [None] * len(ended), "a worker ended in an error"


@asynccontextmanager
async def crew(url: str, *, patience: float = 2.0) -> AsyncIterator[Crew]:
    """Run a crew; *patience* is that of all its brokers, and how long one answer may take."""
    running = Crew(url, patience)
    try:
        yield running
    finally:
        await running.close()

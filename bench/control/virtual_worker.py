"""A worker that seeks its numbers, in virtual time: runner, fetcher and sought slots over a broker in this process.

There is no lease to keep and nobody to sweep; all else is what `asyncworker.queue.worker.worker` runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from asyncworker.events import Bus
from asyncworker.queue.brokers import memory
from asyncworker.queue.codec import Ids, pack_call
from asyncworker.queue.job import Job, WorkerCard
from asyncworker.queue.task import Tasks, options_of
from asyncworker.queue.worker.fetcher import Fetcher
from asyncworker.queue.worker.runner import Runner
from asyncworker.queue.worker.sought import Seek, SoughtSlots, forgetful
from asyncworker.queue.worker.turns import Turns
from asyncworker.tune.decisions import Decisions
from asyncworker.tune.utilisation import LoopLoad

START_S = 1_700_000_000.0


class LoopClock:
    """The time of the running loop, as both clocks."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> float:
        return START_S + self.monotonic()


class Load(LoopLoad):
    """A loop that is as busy as is said: in virtual time the real one always is."""

    def __init__(self, ratio: float) -> None:
        super().__init__(1.0)
        self._ratio = ratio

    @property
    def ratio(self) -> float:
        return self._ratio

    def watch(self) -> None:
        """Nothing is to be seen."""


class VirtualWorker:
    """A worker, its broker and its tasks; made and used in a virtual loop.

    Attributes: ``ends`` are the moments at which jobs ended, by task; ``running`` how many run now, ``most`` did at once.
    """

    def __init__(
        self,
        tasks: Mapping[str, Callable[..., Awaitable[Any]]],
        *,
        queues: Mapping[str, int | None],
        seek: Seek = forgetful,
        busy: float = 0.0,
    ) -> None:
        self.clock, self.bus, self.tasks = LoopClock(), Bus(), Tasks()
        self.ends: dict[str, list[float]] = {name: [] for name in tasks}
        self.running, self.most = dict.fromkeys(tasks, 0), dict.fromkeys(tasks, 0)
        for name, function in tasks.items():
            options = options_of({"result_ttl": 0, "failure_ttl": 0, "max_attempts": 1, "timeout": None})
            self.tasks.add(name, self._noted(name, function), options)
        self.broker = memory.open("memory://", bus=self.bus, clock=self.clock)
        self.decisions = Decisions(self.bus, clock=self.clock)
        self.wake = asyncio.Event()
        self.slots = SoughtSlots(
            queues, self.tasks, self.wake, seek=seek, decisions=self.decisions, clock=self.clock, load=Load(busy)
        )
        self.runner = Runner(self.tasks, self.wake, clock=self.clock, sought=self.slots)
        self._queues, self._ids = tuple(queues), Ids()

    def _noted(self, name: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[None]]:
        async def job() -> None:
            self.running[name] += 1
            self.most[name] = max(self.most[name], self.running[name])
            try:
                await function()
            finally:
                self.running[name] -= 1
                self.ends[name].append(self.clock.monotonic())

        return job

    async def put(self, names: list[str], queue: str = "default") -> None:
        """Enqueue a job of each of these."""
        await self.broker.enqueue([Job(self._ids(), queue, pack_call(name, (), {})) for name in names])

    async def work(self, seconds: float) -> None:
        """Work for so many virtual seconds."""
        card = WorkerCard("here", 1, self._queues, 0, 10.0, 0.0)
        epoch = await self.broker.join(card, lambda _: self.wake.set())
        fetcher = Fetcher(
            self.broker,
            epoch,
            self.runner,
            self.wake,
            slots=self.slots,
            turns=Turns({}),
            bus=self.bus,
            clock=self.clock,
        )
        loops = [asyncio.ensure_future(one.run()) for one in (self.runner, fetcher)]
        ended, _ = await asyncio.wait(loops, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for one in ended:
            one.result()
        await self.runner.release(0.0)
        for one in loops:
            one.cancel()
        await asyncio.wait(loops)

    def rate(self, name: str, since: float, until: float) -> float:
        """Return how many of its jobs ended a second."""
        return sum(since <= end < until for end in self.ends[name]) / (until - since)

    def limits(self, name: str, since: float) -> list[int]:
        """Return the limits that were decided from then on."""
        return [one.new for one in self.decisions if one.name == f"task {name}" and one.at_s >= START_S + since]

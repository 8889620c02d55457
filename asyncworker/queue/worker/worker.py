"""Worker: joins the broker, starts its loops in one TaskGroup, and leaves when it is told to.

    fetcher    settles and claims, one round trip at a time
    runner     runs what was claimed, and looks after deadlines
    keeper     keeps the lease, from a thread
    sweeper    gives back what the dead held
    scheduler  enqueues what is due by the calendar

A worker that loses its lease cancels what it runs, hands back what it can, and joins again as somebody new.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BrokerDown, LeaseLost, SettingsError
from asyncworker.events import Bus, JobsEnded, LeaseEnded, WorkerStarted, WorkerStopped
from asyncworker.queue.admin import Admin
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.hooks import Hooks
from asyncworker.queue.inputs import inputs_of
from asyncworker.queue.job import WorkerCard
from asyncworker.queue.offload import Offload
from asyncworker.queue.schedule import Schedule
from asyncworker.queue.strike import read_strikes
from asyncworker.queue.task import Definition, limits_of
from asyncworker.queue.worker.brisk import Brisk
from asyncworker.queue.worker.fetcher import MOST, Fetcher
from asyncworker.queue.worker.keeper import Keeper
from asyncworker.queue.worker.patience import CANCEL_GRACE_S
from asyncworker.queue.worker.runner import Runner
from asyncworker.queue.worker.scheduler import Scheduler
from asyncworker.queue.worker.slots import Slots
from asyncworker.queue.worker.sought import Seek, SoughtSlots, forgetful
from asyncworker.queue.worker.sweeper import Sweeper
from asyncworker.queue.worker.turns import Turns
from asyncworker.secret import mask_text
from asyncworker.tune.decisions import Decisions
from asyncworker.tune.sensors.profiler import PerformanceProfiler

STOP_PATIENCE_S = 1.0
"""How long cancelled jobs get to clean up, after the grace period."""
REJOIN_S = 2.0
"""The longest pause between two tries to join again; drawn evenly, so that a fleet does not come all at once."""

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]


class Worker:
    """Run jobs of some queues until stopped.

    Args:
        queues: name -> how many of its jobs may run here at once; None: how many is sought. concurrency: how many jobs
            in all. lease_s: how long silence is forgiven.
        grace_s: how long a drain waits for what runs. cancel_grace_s: how long a cancelled job may go on. offload: takes large results. burst: return when the queues are empty. brisk: queues whose claims may grow while their jobs are short. weights: of queues, see `Turns`. lifespan: makes the
        context in which this worker lives; its value is the jobs' ``ctx.resources``. seek: where the policies come from
        that seek how many. decisions: where these are noted. profiler: measures some of the jobs.
    """

    def __init__(
        self,
        broker: Broker,
        tasks: Mapping[str, Definition],
        *,
        queues: Mapping[str, int | None],
        concurrency: int,
        lease_s: float = 10.0,
        grace_s: float = 30.0,
        cancel_grace_s: float = CANCEL_GRACE_S,
        offload: Offload | None = None,
        burst: bool = False,
        brisk: Collection[str] = (),
        weights: Mapping[str, float] | None = None,
        schedules: Iterable[Schedule] = (),
        version: str = "",
        bus: Bus | None = None,
        clock: Clock = SYSTEM,
        hooks: Hooks | None = None,
        lifespan: Lifespan | None = None,
        seek: Seek = forgetful,
        decisions: Decisions | None = None,
        profiler: PerformanceProfiler | None = None,
    ) -> None:
        self._broker = broker
        self._tasks = tasks
        self._queues = dict(queues)
        self._concurrency = concurrency
        self._lease_s = lease_s
        self._grace_s = grace_s
        self._burst = burst
        self._brisk = brisk
        self._turns = Turns(weights or {})
        self._schedules = tuple(schedules)
        self._version = version
        self._bus = bus or Bus()
        self._clock = clock
        self._stop_by: float | None = None
        self._hurry: Callable[[], None] | None = None
        self._fetcher: Fetcher | None = None
        self._wake = asyncio.Event()
        self._hooks = hooks or Hooks()
        self._lifespan = lifespan
        fixed = {name: slots for name, slots in queues.items() if slots is not None}
        self._slots, self._sought = Slots(fixed, concurrency), None
        if len(fixed) < len(queues):
            self._slots = self._sought = SoughtSlots(
                queues, tasks, self._wake, concurrency=concurrency, seek=seek, decisions=decisions, clock=clock
            )
        self._runner = Runner(
            tasks,
            self._wake,
            clock=clock,
            tell=self._bus.wants(JobsEnded),
            hooks=self._hooks,
            sought=self._sought,
            profiler=profiler,
            inputs=partial(inputs_of, broker),
            cancel_grace_s=cancel_grace_s,
            emit=self._bus.emit,
            offload=offload,
        )

    def running(self) -> dict[str, int]:
        """Return how many jobs run here now, by task; ``""`` are those that have not begun."""
        return Counter(attempt.task for attempt in self._runner.live.values())

    def stop(self, *, now: bool = False, patient: bool = False) -> None:
        """Claim no more and return when what runs has ended, or the grace period has; with *now*, at once.

        With *patient* there is no such period. Call it in the event loop; a second call may shorten what the first allowed.
        """
        by = self._clock.monotonic() + (0.0 if now else math.inf if patient else self._grace_s)
        self._stop_by = by if self._stop_by is None else min(by, self._stop_by)
        if self._hurry is not None:
            self._hurry()

    async def run(self) -> None:
        """Work until stopped (or, in a burst, until there is nothing left).

        Raises:
            BrokerDown: it could not join. SettingsError: the broker may not be used, or the lifespan did not start.
        """
        async with self._prepared():
            await self._work()

    @asynccontextmanager
    async def _prepared(self) -> AsyncIterator[None]:
        """Hold what the jobs need from before the first is claimed until after the last has ended."""
        async with AsyncExitStack() as held:
            if self._sought is not None:
                held.callback(self._sought.close)
            if self._lifespan is not None:
                try:
                    self._runner.resources = await held.enter_async_context(self._lifespan())
                except Exception as exc:
                    told = mask_text(f"{type(exc).__name__}: {exc}")
                    raise SettingsError(f"the worker's lifespan did not start: {told}") from exc
            await self._hooks.tell(self._hooks.start)
            try:
                yield
            finally:
                await self._hooks.tell(self._hooks.stop)

    async def _work(self) -> None:
        if (numbers := limits_of(self._tasks)) and isinstance(self._broker, Admin):
            await self._broker.regulate(numbers)
        if isinstance(self._broker, Admin):
            self._strike(await self._broker.strikes())  # before anything is claimed
        epoch = await self._join()
        while epoch:
            try:
                await self._live(epoch)
                return
            except* LeaseLost as group:
                self._bus.emit(LeaseEnded(epoch=epoch, because=str(group.exceptions[0])))
            epoch = await self._rejoin()

    def _strike(self, texts: Mapping[str, bytes]) -> None:
        """Hear what is not to be started."""
        self._runner.strikes = read_strikes(texts.values())

    async def _join(self) -> str:
        card = WorkerCard(
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=tuple(self._queues),
            concurrency=0 if self._sought else self._concurrency,
            lease_s=self._lease_s,
            started_s=self._clock.now(),
            version=self._version,
        )
        return await self._broker.join(card, self._notice)

    async def _rejoin(self) -> str:
        """Join as somebody new however long the broker is away; "" when told to stop meanwhile."""
        while self._stop_by is None:
            try:
                return await self._join()
            except BrokerDown:
                await asyncio.sleep(REJOIN_S * random.random())
        return ""

    def _notice(self, job_id: str) -> None:
        if job_id:
            self._runner.cancel(job_id)
        elif self._fetcher is None or not self._fetcher.hand():
            self._wake.set()

    async def _live(self, epoch: str) -> None:
        runner, wake = self._runner, self._wake
        self._fetcher = fetcher = Fetcher(
            self._broker,
            epoch,
            runner,
            wake,
            slots=self._slots,
            bus=self._bus,
            burst=self._burst,
            brisk=Brisk(self._brisk, self._clock) if self._brisk else None,
            turns=self._turns,
            clock=self._clock,
        )
        sweeper = Sweeper(self._broker, epoch, bus=self._bus, clock=self._clock)
        lost = asyncio.get_running_loop().create_future()

        def on_lost(because: str) -> None:
            if not lost.done():
                lost.set_exception(LeaseLost(because))

        keeper = Keeper(self._broker, epoch, self._lease_s, on_lost=on_lost, on_beats=sweeper.look, clock=self._clock)
        keeper.start()
        at_once = 0 if self._sought else self._concurrency
        self._bus.emit(WorkerStarted(epoch=epoch, queues=tuple(self._queues), concurrency=at_once))
        handed_back = 0
        try:
            async with asyncio.TaskGroup() as loops:
                helpers = [
                    loops.create_task(runner.run(), name="runner"),
                    loops.create_task(sweeper.run(), name="sweeper"),
                    loops.create_task(_raise(lost), name="keeper"),
                ]
                if isinstance(self._broker, Admin):
                    scheduler = Scheduler(self._broker, self._schedules, strike=self._strike, clock=self._clock)
                    helpers.append(loops.create_task(scheduler.run(), name="scheduler"))
                work = loops.create_task(fetcher.run(), name="fetcher")
                await self._until_stopped(work, fetcher)
                if not work.done():
                    handed_back = await runner.release(STOP_PATIENCE_S)
                    wake.set()  # what swallows its cancellation does not say that it was struck off
                    await asyncio.wait([work], timeout=self._lease_s / 2)
                    work.cancel()
                for helper in helpers:
                    helper.cancel()
        finally:
            self._hurry = self._fetcher = None
            await keeper.stop()
            await self._leave(epoch, runner)
        self._bus.emit(WorkerStopped(epoch=epoch, handed_back=handed_back))

    async def _until_stopped(self, work: asyncio.Task[None], fetcher: Fetcher) -> None:
        """Return when the work is over, or when it was told to stop and its time is."""
        changed = asyncio.Event()
        self._hurry = changed.set
        work.add_done_callback(lambda _: changed.set())
        while not work.done():
            left = None
            if self._stop_by is not None:
                fetcher.drain()
                left = self._stop_by - self._clock.monotonic()
                if left <= 0:
                    return
            try:
                async with asyncio.timeout(None if left == math.inf else left):
                    await changed.wait()
            except TimeoutError:
                return
            changed.clear()

    async def _leave(self, epoch: str, runner: Runner) -> None:
        """Settle what has ended, hand the rest back, and end the epoch: what a lost lease still allows of it."""
        await runner.release(STOP_PATIENCE_S)
        try:
            async with asyncio.timeout(max(STOP_PATIENCE_S, self._lease_s / 2)):
                while settled := runner.take(MOST):
                    await self._broker.step(epoch, settled, {}, 0)
                await self._broker.reap(epoch, "", crashed=False)
        except (LeaseLost, ConnectionError, TimeoutError):
            runner.forget()  # the sweepers of the fleet will give it back when the lease ends


async def _raise(lost: asyncio.Future[None]) -> None:
    await lost

"""DynamicWorkerManager: keeps as many worker processes as there is work for, and replaces those that die.

    look      five times a second: who has ended, who works by now; start and stop what is wanted
    cycle     each few seconds: what waits and arrives, and what the machine bears, decide how many are wanted

Workers are processes of their own that end with this one, also when it is killed (`lifeline`). They tell how they are
on a board in shared memory (`share`). A worker that is too much is asked to drain, and may take all the time that its
jobs take; only `stop_worker` and the end of all are bound to the grace period. One that dies is replaced under its
name, at once; one that dies young again and again, less and less often.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from statistics import quantiles
from types import TracebackType
from typing import Any, Self

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import AsyncWorkerError, BadParameters, UnknownName
from asyncworker.events import Bus
from asyncworker.fleet.crew import Crew, spent
from asyncworker.fleet.depth import DepthSensor
from asyncworker.fleet.process import WorkerProcess
from asyncworker.fleet.scaler import CPU_RATIO, MEMORY_RATIO, Scaler
from asyncworker.fleet.stillness import Stillness
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.job import Depth
from asyncworker.share.board import Gauges
from asyncworker.tune.decisions import Decisions
from asyncworker.tune.policies.policy import Decision
from asyncworker.tune.sensors.host import Host, HostSensor, rss

log = logging.getLogger(__name__)

LOOK_S = 0.2
CYCLE_S = 2.0
IDLE_CYCLE_S = 0.5
"""How often to look for work while nobody works."""
RED_CYCLES = 3


class DynamicWorkerManager:
    """Run worker processes.

    Args:
        target: the workers' engine as ``module:name``, or the whole command of a worker.
        broker: asked how much work there is; an open engine's ``broker``.
        queues: which of its queues count.
        environment: variables of the workers, else those of this process.
        min_workers, max_workers: bounds; the same number twice is a fixed one. None: one a usable processor.
        cpu_threshold, memory_threshold: shares of processors and memory above which no worker is added.
        queue_threshold: so many jobs waiting in one queue force one more.
        recycle_jobs, recycle_bytes: a worker that did so many jobs, or takes so much memory, is replaced by a new one.
        planned: returns how many schedules there are that need somebody to fire them, though nothing waits.
        grace_period: the workers'. backend: returns how many workers what they work with can bear.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        broker: Broker,
        *,
        queues: Iterable[str],
        environment: Mapping[str, str] | None = None,
        min_workers: int = 1,
        max_workers: int | None = None,
        cpu_threshold: float = CPU_RATIO,
        memory_threshold: float = MEMORY_RATIO,
        queue_threshold: int | None = None,
        recycle_jobs: int | None = None,
        recycle_bytes: int | None = None,
        grace_period: float = 30.0,
        interval: float = CYCLE_S,
        backend: Callable[[], float] = lambda: math.inf,
        planned: Callable[[], Awaitable[int]] | None = None,
        host: Callable[[], Host] | None = None,
        bus: Bus | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        worker = [sys.executable, "-P", "-m", "asyncworker", "worker"]
        command = [*worker, target] if isinstance(target, str) else list(target) or worker
        self._bus, self._clock = bus or Bus(), clock
        variables = os.environ if environment is None else environment
        self._broker, self._queues = broker, tuple(queues)
        self._host = host or HostSensor(clock).look
        high = max(min_workers, round(self._host().processors), 1) if max_workers is None else max_workers
        self._scaler = Scaler(
            low=min_workers,
            high=high,
            cpu_ratio=cpu_threshold,
            memory_ratio=memory_threshold,
            queue_threshold=queue_threshold,
        )
        self._crew = Crew(command, dict(variables), high + 1, grace_period, self._bus, clock)
        self.min_workers, self.max_workers = min_workers, high
        self._recycle_jobs, self._recycle_bytes = recycle_jobs or math.inf, recycle_bytes or math.inf
        self._interval, self._backend, self._planned = interval, backend, planned
        self.decisions = Decisions(self._bus)
        self._sensor = DepthSensor()
        self._stillness = Stillness()
        self._before: dict[str, Gauges] = {}
        self._wanted = min_workers
        self._monitoring: asyncio.Task[None] | None = None
        self._depth: Depth | None = None
        self._seen_host: Host | None = None
        self._last: Decision | None = None
        self._failed_row = self.failed_cycles = 0
        self._passed = clock.monotonic()

    def __repr__(self) -> str:
        return f"<DynamicWorkerManager {self._crew.size} of {self.min_workers}..{self.max_workers} workers>"

    # --- the seed's face ------------------------------------------------------------------------------------

    async def start_monitoring(self) -> None:
        """Start the first workers and look after them until `stop_monitoring`; returns when they are started."""
        if self._monitoring is None:
            await self._crew.open()
            self._wanted = max(self._wanted, self.min_workers)
            await self._adjust()
            self._monitoring = asyncio.get_running_loop().create_task(self._monitor(), name="worker manager")

    async def stop_monitoring(self) -> None:
        """Let all workers drain, and end. Harmless when repeated; an error that ended the monitoring is raised."""
        monitoring, self._monitoring = self._monitoring, None
        if monitoring is not None:
            monitoring.cancel()
            await asyncio.wait([monitoring])
        await self.stop_all_workers()
        if monitoring is not None and not monitoring.cancelled() and (error := monitoring.exception()) is not None:
            raise error

    async def start_worker(self, worker_name: str | None = None) -> str:
        """Start one more worker and return its name.

        Raises:
            BadParameters: there are as many as there may be, or one of this name.
        """
        crew = self._crew
        await crew.open()
        if max(crew.size, self._wanted) >= self.max_workers:
            raise BadParameters(f"there are {self.max_workers} workers already, as many as there may be")
        if worker_name in crew.names:
            raise BadParameters(f"there is a worker {worker_name!r} already")
        name = worker_name or crew.new_name()
        self._wanted = max(crew.size, self._wanted) + 1
        crew.due[name] = self._clock.monotonic()
        await self._adjust()
        return name

    async def stop_worker(self, worker_name: str | None = None) -> None:
        """Let one worker drain, the one with the least to do if none is named; returns when it has ended.

        Raises:
            UnknownName: there is none of this name.
        """
        crew = self._crew
        if worker_name is None:
            if not (idlest := crew.idlest):
                return
            worker_name = idlest[0].name
        if worker_name not in crew.workers and worker_name not in crew.due:
            raise UnknownName("worker", worker_name, crew.names)
        worker = crew.workers.get(worker_name)
        if worker is None or worker.stays:
            self._wanted = max(0, self._wanted - 1)
        if worker is None:
            del crew.due[worker_name]
        else:
            await crew.leave(worker)

    async def stop_all_workers(self) -> None:
        """Let all workers drain; returns when the last has ended. While they are monitored, the least come back."""
        self._wanted = 0
        await self._crew.drain()
        if self._monitoring is None:
            await self._crew.close()

    def get_worker_stats(self) -> dict[str, Any]:
        """Return how things are: the seed's keys, and more of the same."""
        crew, host, depth = self._crew, self._seen_host, self._depth
        crew.read()
        workers = [
            {
                "name": worker.name,
                "pid": worker.pid,
                "stage": worker.stage,
                "age_s": self._clock.monotonic() - worker.born,
                "running": worker.gauges.running,
                "jobs": worker.gauges.ended,
                "rss_bytes": worker.rss_bytes,
            }
            for worker in crew.workers.values()
        ]
        return {
            "total_workers": len(workers),
            "active_workers": sum(worker["stage"] == "working" for worker in workers),
            "dead_workers": len(crew.due),
            "cpu_percent": 100 * host.cpu_ratio if host else None,
            "memory_percent": 100 * host.memory_ratio if host else None,
            "queue_lengths": {name: of.queued for name, of in depth.queues.items()} if depth else {},
            "wanted_workers": self._wanted,
            "because": self._last.because if self._last else "",
            "crashes": crew.crashes.total,
            "crash_loops": crew.crashes.looping,
            "crashes_by_signal": dict(crew.fates),
            "starts": crew.starts,
            "failed_cycles": self.failed_cycles,
            "failed_in_a_row": self._failed_row,
            "monitoring": self._monitoring is not None and not self._monitoring.done(),
            "monitoring_ended": self._monitoring is not None and self._monitoring.done(),
            "host": host,
            "pass_age_s": self._clock.monotonic() - self._passed,
            "still_s": self._stillness.seconds,
            "healthy": self.healthy,
            "workers": workers,
        }

    # --- more -----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start_monitoring()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop_monitoring()

    @property
    def healthy(self) -> bool:
        """False while no look at the broker succeeds, workers die again and again, or nobody looks any more."""
        over = self._monitoring is not None and self._monitoring.done()
        return not over and self._failed_row < RED_CYCLES and not self._crew.crashes.looping

    def listen(self, heard: Callable[[str, Any], None]) -> None:
        """Have *heard* called, in the event loop, with a worker's name and each thing that its `Report` sends."""
        self._crew.heard = heard

    @property
    def renewing(self) -> bool:
        """Whether workers are to be replaced, and have not all been."""
        return self._crew.renewing

    def hurry(self) -> None:
        """Make workers that drain hand back at once what they run."""
        self._crew.hurry()

    async def wait(self) -> None:
        """Return when the monitoring is over, or raise what ended it."""
        if self._monitoring is not None:
            await asyncio.shield(self._monitoring)

    def restart(self, *names: str) -> None:
        """Replace these workers (none named: each) by new ones, one after another; each goes when its successor works.

        A successor that does not come to work leaves its predecessor where it is. Meanwhile there is one more.

        Raises:
            UnknownName: there is none of this name.
        """
        for name in names:
            if name not in self._crew.workers:
                raise UnknownName("worker", name, self._crew.names)
        self._crew.renew(names or list(self._crew.workers))

    # --- looking and doing ----------------------------------------------------------------------------------

    async def _monitor(self) -> None:
        next_cycle = -math.inf
        while True:
            now = self._passed = self._clock.monotonic()
            if now >= next_cycle:
                await self._cycle()
                next_cycle = now + (self._interval if self._wanted else min(IDLE_CYCLE_S, self._interval))
            await self._adjust()
            await asyncio.sleep(LOOK_S)

    async def _adjust(self) -> None:
        await self._crew.adjust(lambda: self._wanted)

    async def _cycle(self) -> None:
        """Look at work and machine, and decide."""
        try:
            async with asyncio.timeout(self._interval + CYCLE_S):
                depth = await self._broker.depth(self._queues)
                planned = await self._planned() if self._planned and self.min_workers == 0 else 0
        except (AsyncWorkerError, OSError) as exc:
            self._failed_row += 1
            self.failed_cycles += 1
            log.warning("no counts from the broker, for %d looks: %s", self._failed_row, exc)
            return
        self._failed_row = 0
        crew, host = self._crew, self._host()
        crew.read()
        for worker in crew.workers.values():
            worker.rss_bytes = rss(worker.pid)
        self._depth, self._seen_host = depth, host
        crew.renew([worker.name for worker in crew.workers.values() if worker.works and self._worn(worker)])
        queues = [queue for queue in depth.queues.values() if not queue.paused]
        self._stillness.look(
            self._clock.monotonic(),
            sum(queue.queued for queue in queues),
            {f"{worker.name} {worker.pid}": worker.gauges for worker in crew.workers.values() if worker.works},
        )
        worker_s, share = spent(crew.workers.values(), self._before)
        self._before = {worker.name: worker.gauges for worker in crew.workers.values()}
        size, working = crew.size, [worker for worker in crew.workers.values() if worker.works]
        seen = self._sensor.read(depth, self._clock.monotonic(), size=size, worker_s=worker_s, busy=share)
        decision = self._last = self._scaler.decide(
            seen,
            host,
            deepest=max((queue.queued for queue in queues), default=0),
            scheduled=sum(queue.scheduled for queue in queues) + planned,
            starting=size - len([worker for worker in working if worker.stays]),
            running=depth.running,
            worker_bytes=_typical([worker.rss_bytes for worker in working]),
            backend=self._backend(),
        )
        self.decisions.add("workers", size, decision.size, decision.because)
        self._wanted = decision.size

    def _worn(self, worker: WorkerProcess) -> bool:
        return worker.gauges.ended >= self._recycle_jobs or worker.rss_bytes >= self._recycle_bytes


def _typical(sizes: Sequence[int]) -> float:
    """Return what 95 of 100 workers do not exceed, 0 where none is known."""
    known = [size for size in sizes if size]
    if len(known) < 2:
        return float(sum(known))
    return quantiles(known, n=20, method="inclusive")[-1]

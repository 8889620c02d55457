"""Health: whether this process is alive (``/healthz``), and whether work is done (``/readyz``); and if not, why.

Red ``/healthz`` says: start this process anew. Red ``/readyz`` says: somebody should look, or nothing should be sent here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.engine import Engine
from asyncworker.errors import AsyncWorkerError
from asyncworker.events import JobsClaimed, WorkerIdled, WorkerStarted, WorkerStopped
from asyncworker.fleet.manager import RED_CYCLES, DynamicWorkerManager
from asyncworker.queue.job import Depth

PATIENCE_S = 2.0
HUNG_S = 30.0
"""A control loop that does not come round for so long hangs."""
STILL_S = 30.0
"""How long jobs may wait that workers with room for them do not take."""


class Check(msgspec.Struct, frozen=True):
    """``reasons`` say what is wrong; there are some exactly where it is not ok."""

    ok: bool
    reasons: tuple[str, ...] = ()


def check(reasons: list[str]) -> Check:
    return Check(not reasons, tuple(reasons))


class Health:
    """The health of a supervisor and its fleet."""

    def __init__(self, engine: Engine, manager: DynamicWorkerManager) -> None:
        self._engine, self._manager = engine, manager

    def live(self) -> Check:
        """Return whether the control loop does its work; for so long as it was not begun it is not missed."""
        return check(ails(self._manager.get_worker_stats()))

    def turns(self) -> bool:
        """Return whether the control loop comes round, whatever it finds: a new process would find no other broker."""
        return not hangs(self._manager.get_worker_stats())

    def status(self) -> str:
        """Return how things are, in a line."""
        stats = self._manager.get_worker_stats()
        waiting = sum(stats["queue_lengths"].values())
        return f"{stats['active_workers']} of {stats['wanted_workers']} workers work, {waiting} jobs wait"

    async def ready(self) -> Check:
        """Return whether the broker is there and workers take jobs. Cost: a round trip."""
        return self.readiness(await _depth(self._engine))

    def readiness(self, depth: Depth | None) -> Check:
        """Return the same of a look at the broker, None: it did not answer."""
        stats = self._manager.get_worker_stats()
        reasons = ails(stats) if stats["monitoring"] else ["the supervisor is not at work"]
        if depth is None:
            reasons.append(UNREACHABLE)
        if not stats["active_workers"] and (self._manager.min_workers or stats["wanted_workers"]):
            reasons.append(f"no worker works, of {max(stats['wanted_workers'], self._manager.min_workers)}")
        if stats["crash_loops"]:
            reasons.append(f"{', '.join(stats['crash_loops'])} die young again and again")
        if stats["still_s"] >= STILL_S:
            reasons.append(_still(stats["still_s"]))
        return check(reasons)


UNREACHABLE = "the broker does not answer"


def hangs(stats: Mapping[str, Any]) -> list[str]:
    """Return why a control loop does not come round, if so."""
    if stats["monitoring_ended"]:
        return ["the control loop has ended"]
    if stats["monitoring"] and stats["pass_age_s"] >= HUNG_S:
        return [f"the control loop did not come round for {stats['pass_age_s']:.0f} s"]
    return []


def ails(stats: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a control loop."""
    reasons = hangs(stats)
    if stats["failed_in_a_row"] >= RED_CYCLES:
        reasons.append(f"the last {stats['failed_in_a_row']} cycles of the control loop failed")
    return reasons


def _still(seconds: float) -> str:
    return f"jobs have waited for {seconds:.0f} s, and workers with room for them took none"


async def _depth(engine: Engine) -> Depth | None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await engine.broker.depth(list(engine.queues))
    except (AsyncWorkerError, OSError):  # also a TimeoutError
        return None


class WorkerHealth:
    """The health of a process that is a worker by itself. That it answers at all says that it is alive.

    Attributes: ``works``: it has joined the broker, and takes jobs.
    """

    def __init__(self, engine: Engine, clock: Clock = SYSTEM) -> None:
        self._engine, self._clock = engine, clock
        self.works = False
        self._idle = False
        self._still_since: float | None = None
        bus = engine.bus
        self._ends = (
            bus.listen(WorkerStarted, self._on_started),
            bus.listen(WorkerStopped, self._on_stopped),
            bus.listen(JobsClaimed, self._on_claimed),
            bus.listen(WorkerIdled, self._on_idled),
        )

    def close(self) -> None:
        """Listen no more."""
        for end in self._ends:
            end()

    async def live(self) -> Check:
        """Return that the event loop turns."""
        return Check(True)

    def status(self) -> str:
        """Return how things are, in a line."""
        return f"{sum(self._engine.running().values())} jobs run" if self.works else "not at work"

    async def ready(self) -> Check:
        """Return whether the broker is there, and jobs are taken. Cost: a round trip."""
        depth = await _depth(self._engine)
        reasons = [] if depth else [UNREACHABLE]
        if not self.works:
            reasons.append("the worker takes no jobs")
        if depth is not None:
            waiting = any(of.queued and not of.paused for of in depth.queues.values())
            now = self._clock.monotonic()
            if not (waiting and self._idle):
                self._still_since = None
            elif self._still_since is None:
                self._still_since = now
            if self._still_since is not None and now - self._still_since >= STILL_S:
                reasons.append(_still(now - self._still_since))
        return check(reasons)

    def _on_started(self, _: WorkerStarted) -> None:
        self.works, self._still_since = True, None

    def _on_stopped(self, _: WorkerStopped) -> None:
        self.works = False

    def _on_claimed(self, _: JobsClaimed) -> None:
        self._still_since = None

    def _on_idled(self, event: WorkerIdled) -> None:
        self._idle = event.idle

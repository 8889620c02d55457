"""Health: whether this process is alive (``/healthz``), and whether work is done (``/readyz``); and if not, why.

Red ``/healthz`` says: start this process anew. Red ``/readyz`` says: somebody should look, or nothing should be sent here.
Here is the health of a worker; a supervisor's is in `asyncworker.daemon.fleet_health`.
"""

from __future__ import annotations

import asyncio

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.engine import Engine
from asyncworker.errors import AsyncWorkerError
from asyncworker.events import JobsClaimed, WorkerIdled, WorkerStarted, WorkerStopped
from asyncworker.queue.job import Depth

PATIENCE_S = 2.0
STILL_S = 30.0
"""How long jobs may wait that workers with room for them do not take."""
UNREACHABLE = "the broker does not answer"


class Check(msgspec.Struct, frozen=True):
    """``reasons`` say what is wrong; there are some exactly where it is not ok."""

    ok: bool
    reasons: tuple[str, ...] = ()


def check(reasons: list[str]) -> Check:
    return Check(not reasons, tuple(reasons))


def still(seconds: float) -> str:
    """Return what is wrong where jobs have waited for so long."""
    return f"jobs have waited for {seconds:.0f} s, and workers with room for them took none"


async def depth_of(engine: Engine) -> Depth | None:
    """Return what waits, None where the broker does not answer soon."""
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
        depth = await depth_of(self._engine)
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
                reasons.append(still(now - self._still_since))
        return check(reasons)

    def _on_started(self, _: WorkerStarted) -> None:
        self.works, self._still_since = True, None

    def _on_stopped(self, _: WorkerStopped) -> None:
        self.works = False

    def _on_claimed(self, _: JobsClaimed) -> None:
        self._still_since = None

    def _on_idled(self, event: WorkerIdled) -> None:
        self._idle = event.idle

"""Report: what a worker process tells its supervisor, and what it does when that is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import ChannelClosed, SettingsError
from asyncworker.events import Bus, JobsClaimed, JobsEnded, WorkerIdled, WorkerStarted, WorkerStopped
from asyncworker.fleet.process import LEAVING, STARTING, WORKING
from asyncworker.share.board import Gauges
from asyncworker.share.channel import HighPerformanceIPC
from asyncworker.share.queue import MessageType

EVERY_S = 0.25
REPORTS = "reports"
BEAT_S = 1.0
"""How often a report is sent; who is killed takes along what it would have told in the next one."""
PATIENCE_S = 1.0
MARGIN = 0.6
"""Of a lease: when the supervisor was killed, jobs may go on for so long; then they are handed back."""


class Report:
    """Tell a supervisor how the worker of this process is, as long as the context is open.

    Args:
        address: ``<place>:<name>``, as the supervisor said.
        stop_now: makes the worker hand back what it runs and end.
        told: returns what is sent to the supervisor each second, and once at the end.

    Raises:
        SettingsError: nobody is there.
    """

    def __init__(
        self,
        address: str,
        bus: Bus,
        stop_now: Callable[[], None],
        lease_s: float,
        clock: Clock = SYSTEM,
        told: Callable[[], Any] | None = None,
    ) -> None:
        place, _, name = address.rpartition(":")
        self._stop_now, self._lease_s, self._clock = stop_now, lease_s, clock
        self._stage, self._running, self._ended, self._idle_s = STARTING, 0, 0, 0.0
        self._idle_since: float | None = None
        self._began: float | None = None
        self._told, self._over = told, asyncio.Event()
        self._telling: asyncio.Task[None] | None = None
        self._ipc = HighPerformanceIPC(
            name, place=place, heartbeat_interval=EVERY_S, measure=self._gauges, on_lost=self._alone, clock=clock
        )
        self._ends = (
            bus.listen(WorkerStarted, self._on_started),
            bus.listen(WorkerStopped, self._on_stopped),
            bus.listen(JobsClaimed, self._on_claimed),
            bus.listen(JobsEnded, self._on_ended),
            bus.listen(WorkerIdled, self._on_idled),
        )

    async def __aenter__(self) -> Self:
        try:
            await self._ipc.start()
        except OSError as exc:
            raise SettingsError(f"the supervisor of this worker is gone: {exc}") from exc
        if self._told is not None:
            self._telling = asyncio.get_running_loop().create_task(self._tell(self._told), name="report")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        if self._telling is not None:
            await asyncio.wait([self._telling], timeout=PATIENCE_S)
            self._telling.cancel()
            await asyncio.wait([self._telling])
        for end in self._ends:
            end()
        await self._ipc.cleanup()

    async def _tell(self, told: Callable[[], Any]) -> None:
        """Send a report each second, and the last one when this is over; until the supervisor is gone."""
        with contextlib.suppress(ChannelClosed):
            last = False
            while not last:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), BEAT_S)
                last = self._over.is_set()  # what is told from here on is all there is
                await self._ipc.send_message(REPORTS, MessageType.DATA, told())

    def _gauges(self) -> Gauges:
        now = self._clock.monotonic()
        idle = self._idle_s + (now - self._idle_since if self._idle_since is not None else 0.0)
        return Gauges(
            stage=self._stage,
            running=max(0, self._running),
            ended=self._ended,
            idle_us=int(idle * 1e6),
            up_us=int((now - self._began) * 1e6) if self._began is not None else 0,
        )

    def _alone(self, _: str) -> None:
        """Hand jobs back before the lease of a supervisor that was killed would be over."""
        asyncio.get_running_loop().call_later(self._lease_s * MARGIN, self._stop_now)

    def _on_started(self, _: WorkerStarted) -> None:
        self._stage, self._running = WORKING, 0
        self._began = self._clock.monotonic() if self._began is None else self._began
        self._ipc.send_heartbeat()

    def _on_stopped(self, _: WorkerStopped) -> None:
        self._stage = LEAVING

    def _on_claimed(self, event: JobsClaimed) -> None:
        self._running += event.count

    def _on_ended(self, event: JobsEnded) -> None:
        self._running -= len(event.ends)
        self._ended += len(event.ends)

    def _on_idled(self, event: WorkerIdled) -> None:
        now = self._clock.monotonic()
        if self._idle_since is not None:
            self._idle_s += now - self._idle_since
        self._idle_since = now if event.idle else None

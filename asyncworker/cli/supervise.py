"""Worker processes under a supervisor, for the commands that have some: signals, log lines."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager

import msgspec

from asyncworker import __version__, auto
from asyncworker.cli.command import Call
from asyncworker.cli.fleet_flags import MIB
from asyncworker.cli.line import duration
from asyncworker.cli.log import log, tell
from asyncworker.daemon.fleet_health import Health
from asyncworker.daemon.fleet_metrics import FleetMetrics
from asyncworker.daemon.health import Check
from asyncworker.daemon.metrics import MetricsServer, ask, checked
from asyncworker.daemon.notify import notifying, reloading
from asyncworker.daemon.sheet import Sheet
from asyncworker.engine import Engine
from asyncworker.errors import SettingsError
from asyncworker.events import Decided
from asyncworker.fleet.manager import DynamicWorkerManager
from asyncworker.queue.archive import Archive, Deciding
from asyncworker.secret import mask_url
from asyncworker.settings import Settings, environment

Beside = Callable[[Call, Engine, DynamicWorkerManager, FleetMetrics, Health], AbstractAsyncContextManager[list[str]]]
"""What is there as long as the workers are; it gives notes for the banner."""


async def supervise(call: Call, engine: Engine, number: int | None, beside: Beside | None = None) -> int:
    """Keep *number* workers of this engine, or (None) as many as there is work for, until told to stop.

    Raises:
        SettingsError: other processes cannot reach the broker, or the numbers contradict each other.
    """
    settings = call.settings
    if engine.url in ("memory://", "embedded://"):
        raise SettingsError(
            f"{engine.url} lives in one process alone: give workers of their own a broker that they share,"
            " such as --broker redis://localhost:6379/0"
        )
    tell(engine.bus)
    engine.bus.listen(Decided, _decided)
    manager = manager_for(settings, engine, number)
    async with AsyncExitStack() as opened:
        opened.push_async_callback(engine.close)
        notes = []
        health = Health(engine, manager)
        metrics = FleetMetrics(engine, manager, health)
        if settings.metrics_port is not None:
            server = serve(metrics, health, settings.metrics_port)
            opened.callback(server.close)
            notes.append(server.url)
        if beside is not None:
            notes += await opened.enter_async_context(beside(call, engine, manager, metrics, health))
        log.info("%s", banner(engine, manager, notes))
        stopped = opened.enter_context(signals(engine, manager))
        if engine.keep is not None:
            await opened.enter_async_context(Archive(engine.keep, Deciding(manager.decisions)))
        await opened.enter_async_context(manager)
        await opened.enter_async_context(notifying(health.status, health.turns, lambda: manager.renewing))
        waiting = [asyncio.ensure_future(manager.wait()), asyncio.ensure_future(stopped.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
    return 0


def serve(metrics: FleetMetrics, health: Health, port: int) -> MetricsServer:
    """Serve a fleet's metrics and health from threads, so that somebody answers also when this loop does not."""
    loop = asyncio.get_running_loop()

    async def live() -> Check:
        return health.live()

    checks = {"/healthz": checked(live, loop), "/readyz": checked(health.ready, loop)}
    return MetricsServer(lambda: ask(metrics.read(), loop) or Sheet(), port, checks)


def manager_for(settings: Settings, engine: Engine, number: int | None) -> DynamicWorkerManager:
    """Return the supervisor that these settings ask for; cron needs at least one worker."""
    most = auto.workers() if settings.max_workers == "auto" else settings.max_workers
    low = min(1, most) if settings.min_workers is None else settings.min_workers
    high = max(low, most) if settings.max_workers == "auto" else most
    if number is not None:
        low = high = number
    if low > high:
        raise SettingsError(f"min_workers {low} is more than max_workers {high}")

    async def planned() -> int:
        return len((await engine.admin.schedules())[0])

    own = msgspec.structs.replace(
        settings, broker=engine.url, workers=None, reload=False, burst=False, metrics_port=None, supervisor=None
    )
    return DynamicWorkerManager(
        settings.app or (),
        engine.broker,
        queues=engine.queues,
        environment=environment(own),
        min_workers=max(low, 1) if engine.schedules else low,
        max_workers=high,
        cpu_threshold=settings.cpu_threshold / 100,
        memory_threshold=settings.memory_threshold / 100,
        queue_threshold=settings.queue_threshold,
        recycle_jobs=settings.recycle_jobs,
        recycle_bytes=settings.recycle_memory * MIB if settings.recycle_memory else None,
        grace_period=engine.grace_period,
        planned=planned,
        bus=engine.bus,
    )


def banner(engine: Engine, manager: DynamicWorkerManager, notes: Sequence[str]) -> str:
    """Return the line that says what is supervised."""
    low, high = manager.min_workers, manager.max_workers
    told = [
        f"asyncworker {__version__}: {low if low == high else f'{low} to {high}'} workers on {mask_url(engine.url)}",
        f"queues {', '.join(engine.queues)}",
        f"grace period {duration(engine.grace_period)}",
        *notes,
    ]
    return "; ".join(told)


def _decided(event: Decided) -> None:
    if event.name == "workers":
        log.info("workers: %d -> %d, because %s", event.old, event.new, event.because)


@contextmanager
def signals(engine: Engine, manager: DynamicWorkerManager) -> Iterator[asyncio.Event]:
    """Yield what the first SIGTERM or SIGINT sets; the second makes workers hand back at once. SIGHUP restarts them."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop(sign: signal.Signals) -> None:
        if stopped.is_set():
            log.info("%s again: workers hand back what they run", sign.name)
            manager.hurry()
        else:
            log.info("%s: workers drain, for %s at most", sign.name, duration(engine.grace_period))
            stopped.set()

    def renew() -> None:
        log.info("SIGHUP: replacing one worker after another")
        reloading()
        manager.restart()

    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop, sign)
    loop.add_signal_handler(signal.SIGHUP, renew)
    try:
        yield stopped
    finally:
        for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(sign)

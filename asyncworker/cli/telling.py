"""What a worker process tells others of what it measures: Prometheus on a port, the supervisor by a pipe.

Loaded by `asyncworker.cli.worker` only where there is such a one: a plain worker is 4 MB smaller for it.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from asyncworker.daemon.fleet_metrics import Telling, known_as
from asyncworker.daemon.health import WorkerHealth
from asyncworker.daemon.instruments import Instruments
from asyncworker.daemon.metrics import BrokerMetrics, MetricsServer, WorkerMetrics, checked
from asyncworker.daemon.process import ALONE, ProcessMetrics
from asyncworker.engine import Engine
from asyncworker.fleet.report import Report
from asyncworker.settings import Settings


def serve(
    opened: AsyncExitStack, settings: Settings, engine: Engine, instruments: Instruments | None, health: WorkerHealth
) -> str:
    """Serve metrics and health on the port that was asked for, and return the URL."""
    assert settings.metrics_port is not None
    loop = asyncio.get_running_loop()
    own = ProcessMetrics(engine, instruments, target=_name_of(settings))
    metrics = WorkerMetrics(BrokerMetrics(engine.broker, engine.queues, engine.schedules), own.read, loop)
    checks = {"/healthz": checked(health.live, loop), "/readyz": checked(health.ready, loop)}
    server = MetricsServer(metrics, settings.metrics_port, checks)
    opened.callback(server.close)
    return server.url


async def report(opened: AsyncExitStack, settings: Settings, engine: Engine, instruments: Instruments | None) -> None:
    """Tell the supervisor of this process how its worker is and what it measures."""
    assert settings.supervisor is not None
    told = Telling(ProcessMetrics(engine, instruments, target=_name_of(settings)).read)
    link = Report(settings.supervisor, engine.bus, lambda: engine.stop(now=True), engine.lease, told=told)
    await opened.enter_async_context(link)


def _name_of(settings: Settings) -> str:
    return known_as(settings.supervisor.rpartition(":")[2]) if settings.supervisor else ALONE

"""``asyncworker daemon``: supervised workers, as many as there is work for, with a dashboard and an API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import click

from asyncworker.cli.command import Call, command
from asyncworker.cli.fleet_flags import FLAGS
from asyncworker.cli.log import log, start_logging
from asyncworker.cli.supervise import supervise
from asyncworker.cli.target import engine_for
from asyncworker.daemon import pages
from asyncworker.daemon.actions import Actions
from asyncworker.daemon.fleet_health import Health
from asyncworker.daemon.fleet_metrics import FleetMetrics
from asyncworker.daemon.views import Views
from asyncworker.daemon.web import Address, probes, serving
from asyncworker.engine import Engine
from asyncworker.errors import SettingsError
from asyncworker.fleet.manager import DynamicWorkerManager

HTTP = ("http", "http_tokens", "http_hosts", "http_tls_cert", "http_tls_key", "insecure", "show_arguments")


async def body(call: Call) -> int:
    """Keep as many worker processes as there is work for, until SIGTERM or Ctrl-C.

    TARGET is your engine as module:name. Workers are added while work waits longer than it should and processors and
    memory allow it, and drain when they are too many. One that dies is replaced at once.

    The dashboard, the API (/api/v1/openapi.json), /metrics, /healthz and /readyz are served under --http. Others than
    this machine are let in with tokens ('asyncworker token add') and a certificate alone.

    The first signal lets all workers drain, the second makes them hand back what they run; SIGHUP replaces one worker
    after another, for a new version of your code.
    """
    start_logging(call.settings.log_level, call.settings.log_format, call.err)
    return await supervise(call, engine_for(call), None, served)


@asynccontextmanager
async def served(
    call: Call, engine: Engine, manager: DynamicWorkerManager, metrics: FleetMetrics, health: Health
) -> AsyncIterator[list[str]]:
    """Serve dashboard, API and metrics; yields the URL.

    Where nobody said which port, and the usual one is taken, the workers are more important.
    """
    settings = call.settings
    if settings.http == "off":
        yield []
        return
    host, _, port = settings.http.rpartition(":")
    address = Address(
        host,
        int(port),
        settings.http_hosts,
        settings.http_tokens,
        settings.http_tls_cert,
        settings.http_tls_key,
        settings.insecure,
    )
    tokens = address.check()
    if tokens is None and not address.local:
        log.warning("whoever can reach %s may do everything: there are no tokens", settings.http)
    views = Views(engine, manager, settings=settings, origins=call.origins, show_arguments=settings.show_arguments)
    actions = Actions(engine, manager)
    dashboard = pages.Pages(views, actions)
    others = [*probes(metrics, health), *dashboard.routes()]
    async with AsyncExitStack() as opened:
        try:
            urls = [
                await opened.enter_async_context(
                    serving(address, tokens, views, actions, others, dress=[dashboard.dress()])
                )
            ]
        except SettingsError as exc:
            if call.origins["http"] != "default":
                raise
            log.warning("no dashboard and no API: %s", exc)
            urls = []
        yield urls


COMMAND = command(
    "daemon",
    body,
    click.Argument(["app"], required=False, metavar="[TARGET]"),
    flags=(*FLAGS, *HTTP),
    examples="""
  asyncworker daemon shop:engine
  asyncworker daemon shop:engine --min-workers 2 --max-workers 8 --http 127.0.0.1:9000
  asyncworker daemon shop:engine --min-workers 0            no process while there is nothing to do""",
)

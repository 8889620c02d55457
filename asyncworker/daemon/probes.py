"""``/metrics``, ``/healthz`` and ``/readyz`` of a fleet, for the daemon's HTTP server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiohttp import hdrs, web

from asyncworker.daemon.fleet_health import Health
from asyncworker.daemon.fleet_metrics import FleetMetrics
from asyncworker.daemon.health import Check


def metrics_page(metrics: FleetMetrics) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return the handler of ``/metrics``."""

    async def page(request: web.Request) -> web.StreamResponse:
        body, kind = await metrics.render(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: kind})

    return page


def health_pages(health: Health) -> Sequence[web.RouteDef]:
    """Return the routes of the probes: 200 or 503, with the reasons in JSON."""

    async def live(_: web.Request) -> web.StreamResponse:
        return _told(health.live())

    async def ready(_: web.Request) -> web.StreamResponse:
        return _told(await health.ready())

    return [web.get("/healthz", live), web.get("/readyz", ready)]


def _told(check: Check) -> web.Response:
    return web.Response(
        status=200 if check.ok else 503, body=msgspec.json.encode(check), content_type="application/json"
    )

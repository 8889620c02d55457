"""A daemon's HTTP server over an engine of a test's own, and who asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from asyncworker import Engine
from asyncworker.daemon import pages
from asyncworker.daemon.actions import Actions
from asyncworker.daemon.fleet_health import Health
from asyncworker.daemon.fleet_metrics import FleetMetrics
from asyncworker.daemon.tokens import add_token
from asyncworker.daemon.views import Views
from asyncworker.daemon.web import Address, Doors, probes, serving
from asyncworker.fleet.manager import DynamicWorkerManager

V1 = "/api/v1"


class Answer(msgspec.Struct):
    status: int
    headers: Any
    raw: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.raw)


class Client:
    """Asks one server, as no browser does: each request says all that it has."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self.session = url, session
        self.port = int(url.rpartition(":")[2])

    async def ask(self, method: str, path: str, body: Any = None, token: str = "", **headers: str) -> Answer:
        """Ask; *body* is sent as JSON. Headers are given with underscores."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            told["Authorization"] = f"Bearer {token}"
        more = {} if body is None else {"json": body}
        async with self.session.request(method, self.url + path, headers=told, **more) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, **more: Any) -> Any:
        """Return what is at a path of the API."""
        answer = await self.ask("GET", V1 + path, **more)
        assert answer.status == 200, answer.raw
        return answer.json

    async def post(self, path: str, body: Any = None, *, status: int = 200, method: str = "POST", **more: Any) -> Any:
        answer = await self.ask(method, V1 + path, {} if body is None else body, **more)
        assert answer.status == status, answer.raw
        return answer.json if answer.raw else None


@asynccontextmanager
async def served(
    engine: Engine,
    *,
    tokens: Path | None = None,
    doors: Doors | None = None,
    show_arguments: bool = False,
    dashboard: bool = False,
    **address: Any,
) -> AsyncIterator[Client]:
    """Serve an open engine; with *dashboard* the pages, metrics and probes of an idle manager, too."""
    where = Address(port=0, tokens=str(tokens) if tokens else None, **address)
    manager, metrics = None, None
    if dashboard:
        manager = DynamicWorkerManager(["false"], engine.broker, queues=engine.queues, min_workers=0, max_workers=1)
        health = Health(engine, manager)
        metrics = FleetMetrics(engine, manager, health)
    views, actions = Views(engine, manager, show_arguments=show_arguments), Actions(engine, manager)
    shown = pages.Pages(views, actions)
    others = [*probes(metrics, health), *shown.routes()] if metrics else []
    dress = [shown.dress()] if metrics else []
    try:
        async with (
            serving(where, where.check(), views, actions, others, doors, dress) as url,
            aiohttp.ClientSession() as session,
        ):
            yield Client(url, session)
    finally:
        if metrics is not None:
            metrics.close()


def tokens_of(folder: Path) -> tuple[Path, dict[str, str]]:
    """Return a new file of tokens, and a token of each scope."""
    path = folder / "tokens"
    return path, {scope: add_token(str(path), f"{scope}er", scope) for scope in ("read", "submit", "admin")}

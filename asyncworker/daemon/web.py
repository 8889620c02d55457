"""The daemon's HTTP server: API, pages, metrics and health on one port, in the supervisor's loop.

It listens on this machine alone unless told otherwise, and then only with tokens and TLS. Connections are bounded in
number, and each of them in how long it may be without a request that we work at: who sends its headers byte by byte is
let go as one who sends nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from asyncworker.daemon.actions import Actions
from asyncworker.daemon.api import Api
from asyncworker.daemon.fleet_health import Health
from asyncworker.daemon.fleet_metrics import FleetMetrics
from asyncworker.daemon.guard import BODY_BYTES, HEADERS, TITLES, Guard, Problem, add_headers
from asyncworker.daemon.openapi import ROOT
from asyncworker.daemon.probes import health_pages, metrics_page
from asyncworker.daemon.tokens import Scope, Tokens
from asyncworker.daemon.views import Views
from asyncworker.errors import SettingsError

log = logging.getLogger(__name__)

IDLE_S = 15.0
"""How long a connection may be without a request: between two of them, and while it sends the head of one."""
MOST_CONNECTIONS = 512
MOST_OF_A_PEER = 256
SHUTDOWN_S = 3.0
LINE_BYTES = 16_384
MOST_HEADERS = 64
HANDSHAKE_S = 10.0
LOCAL = ("127.0.0.1", "localhost", "[::1]")


class Address(msgspec.Struct, frozen=True):
    """Where to listen, and how.

    Attributes:
        hosts: names by which we may be asked, beside our own. tokens: a file of hashed tokens.
        insecure: without tokens or TLS also where others can reach us.
    """

    host: str = "127.0.0.1"
    port: int = 8787
    hosts: tuple[str, ...] = ()
    tokens: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    insecure: bool = False

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    def check(self) -> Tokens | None:
        """Return the tokens.

        Raises:
            SettingsError: others can reach it, and there are no tokens or no TLS; or a file cannot be used.
        """
        tokens = Tokens(self.tokens) if self.tokens else None
        if bool(self.tls_cert) != bool(self.tls_key):
            raise SettingsError("http_tls_cert and http_tls_key go together: one of them is missing")
        if self.local or self.insecure:
            return tokens
        where = f"{self.host}:{self.port} can be reached by others"
        if not tokens:
            raise SettingsError(f"{where}: make a token (asyncworker token add) and set http_tokens, or --insecure")
        if not self.tls_cert:
            raise SettingsError(f"{where}: set http_tls_cert and http_tls_key, or --insecure behind a proxy with TLS")
        return tokens

    @property
    def names(self) -> set[str]:
        """The names by which we may be asked, in lower case."""
        own = {self.host, *self.hosts, *LOCAL, socket.gethostname()}
        return {f"[{name}]" if ":" in name and not name.startswith("[") else name.lower() for name in own}


class Connection(web.RequestHandler):
    """One client. ``since`` is when it last had no request any more, None while it has one."""

    __slots__ = ("_doors", "peer", "since")

    def __init__(self, doors: Doors, server: web.Server, **options: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._doors, self.peer = doors, ""
        self.since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.peer = str((transport.get_extra_info("peername") or ("",))[0])
        self.since = asyncio.get_running_loop().time()
        self._doors.enter(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._doors.leave(self)
        super().connection_lost(exc)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what is no request of HTTP, in few words."""
        log.debug("no request from %s: %s", self.peer, exc)
        problem = Problem(status, TITLES.get(status, TITLES[500]), "this is no request that can be read")
        response = web.Response(
            body=msgspec.json.encode(problem), status=status, headers=HEADERS, content_type="application/problem+json"
        )
        response.force_close()
        return response

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Doors:
    """Who is connected: not too many, and not for nothing."""

    def __init__(
        self, most: int = MOST_CONNECTIONS, most_of_a_peer: int = MOST_OF_A_PEER, idle_s: float = IDLE_S
    ) -> None:
        self._most, self._most_of_a_peer, self._idle_s = most, most_of_a_peer, idle_s
        self._inside: set[Connection] = set()
        self._peers: Counter[str] = Counter()

    def enter(self, connection: Connection) -> None:
        """Let one in, or let it go at once."""
        if len(self._inside) >= self._most or self._peers[connection.peer] >= self._most_of_a_peer:
            connection.abort()
            return
        self._inside.add(connection)
        self._peers[connection.peer] += 1

    def leave(self, connection: Connection) -> None:
        if connection in self._inside:
            self._inside.remove(connection)
            self._peers[connection.peer] -= 1
            self._peers += Counter()  # forget those that have none

    async def run(self) -> None:
        """Let go who has no request for too long, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(1.0, self._idle_s / 4))
            old = loop.time() - self._idle_s
            for connection in [one for one in self._inside if one.since is not None and one.since < old]:
                connection.abort()

    def middleware(self) -> Middleware:
        """Return what notes that a connection has a request."""

        @web.middleware
        async def busy(request: web.Request, handler: Handler) -> web.StreamResponse:
            connection = request.protocol
            assert isinstance(connection, Connection)
            connection.since = None
            try:
                return await handler(request)
            finally:
                connection.since = asyncio.get_running_loop().time()

        return busy


def application(
    views: Views,
    actions: Actions,
    tokens: Tokens | None,
    hosts: set[str],
    doors: Doors,
    *,
    others: Sequence[web.AbstractRouteDef] = (),
    dress: Sequence[Middleware] = (),
) -> tuple[web.Application, Api]:
    """Return the application, and its API: both are to be closed."""
    api = Api(views, actions)
    scopes = {(route.method, ROOT + route.path): route.scope for route in api.routes}
    scopes |= {("GET", "/healthz"): Scope.OPEN, ("GET", "/audit"): Scope.ADMIN}
    patience = {(route.method, ROOT + route.path): route.patience for route in api.routes if route.patience is not None}
    guard = Guard(tokens, hosts, scopes, patience)
    app = web.Application(middlewares=[doors.middleware(), *dress, guard.middleware()], client_max_size=BODY_BYTES)
    app.on_response_prepare.append(add_headers)
    app.add_routes([*api.handlers(), *others])
    return app, api


def probes(metrics: FleetMetrics, health: Health) -> list[web.RouteDef]:
    """Return the routes for who watches from outside: metrics, and whether all is well."""
    return [web.get("/metrics", metrics_page(metrics)), *health_pages(health)]


@asynccontextmanager
async def serving(
    address: Address,
    tokens: Tokens | None,
    views: Views,
    actions: Actions,
    others: Sequence[web.AbstractRouteDef] = (),
    doors: Doors | None = None,
    dress: Sequence[Middleware] = (),
) -> AsyncIterator[str]:
    """Serve as long as the context is open; yields the URL.

    Args:
        others: routes beside the API's: pages, and what `probes` returns.
        dress: what makes pages of refusals.

    Raises:
        SettingsError: the address cannot be had, or the certificate not be used.
    """
    doors = doors or Doors()
    app, api = application(views, actions, tokens, address.names, doors, others=others, dress=dress)
    options: dict[str, Any] = {
        "access_log": None,
        "auto_decompress": False,
        "keepalive_timeout": IDLE_S,
        "lingering_time": 1.0,
        "max_line_size": LINE_BYTES,
        "max_field_size": LINE_BYTES,
        "max_headers": MOST_HEADERS,
    }
    runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_S, **options)
    await runner.setup()
    server = runner.server
    assert server is not None
    watching = [
        asyncio.create_task(views.history.run(), name="history"),
        asyncio.create_task(doors.run(), name="doors"),
    ]
    listening = None
    try:
        listening = await _listen(address, lambda: Connection(doors, server, **options))
        port = listening.sockets[0].getsockname()[1]
        yield f"http{'s' if address.tls_cert else ''}://{address.host}:{port}"
    finally:
        if listening is not None:
            listening.close()
        await api.close()
        await actions.close()
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        await runner.cleanup()


async def _listen(address: Address, factory: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    context = None
    if address.tls_cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(address.tls_cert, address.tls_key)
        except (OSError, ssl.SSLError) as exc:
            raise SettingsError(f"the certificate in {address.tls_cert!r} cannot be used: {exc}") from exc
    handshake_s = HANDSHAKE_S if context else None
    host = address.host.strip("[]")
    try:
        return await asyncio.get_running_loop().create_server(
            factory, host, address.port, ssl=context, ssl_handshake_timeout=handshake_s
        )
    except OSError as exc:
        raise SettingsError(
            f"cannot listen on {address.host}:{address.port}: {exc.strerror or exc}; choose another (http), or off"
        ) from exc

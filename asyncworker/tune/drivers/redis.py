"""``redis://``, ``rediss://`` and ``unix://``: a pool of redis-py's. Who borrows gets a client with one connection.

The library's own limit is no gate: a grow does not wake who waits, and after a shrink as many go out as were ever
open. It is set to the ceiling and left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

from redis import asyncio as redis
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError
from redis.exceptions import ConnectionError as Away
from redis.exceptions import TimeoutError as Late

from asyncworker.errors import PoolClosed, PoolDown, PoolError
from asyncworker.secret import mask_text, mask_url

CONNECT_S = 10.0
CLOSE_S = 5.0
REFUSED = (AuthenticationError, AuthorizationError)
AWAY = (Away, Late, OSError)


class RedisDriver:
    """Adapt the pool that *make* returns: one with ``max_connections=ceiling``.

    What is taken is a `redis.asyncio.Redis` bound to one connection, new each time (some 0.2 ms): a client that is
    used after it was given back cannot reach into a connection that somebody else has by now.
    """

    def __init__(
        self, make: Callable[[], redis.ConnectionPool], ceiling: int, label: str = "redis", floor: int = 1
    ) -> None:
        self.label, self.ceiling, self._floor = label, ceiling, max(1, floor)
        self._make = make
        self._pool: redis.ConnectionPool | None = None
        self._seen: WeakSet[Any] = WeakSet()
        self._out: WeakSet[redis.Redis] = WeakSet()

    async def start(self) -> None:
        try:
            self._pool = self._make()
        except ValueError as exc:  # it may quote the URL, and a password with it
            raise PoolError(f"{self.label} cannot be understood ({type(exc).__name__})") from None
        try:
            for client in [await self.take(CONNECT_S) for _ in range(self._floor)]:
                await self.give(client)
        except TimeoutError as exc:
            raise PoolDown(f"{self.label} cannot be reached within {CONNECT_S:g} s") from exc

    async def take(self, timeout: float) -> redis.Redis:
        if self._pool is None:
            raise PoolClosed(f"the pool of {self.label} is not open")
        with self._told():
            async with asyncio.timeout(timeout):
                connection = await self._pool.get_connection()
        self._seen.add(connection)
        client = redis.Redis(connection_pool=self._pool, single_connection_client=True)
        client.connection = connection
        self._out.add(client)
        return client

    async def give(self, connection: redis.Redis) -> None:
        inner, connection.connection = connection.connection, None
        if inner is not None and self._pool is not None:
            with suppress(RedisError, OSError):
                await self._pool.release(inner)

    async def drop(self, connection: redis.Redis) -> None:
        if connection.connection is not None:
            self._seen.discard(connection.connection)
            with suppress(RedisError, OSError):
                await connection.connection.disconnect()
        await self.give(connection)

    async def check(self, connection: redis.Redis, timeout: float) -> bool:
        inner = connection.connection
        if inner is None:
            return False
        try:
            async with asyncio.timeout(timeout):
                await inner.send_command("PING", check_health=False)
                return await inner.read_response() in (b"PONG", "PONG")
        except (RedisError, OSError):
            return False

    def key(self, connection: redis.Redis) -> Hashable:
        return connection.connection

    def opened(self) -> int:
        return sum(connection.is_connected for connection in self._seen)

    async def close(self, timeout: float) -> None:
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        for client in self._out:
            client.connection = None
        with suppress(RedisError, OSError):
            async with asyncio.timeout(max(timeout, CLOSE_S)):
                await pool.aclose()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what the server or the way to it raises into errors of ours."""
        try:
            yield
        except TimeoutError:
            raise
        except (RedisError, OSError) as exc:
            # A wrong password comes wrapped into what says that the server is away.
            if isinstance(exc, REFUSED) or isinstance(exc.__cause__, REFUSED):
                raise PoolError(f"{self.label} refuses: {_first(exc)}") from exc
            if isinstance(exc, AWAY):
                raise PoolDown(f"{self.label} cannot be reached: {_first(exc)}") from exc
            raise PoolError(f"{self.label}: {_first(exc)}") from exc


def open(url: str, ceiling: int, floor: int = 0, **options: Any) -> RedisDriver:
    """Adapt a pool for this URL; *options* go to `redis.asyncio.ConnectionPool.from_url`.

    Args:
        floor: connections that are opened at once.
    """
    settings = {"socket_connect_timeout": CONNECT_S, **options}
    return RedisDriver(
        lambda: redis.ConnectionPool.from_url(url, max_connections=ceiling, **settings), ceiling, mask_url(url), floor
    )


def _first(exc: BaseException) -> str:
    """Return the first line of an error's text, secrets masked."""
    return mask_text((str(exc) or type(exc).__name__).partition("\n")[0])

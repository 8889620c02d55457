"""Pools that are not there: asyncpg's and redis-py's public surface without a server, and a guard for private names.

The asyncpg double has its mechanics (places that connect when first used, connected ones and the latest first). For
redis-py its own pool is used, over a connection that answers itself.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable, Generator
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection


class PrivateRead(AssertionError):
    """Somebody reads what is none of his business."""


READS: list[str] = []
"""Private names of a guarded thing that asyncworker read."""


def guard(thing: Any, **instead: Any) -> Any:
    """Return *thing* in a coat: asyncworker's reading or setting one of its ``_`` names raises.

    The library may read its own. *instead* replaces attributes.
    """

    class Guarded:
        @property  # type: ignore[misc]
        def __class__(self) -> Any:
            return type(thing)

        def __getattribute__(self, name: str) -> Any:
            if name.startswith("__") and name.endswith("__"):
                return object.__getattribute__(self, name)
            _look(name)
            return instead[name] if name in instead else getattr(thing, name)

        def __setattr__(self, name: str, value: Any) -> None:
            _look(name)
            setattr(thing, name, value)

        def __await__(self) -> Generator[Any, Any, Any]:
            return thing.__await__()

    return Guarded()


def _look(name: str) -> None:
    reader = sys._getframe(2).f_globals.get("__name__", "")
    if name.startswith("_") and reader.partition(".")[0] == "asyncworker":
        READS.append(f"{reader} {name}")
        raise PrivateRead(f"{reader} reads {name}")


def guarded_asyncpg(pool: Any) -> Any:
    """Guard an asyncpg pool and the connections that it gives."""
    inside: dict[int, Any] = {}

    async def acquire(*, timeout: float | None = None) -> Any:
        connection = await pool.acquire(timeout=timeout)
        coat = guard(connection)
        inside[id(coat)] = (coat, connection)  # the coat too, so that its id stays its own
        return coat

    async def release(coat: Any, *, timeout: float | None = None) -> None:
        await pool.release(inside.pop(id(coat))[1], timeout=timeout)

    return guard(pool, acquire=acquire, release=release)


class PostgresConnection:
    """One connection to no server."""

    def __init__(self, pid: int, query_s: float) -> None:
        self._pid, self._query_s, self._closed = pid, query_s, False
        self.deaf = False

    def get_server_pid(self) -> int:
        return self._pid

    def is_closed(self) -> bool:
        return self._closed

    async def fetchval(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        if self._closed:
            raise ConnectionResetError("the server closed the connection")
        async with asyncio.timeout(timeout):
            await asyncio.sleep(1e9 if self.deaf else self._query_s)
        return 1

    async def close(self, *, timeout: float | None = None) -> None:
        self._closed = True

    def terminate(self) -> None:
        self._closed = True


class PostgresPool:
    """asyncpg's pool, for `PostgresqlDriver`.

    Attributes: ``down`` makes connecting fail; ``opened`` counts connections ever opened; ``most`` open at once.
    """

    def __init__(self, ceiling: int, *, connect_s: float = 0.0, query_s: float = 0.0) -> None:
        self._free: list[PostgresConnection | None] = [None] * ceiling
        self._line = asyncio.Semaphore(ceiling)
        self._ceiling, self._connect_s, self._query_s = ceiling, connect_s, query_s
        self._out: set[PostgresConnection] = set()
        self._connecting = 0
        self._pids = itertools.count(1)
        self._closing = False
        self.down = False
        self.opened = self.most = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        return asyncio.sleep(0, self).__await__()

    async def acquire(self, *, timeout: float | None = None) -> PostgresConnection:
        async with asyncio.timeout(timeout):
            await self._line.acquire()
            place = next((i for i in reversed(range(len(self._free))) if self._alive(self._free[i])), -1)
            connection = self._free.pop(place)
            try:
                if not self._alive(connection):
                    connection = await self._connect()
            except BaseException:
                self._free.append(None)
                self._line.release()
                raise
        assert connection is not None
        self._out.add(connection)
        return connection

    async def release(self, connection: PostgresConnection, *, timeout: float | None = None) -> None:
        if connection in self._out:
            self._out.remove(connection)
            self._free.append(connection if self._alive(connection) else None)
            self._line.release()

    async def _connect(self) -> PostgresConnection:
        self._connecting += 1
        self.most = max(self.most, self.get_size() + self._connecting)
        try:
            await asyncio.sleep(self._connect_s)
            if self.down:
                raise ConnectionRefusedError("nobody listens")
        finally:
            self._connecting -= 1
        self.opened += 1
        return PostgresConnection(next(self._pids), self._query_s)

    @staticmethod
    def _alive(connection: PostgresConnection | None) -> bool:
        return connection is not None and not connection.is_closed()

    def get_size(self) -> int:
        return self.get_idle_size() + sum(map(self._alive, self._out))

    def get_idle_size(self) -> int:
        return sum(map(self._alive, self._free))

    def get_max_size(self) -> int:
        return self._ceiling

    def is_closing(self) -> bool:
        return self._closing

    async def close(self) -> None:
        self._closing = True

    def terminate(self) -> None:
        self._closing = True

    def deafen(self, count: int) -> None:
        """Let some idle connections stay open and never answer again."""
        for connection in [one for one in self._free if one is not None][:count]:
            connection.deaf = True

    def break_idle(self) -> None:
        """Let the server close every idle connection."""
        for connection in self._free:
            if connection is not None:
                connection.terminate()


class RedisConnection(AbstractConnection):
    """A connection of redis-py's that answers each command itself."""

    async def _connect(self) -> None:
        await asyncio.sleep(0)

    def _host_error(self) -> str:
        return "nowhere"

    def repr_pieces(self) -> list[tuple[str, Any]]:
        return []

    async def connect(self) -> None:
        self._there = True

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        self._there = False

    @property
    def is_connected(self) -> bool:
        return getattr(self, "_there", False)

    async def can_read(self, timeout: float = 0) -> bool:
        return False

    async def send_command(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.sleep(0)

    async def read_response(self, *args: Any, **kwargs: Any) -> bytes:
        return b"PONG"


def redis_pool(ceiling: int) -> Callable[[], ConnectionPool]:
    return lambda: guard(ConnectionPool(connection_class=RedisConnection, max_connections=ceiling))

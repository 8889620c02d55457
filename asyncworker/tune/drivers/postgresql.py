"""``postgresql://``: a pool of asyncpg's.

Its size is fixed when it is made. Places connect when first used, connected ones are used first (the last one that was
given back before all others), and what is idle for 30 s closes: so what is open follows what is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import asyncpg

from asyncworker.errors import PoolClosed, PoolDown, PoolError
from asyncworker.secret import mask_text, mask_url

IDLE_S = 30.0
CONNECT_S = 10.0
CLOSE_S = 5.0
"""Seconds for the server's goodbye, and for the query that cleans a connection which is given back."""

Pool: TypeAlias = "asyncpg.Pool[Any]"

REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
AWAY = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class PostgresqlDriver:
    """Adapt the pool that *make* returns.

    Args:
        make: called once, in the event loop: ``lambda: asyncpg.create_pool(…)``, with ``max_size=ceiling``.
    """

    def __init__(self, make: Callable[[], Pool], ceiling: int, label: str = "postgresql") -> None:
        self.label, self.ceiling = label, ceiling
        self._make = make
        self._pool: Pool | None = None

    async def start(self) -> None:
        with self._told():
            pool = self._make()
            await pool
        self._pool = pool

    async def take(self, timeout: float) -> Any:
        with self._told():
            return await self._open.acquire(timeout=max(timeout, 0.001))

    async def give(self, connection: Any) -> None:
        # On each of these asyncpg has closed the connection, and counts it as given back.
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
            if self._pool is not None:
                await self._pool.release(connection, timeout=CLOSE_S)

    async def drop(self, connection: Any) -> None:
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
            if not connection.is_closed():
                await connection.close(timeout=CLOSE_S)
        await self.give(connection)

    async def check(self, connection: Any, timeout: float) -> bool:
        try:
            return not connection.is_closed() and await connection.fetchval("SELECT 1", timeout=timeout) == 1
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
            return False

    def key(self, connection: Any) -> Hashable:
        pid: int = connection.get_server_pid()
        return pid

    def opened(self) -> int:
        return self._pool.get_size() if self._pool is not None and not self._pool.is_closing() else 0

    async def close(self, timeout: float) -> None:
        if self._pool is None or self._pool.is_closing():
            return
        try:
            async with asyncio.timeout(timeout):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @property
    def _open(self) -> Pool:
        if self._pool is None or self._pool.is_closing():
            raise PoolClosed(f"the pool of {self.label} is not open")
        return self._pool

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what the server or the way to it raises into errors of ours."""
        try:
            yield
        except TimeoutError:
            raise
        except ValueError as exc:  # the driver could not read the URL, and may quote a password out of it
            raise PoolError(f"{self.label} cannot be understood ({type(exc).__name__})") from None
        except REFUSED as exc:
            raise PoolError(f"{self.label} refuses: {_first(exc)}") from exc
        except AWAY as exc:
            raise PoolDown(f"{self.label} cannot be reached: {_first(exc)}") from exc
        except asyncpg.PostgresError as exc:
            raise PoolError(f"{self.label}: {_first(exc)}") from exc


def open(url: str, ceiling: int, floor: int = 0, **options: Any) -> PostgresqlDriver:
    """Adapt a pool for this URL; *options* go to `asyncpg.create_pool`.

    Args:
        floor: connections that are opened at once, and stay.
    """
    settings = {"max_inactive_connection_lifetime": IDLE_S, "timeout": CONNECT_S, **options}
    return PostgresqlDriver(
        lambda: asyncpg.create_pool(url, min_size=floor, max_size=ceiling, **settings), ceiling, mask_url(url)
    )


def _first(exc: BaseException) -> str:
    """Return the first line of an error's text, secrets masked."""
    return mask_text((str(exc) or type(exc).__name__).partition("\n")[0])

"""``postgresql://``: a store in the table ``asyncworker_results``, which is made where it is missing.

Its columns are ``name``, ``data`` and ``until``, by the clock of the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from asyncworker.errors import StoreError
from asyncworker.queue.stores.store import check_name, checked, name_of
from asyncworker.secret import mask_text, mask_url

CONNECT_S = 10.0
STATEMENT_S = 60.0
CONNECTIONS = 2
TABLE = """
CREATE TABLE IF NOT EXISTS asyncworker_results (
    name text PRIMARY KEY, data bytea NOT NULL, until timestamptz NOT NULL);
CREATE INDEX IF NOT EXISTS asyncworker_results_until ON asyncworker_results (until);
"""
_PUT = """
INSERT INTO asyncworker_results (name, data, until) VALUES ($1, $2, now() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE SET until = greatest(asyncworker_results.until, excluded.until)
"""
_GET = "SELECT data FROM asyncworker_results WHERE name = $1 AND until > now()"
_SWEEP = "WITH gone AS (DELETE FROM asyncworker_results WHERE until <= now() RETURNING 1) SELECT count(*) FROM gone"
_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError)


class PostgresqlStore:
    """Keep results in a table."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: Any = None
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<PostgresqlStore {mask_url(self._url)}>"

    async def put(self, data: bytes, seconds: float) -> str:
        name = name_of(data)
        async with self._connection() as connection:
            await connection.execute(_PUT, name, data, seconds)
        return name

    async def get(self, name: str) -> bytes | None:
        check_name(name)
        async with self._connection() as connection:
            data: bytes | None = await connection.fetchval(_GET, name)
        return None if data is None else checked(name, data)

    async def sweep(self) -> int:
        async with self._connection() as connection:
            gone: int = await connection.fetchval(_SWEEP)
        return gone

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            async with self._opening:
                if self._pool is None:
                    self._pool = await self._open()
            async with self._pool.acquire(timeout=STATEMENT_S) as connection:
                yield connection
        except _ERRORS as exc:  # the driver's own ValueError may quote a password out of a URL that it cannot read
            told = type(exc).__name__ if isinstance(exc, ValueError) else mask_text(str(exc)) or type(exc).__name__
            raise StoreError(f"the store {mask_url(self._url)} cannot be used: {told}") from exc

    async def _open(self) -> Any:
        pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=CONNECTIONS,
            timeout=CONNECT_S,
            command_timeout=STATEMENT_S,
            statement_cache_size=0,
        )
        try:
            # Two that make the table at once: one of them is told that it is there.
            with suppress(asyncpg.UniqueViolationError, asyncpg.DuplicateTableError):
                await pool.execute(TABLE)
        except BaseException:
            pool.terminate()
            raise
        return pool


def open(url: str) -> PostgresqlStore:
    return PostgresqlStore(url)

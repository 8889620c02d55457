"""The table of cached results: what jobs came to that may be asked for again, longer than a broker keeps it.

``asyncworker_cache`` in a PostgreSQL database, made where it is not there. Rows go when their time is over and when there
are too many, both whenever one is written; by the database's clock.
"""

from __future__ import annotations

from asyncworker.errors import DecodeError, SourceError
from asyncworker.mapreduce.database import Database, address
from asyncworker.mapreduce.job import Summary
from asyncworker.queue.codec import pack, unpack

CACHE = "asyncworker_cache"
MOST_ROWS = 10_000
COLUMNS = {
    "key": "text PRIMARY KEY",
    "job_id": "text NOT NULL",
    "processing_function": "text NOT NULL",
    "result": "bytea NOT NULL",
    "until": "timestamptz NOT NULL",
}
_SAVE = """
    INSERT INTO {table} (key, job_id, processing_function, result, until)
    VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))
    ON CONFLICT (key) DO UPDATE SET job_id = EXCLUDED.job_id, processing_function = EXCLUDED.processing_function,
        result = EXCLUDED.result, until = EXCLUDED.until
"""
_TIDY = """
    DELETE FROM {table} WHERE until <= now()
        OR key IN (SELECT key FROM {table} ORDER BY until DESC, key OFFSET $1::int8)
"""
_FIND = "SELECT job_id, result FROM {table} WHERE key = $1 AND until > now()"


class CacheTable:
    """``asyncworker_cache`` in the database of a DSN."""

    def __init__(self, dsn: str) -> None:
        self._database = Database(address(dsn))
        self.label = self._database.label

    async def save(self, key: str, summary: Summary, ttl_s: float) -> None:
        """Keep what a job came to for *ttl_s*, in place of an earlier result of the same key.

        Raises:
            SourceError: the database cannot be reached or written to.
        """
        table = await self._database.ensure(CACHE, [f"{name} {kind}" for name, kind in COLUMNS.items()])
        about = key, summary["job_id"], summary["processing_function"], pack(summary, None), ttl_s
        async with self._database.transaction(write=True) as connection:
            await connection.execute(_SAVE.format(table=table), *about)
            await connection.execute(_TIDY.format(table=table), MOST_ROWS)

    async def find(self, key: str) -> tuple[str, Summary] | None:
        """Return what is kept under *key*, and of which job it is; None where nothing is.

        Raises:
            SourceError: the database cannot be reached.
        """
        async with self._database.transaction() as connection:
            table = await self._database.find(connection, CACHE)
            row = None if table is None else await connection.fetchrow(_FIND.format(table=table), key)
        try:
            return None if row is None else (row[0], unpack(row[1]))
        except DecodeError as exc:
            raise SourceError(f"{self.label}: what lies in {CACHE} is no result") from exc

    async def close(self) -> None:
        await self._database.close()

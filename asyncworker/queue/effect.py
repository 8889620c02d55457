"""Effects that come about once: what a job writes into PostgreSQL, in one transaction with a row that says that it did.

A job runs at least once: after a crash, beside a copy of itself, or as a zombie whose lease has ended. Whatever else it
does may happen again. What it writes within `effect` does not: the row and the writes are there together or not at all,
a second runner waits for the first and finds the row, and once a later attempt has begun its effects, an earlier one is
refused (its token is older). The table is ``asyncworker_effects``, in the schema that the connection uses:

    job text, key text, token integer, made_at timestamptz, PRIMARY KEY (job, key)

It is made where it is missing (`TABLE`). Rows are never read again once the job is over and may be deleted then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asyncworker.errors import BadParameters, LeaseLost, SettingsError

TABLE = """
CREATE TABLE IF NOT EXISTS asyncworker_effects (
    job text NOT NULL, key text NOT NULL, token integer NOT NULL, made_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job, key))
"""
_IS_THERE = "SELECT to_regclass('asyncworker_effects') IS NOT NULL"
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('asyncworker_effects', 0))"
_BEGIN = """
WITH fence AS (
    INSERT INTO asyncworker_effects AS known (job, key, token) VALUES ($1, '', $3)
    ON CONFLICT (job, key) DO UPDATE SET token = EXCLUDED.token WHERE known.token <= EXCLUDED.token RETURNING 1
), made AS (
    INSERT INTO asyncworker_effects (job, key, token) SELECT $1, $2, $3 FROM fence ON CONFLICT DO NOTHING RETURNING 1
) SELECT EXISTS (SELECT FROM fence) AS ours, EXISTS (SELECT FROM made) AS first
"""


@asynccontextmanager
async def effect(connection: Any, job_id: str, token: int, key: str = "effect") -> AsyncIterator[bool]:
    """Hold a transaction on a connection of asyncpg (a savepoint, where one is open); see `Context.effect`.

    Args:
        token: of two attempts of one job the later one's is greater; copies that run side by side may have the same.

    Cost: two round trips, besides those of the transaction.
    """
    if not hasattr(connection, "fetchrow") or not hasattr(connection, "transaction"):
        raise SettingsError(f"an effect needs a connection of asyncpg, not {type(connection).__name__}")
    if not key:
        raise BadParameters("an effect's key is not empty")
    async with connection.transaction():
        if not await connection.fetchval(_IS_THERE):
            await connection.execute(_LOCK)
            await connection.execute(TABLE)
        row = await connection.fetchrow(_BEGIN, job_id, key, token)
        if not row["ours"]:
            raise LeaseLost(f"a later attempt of job {job_id} has begun its effects: this one makes none any more")
        yield row["first"]

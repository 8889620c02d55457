"""``postgresql://``: the outbox is the table ``asyncworker_outbox``, in the schema that the connection uses.

    id text PRIMARY KEY, namespace text, job bytea (MessagePack), made_at timestamptz
    seen_at timestamptz  when the relay last saw the job in the broker; null until it was enqueued

A relay makes it where it is missing; whoever makes tables by hand runs `TABLE`. Rows are locked while they are looked
at, and passed over by everybody else (SKIP LOCKED).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import asyncpg

from asyncworker.errors import AsyncWorkerError, SettingsError
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.job import Job, Receipt, Twin
from asyncworker.queue.outboxes.outbox import LOOK_S, packed, unpacked
from asyncworker.secret import mask_text, mask_url

log = logging.getLogger(__name__)

CONNECT_S = 10.0
STATEMENT_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0
AT_ONCE = 500
CHANNEL = "asyncworker_outbox"
TABLE = """
CREATE TABLE IF NOT EXISTS asyncworker_outbox (
    id text PRIMARY KEY, namespace text NOT NULL, job bytea NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(), seen_at timestamptz);
CREATE INDEX IF NOT EXISTS asyncworker_outbox_seen ON asyncworker_outbox (namespace, seen_at NULLS FIRST, made_at);
"""
_WRITE = """
INSERT INTO asyncworker_outbox (id, namespace, job)
SELECT id, $1, job FROM unnest($2::text[], $3::bytea[]) AS made (id, job)
"""
_FRESH = """
SELECT id, job FROM asyncworker_outbox WHERE namespace = $1 AND seen_at IS NULL
ORDER BY made_at, id LIMIT $2 FOR UPDATE SKIP LOCKED
"""
_SEEN = """
SELECT id, job FROM asyncworker_outbox WHERE namespace = $1 AND seen_at < now() - make_interval(secs => $3)
ORDER BY seen_at LIMIT $2 FOR UPDATE SKIP LOCKED
"""
_STAMP = "UPDATE asyncworker_outbox SET seen_at = now() WHERE id = ANY ($1::text[])"
_DELETE = "DELETE FROM asyncworker_outbox WHERE id = ANY ($1::text[])"
_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, AsyncWorkerError)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def write(connection: Any, namespace: str, jobs: Sequence[Job]) -> None:
    if not hasattr(connection, "executemany"):
        raise SettingsError(f"outbox= is to be a connection of asyncpg, not {type(connection).__name__}")
    try:
        await connection.execute(_WRITE, namespace, [job.id for job in jobs], [packed(job) for job in jobs])
        await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, namespace)  # heard when the transaction commits
    except asyncpg.UndefinedTableError as exc:
        hint = "a worker with database= makes it, or asyncworker.queue.outboxes.postgresql.TABLE"
        raise SettingsError(f"there is no table asyncworker_outbox in this database: {hint}") from exc


class PostgresqlRelay:
    """Moves jobs from one table to one broker, over one connection."""

    def __init__(self, url: str, namespace: str, broker: Broker, look_s: float) -> None:
        self._url = url
        self._namespace = namespace
        self._broker = broker
        self._look_s = look_s
        self._news = asyncio.Event()

    async def run(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            connection: Connection | None = None
            try:
                connection = await asyncpg.connect(
                    self._url, timeout=CONNECT_S, command_timeout=STATEMENT_S, statement_cache_size=0
                )
                await connection.execute(TABLE)
                await connection.add_listener(CHANNEL, self._heard)
                while True:
                    self._news.clear()
                    while await self._move(connection) or await self._look(connection):
                        pause = FIRST_PAUSE_S
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._news.wait(), self._look_s)
            except (*_ERRORS, ValueError) as exc:
                # The driver's own ValueError may quote a password out of a URL that it cannot read.
                told = mask_text(str(exc)) if isinstance(exc, _ERRORS) and str(exc) else type(exc).__name__
                log.warning("the outbox of %s is not relayed: %s", mask_url(self._url), told)
            finally:
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _heard(self, connection: Any, pid: int, channel: str, payload: Any) -> None:
        if payload == self._namespace:
            self._news.set()

    async def _move(self, connection: Connection) -> bool:
        """Enqueue some jobs that never were; returns whether there may be more."""
        async with connection.transaction():
            rows = await connection.fetch(_FRESH, self._namespace, AT_ONCE)
            taken = await self._enqueue(connection, rows)
        return bool(rows) and taken

    async def _look(self, connection: Connection) -> bool:
        """Forget jobs that are over, and enqueue anew what the broker has lost; returns whether there may be more."""
        async with connection.transaction():
            rows = await connection.fetch(_SEEN, self._namespace, AT_ONCE, self._look_s)
            ids = [row["id"] for row in rows]
            found = await self._broker.find(ids) if ids else []
            over = {one.id for one in found if one is not None and one.state.terminal}
            lives = {one.id for one in found if one is not None} - over
            await connection.execute(_DELETE, list(over))
            await connection.execute(_STAMP, list(lives))
            lost = [row for row, one in zip(rows, found, strict=True) if one is None]
            if lost:
                log.warning("%d jobs are no longer in the broker; enqueued anew from the outbox", len(lost))
            await self._enqueue(connection, lost)
        return len(rows) == AT_ONCE

    async def _enqueue(self, connection: Connection, rows: Sequence[Any]) -> bool:
        """Enqueue jobs, and note it; returns whether all found room."""
        jobs = {row["id"]: unpacked(row["job"]) for row in rows}
        if unread := [job_id for job_id, job in jobs.items() if job is None]:
            log.error("%d jobs in the outbox were written by another version, and are left there", len(unread))
        good = [job for job in jobs.values() if job is not None]
        receipts = await self._broker.enqueue(good) if good else []
        became = {job.id: receipt for job, receipt in zip(good, receipts, strict=True)}
        full = {job_id for job_id, receipt in became.items() if receipt is Receipt.FULL}
        await connection.execute(_STAMP, list(jobs.keys() - full))
        # Another job with the same unique key does what these were to do.
        await connection.execute(_DELETE, [job_id for job_id, receipt in became.items() if isinstance(receipt, Twin)])
        return not full


def open(  # the room's word, as in `registry`
    url: str, *, namespace: str, broker: Broker, look_s: float = LOOK_S
) -> PostgresqlRelay:
    return PostgresqlRelay(url, namespace, broker, look_s)

"""``postgresql://``: the outbox is the table ``asyncworker_outbox``, in the schema that the connection uses.

    id text PRIMARY KEY, namespace text, job bytea (MessagePack), made_at timestamptz
    seen_at timestamptz  when the relay last saw the job in the broker, or looked for it; null until it was enqueued
    after text[]         the ids of those after which it is to run, less those that are known to have succeeded

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
import msgspec

from asyncworker.errors import AsyncWorkerError, SettingsError
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.job import Found, Job, Missing, Receipt, State, Twin
from asyncworker.queue.outboxes.outbox import HELD_S, LOOK_S, give_up, packed, unpacked
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
    made_at timestamptz NOT NULL DEFAULT now(), seen_at timestamptz, after text[] NOT NULL DEFAULT '{}');
CREATE INDEX IF NOT EXISTS asyncworker_outbox_seen ON asyncworker_outbox (namespace, seen_at NULLS FIRST, made_at);
CREATE INDEX IF NOT EXISTS asyncworker_outbox_after ON asyncworker_outbox USING gin (after) WHERE after <> '{}';
"""
# CREATE INDEX waits for all who are writing, also where there is nothing to create, and meanwhile all others wait for it.
_THERE = "SELECT to_regclass('asyncworker_outbox')"
_WRITE = """
INSERT INTO asyncworker_outbox (id, namespace, job, after)
SELECT id, $1, job, $4 FROM unnest($2::text[], $3::bytea[]) AS made (id, job)
"""
_FRESH = """
SELECT id, job, after FROM asyncworker_outbox AS one WHERE namespace = $1 AND seen_at IS NULL AND NOT EXISTS (
    SELECT FROM asyncworker_outbox AS former WHERE former.id = ANY (one.after) AND former.seen_at IS NULL)
ORDER BY made_at, id LIMIT $2 FOR UPDATE OF one SKIP LOCKED
"""
_SEEN = """
SELECT id, job, after, made_at FROM asyncworker_outbox
WHERE namespace = $1 AND seen_at < now() - make_interval(secs => $3)
ORDER BY seen_at LIMIT $2 FOR UPDATE SKIP LOCKED
"""
_STAMP = "UPDATE asyncworker_outbox SET seen_at = now() WHERE id = ANY ($1::text[])"
_WAITS = "UPDATE asyncworker_outbox SET after = $2 WHERE id = $1 AND after <> $2"
_HOPELESS = """
SELECT one.id FROM unnest($1::text[], $2::text[]) AS asked (id, former) JOIN asyncworker_outbox AS one USING (id)
WHERE one.made_at < now() - make_interval(secs => $3)
    AND NOT EXISTS (SELECT FROM asyncworker_outbox AS two WHERE two.id = asked.former)
"""
_WITHOUT = """
UPDATE asyncworker_outbox AS one SET after = array_remove(after, former)
FROM unnest($1::text[], $2::text[]) AS asked (id, former) WHERE one.id = asked.id
"""
# Rows of others are waited for here alone, and in order, so that two relays never wait for each other.
_LOCK = """
SELECT FROM asyncworker_outbox WHERE id = ANY ($1::text[]) OR (after <> '{}' AND after && $1::text[])
ORDER BY id FOR UPDATE
"""
_DELETE = "DELETE FROM asyncworker_outbox WHERE id = ANY ($1::text[])"
_INSTEAD = """
UPDATE asyncworker_outbox SET after = ARRAY (
    SELECT DISTINCT coalesce(gone.instead, former)
    FROM unnest(after) AS former LEFT JOIN unnest($1::text[], $2::text[]) AS gone (id, instead) ON gone.id = former
    WHERE gone.instead IS DISTINCT FROM '')
WHERE after <> '{}' AND after && $1::text[]
"""
_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, AsyncWorkerError)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def write(connection: Any, namespace: str, jobs: Sequence[Job]) -> None:
    if not hasattr(connection, "executemany"):
        raise SettingsError(f"outbox= is to be a connection of asyncpg, not {type(connection).__name__}")
    try:
        after = list(jobs[0].after) if jobs else []  # the calls of one `enqueue_many` wait for the same
        await connection.execute(_WRITE, namespace, [job.id for job in jobs], [packed(job) for job in jobs], after)
        await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, namespace)  # heard when the transaction commits
    except asyncpg.UndefinedTableError as exc:
        hint = "a worker with database= makes it, or asyncworker.queue.outboxes.postgresql.TABLE"
        raise SettingsError(f"there is no table asyncworker_outbox in this database: {hint}") from exc


class PostgresqlRelay:
    """Moves jobs from one table to one broker, over one connection."""

    def __init__(self, url: str, namespace: str, broker: Broker, look_s: float, held_s: float) -> None:
        self._url = url
        self._namespace = namespace
        self._broker = broker
        self._look_s = look_s
        self._held_s = held_s
        self._news = asyncio.Event()

    async def run(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            connection: Connection | None = None
            try:
                connection = await asyncpg.connect(
                    self._url, timeout=CONNECT_S, command_timeout=STATEMENT_S, statement_cache_size=0
                )
                if not await connection.fetchval(_THERE):
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
            became = await self._enqueue(connection, rows)
        await self._forget(connection, _twins(became))
        return bool(rows) and Receipt.FULL not in became.values()

    async def _look(self, connection: Connection) -> bool:
        """Forget jobs that are over, and enqueue anew what the broker has lost; returns whether there may be more."""
        async with connection.transaction():
            rows = await connection.fetch(_SEEN, self._namespace, AT_ONCE, self._look_s)
            found = await self._broker.find([row["id"] for row in rows]) if rows else []
            known = [one for one in found if one is not None]
            lives = [one for one in known if not one.state.terminal]
            await connection.execute(_STAMP, [one.id for one in lives])
            await self._note(connection, lives)
            lost = [row for row, one in zip(rows, found, strict=True) if one is None]
            became = await self._enqueue(connection, sorted(lost, key=lambda row: (row["made_at"], row["id"])))
            if anew := list(became.values()).count(Receipt.ACCEPTED):
                log.warning("%d jobs were no longer in the broker; enqueued anew from the outbox", anew)
        over = {one.id: "" if one.state is State.SUCCEEDED else one.id for one in known if one.state.terminal}
        await self._forget(connection, over | _twins(became))
        return len(rows) == AT_ONCE

    async def _enqueue(self, connection: Connection, rows: Sequence[Any]) -> dict[str, Receipt | Twin | Missing]:
        """Enqueue jobs, and note it; returns what became of each."""
        jobs = {row["id"]: unpacked(row["job"]) for row in rows}
        if unread := [job_id for job_id, job in jobs.items() if job is None]:
            log.error("%d jobs in the outbox were written by another version, and are left there", len(unread))
        after = {row["id"]: tuple(row["after"]) for row in rows}
        good = [msgspec.structs.replace(job, after=after[job.id]) for job in jobs.values() if job is not None]
        receipts = await self._broker.enqueue(good) if good else []
        became = {job.id: receipt for job, receipt in zip(good, receipts, strict=True)}
        full = {job_id for job_id, receipt in became.items() if receipt is Receipt.FULL}
        await connection.execute(_STAMP, list(jobs.keys() - full))
        unknown = {job_id: receipt.id for job_id, receipt in became.items() if isinstance(receipt, Missing)}
        if unknown:  # else `_look` tries again
            asked = list(unknown), list(unknown.values())
            hopeless = {row["id"] for row in await connection.fetch(_HOPELESS, *asked, self._held_s)}
            willing = [job.id for job in good if job.id in hopeless and job.options.get("allow_failure")]
            await connection.execute(_WITHOUT, willing, [unknown[job_id] for job_id in willing])
            if refused := [job for job in good if job.id in hopeless.difference(willing)]:
                await give_up(self._broker, refused, unknown)
        if waiting := [job.id for job in good if job.after and became[job.id] is Receipt.ACCEPTED]:
            await self._note(connection, [one for one in await self._broker.find(waiting) if one is not None])
        return became

    async def _note(self, connection: Connection, lives: Sequence[Found]) -> None:
        """Note after whom jobs wait still: who has succeeded is not to be asked for again when all is lost."""
        whole = [one for one in lives if one.after and len(one.waits_for) == one.after.total - one.after.done]
        await connection.executemany(_WAITS, [(one.id, list(one.waits_for)) for one in whole])

    async def _forget(self, connection: Connection, gone: dict[str, str]) -> None:
        """Delete rows; with each goes whom those wait for now that waited for it: nobody (""), another job, or it as before."""
        if gone:
            async with connection.transaction():
                await connection.execute(_LOCK, list(gone))
                await connection.execute(_DELETE, list(gone))
                await connection.execute(_INSTEAD, list(gone), list(gone.values()))


def _twins(became: dict[str, Receipt | Twin | Missing]) -> dict[str, str]:
    """Return the jobs whose work another one with the same unique key does, and that one."""
    return {job_id: receipt.id for job_id, receipt in became.items() if isinstance(receipt, Twin)}


def open(  # the room's word, as in `registry`
    url: str, *, namespace: str, broker: Broker, look_s: float = LOOK_S, held_s: float = HELD_S
) -> PostgresqlRelay:
    return PostgresqlRelay(url, namespace, broker, look_s, held_s)

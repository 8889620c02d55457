"""P4: what is written within an effect is there once, whatever becomes of who writes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from asyncworker.errors import BadParameters, LeaseLost, SettingsError
from asyncworker.queue.codec import Ids
from asyncworker.queue.effect import effect

PATIENCE = 20.0
new_id = Ids()


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "SELECT pg_advisory_lock(7); CREATE TABLE IF NOT EXISTS paid (job text); SELECT pg_advisory_unlock(7)"
        )
        yield connection
    finally:
        await connection.close()


async def pay(connection: Any, job_id: str, token: int = 1, key: str = "effect") -> bool:
    async with effect(connection, job_id, token, key) as first:
        if first:
            await connection.execute("INSERT INTO paid VALUES ($1)", job_id)
    return first


async def breaks(connection: Any, job_id: str, around: Any) -> None:
    async with around:
        await pay(connection, f"{job_id}.inner")
        await connection.execute("INSERT INTO paid VALUES ($1)", job_id)
        raise ZeroDivisionError


async def paid(connection: Any, job_id: str) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM paid WHERE job = $1", job_id)
    return count


async def test_p4_the_first_makes_it_and_whoever_comes_after_does_not(each_postgres_dsn: str):
    job_id = new_id()
    async with connected(each_postgres_dsn) as connection:
        assert await pay(connection, job_id)
        assert not await pay(connection, job_id)
        assert not await pay(connection, job_id, token=2)
        assert await pay(connection, job_id, token=2, key="another")
        assert await paid(connection, job_id) == 2


async def test_p4_what_fails_leaves_neither_row_nor_effect(postgres_dsn: str):
    job_id = new_id()
    async with connected(postgres_dsn) as connection:
        with pytest.raises(ZeroDivisionError):
            await breaks(connection, job_id, effect(connection, job_id, 1))
        assert await paid(connection, job_id) == 0
        assert await pay(connection, job_id)


async def test_p4_it_is_part_of_the_callers_own_transaction(postgres_dsn: str):
    job_id = new_id()
    async with connected(postgres_dsn) as connection:
        with pytest.raises(ZeroDivisionError):
            await breaks(connection, job_id, connection.transaction())
        assert await paid(connection, job_id) == 0
        async with connection.transaction():
            assert await pay(connection, job_id)
        assert await paid(connection, job_id) == 1


async def test_p4_two_at_once_make_it_once_and_the_second_waits_for_the_first(postgres_dsn: str):
    job_id = new_id()
    async with connected(postgres_dsn) as one, connected(postgres_dsn) as two:
        async with effect(one, job_id, 1) as first:
            other = asyncio.create_task(pay(two, job_id))
            await asyncio.wait([other], timeout=0.1)
            assert not other.done()
            await one.execute("INSERT INTO paid VALUES ($1)", job_id)
        async with asyncio.timeout(PATIENCE):
            assert (first, await other) == (True, False)
        assert await paid(one, job_id) == 1


async def test_p4_who_waited_for_one_that_died_makes_it(postgres_dsn: str):
    job_id = new_id()
    async with connected(postgres_dsn) as two:
        one = await asyncpg.connect(postgres_dsn)
        async with asyncio.timeout(PATIENCE):
            begun = effect(one, job_id, 1)
            assert await begun.__aenter__()
            other = asyncio.create_task(pay(two, job_id, token=2))
            one.terminate()
            assert await other
            with pytest.raises(asyncpg.InterfaceError):
                await begun.__aexit__(None, None, None)
        assert await paid(two, job_id) == 1


async def test_p4_f3_a_zombies_older_token_is_refused_once_a_later_attempt_has_begun(postgres_dsn: str):
    job_id = new_id()
    async with connected(postgres_dsn) as connection:
        assert await pay(connection, job_id, token=1, key="a")
        assert not await pay(connection, job_id, token=2, key="a")
        with pytest.raises(LeaseLost, match="a later attempt"):
            await pay(connection, job_id, token=1, key="b")
        assert await pay(connection, job_id, token=2, key="b")
        assert await paid(connection, job_id) == 2


async def test_p4_many_make_the_table_at_once(each_postgres_dsn: str):
    async with connected(each_postgres_dsn) as connection:
        await connection.execute("DROP TABLE IF EXISTS asyncworker_effects")
        ids = [new_id() for _ in range(8)]

        async def once(job_id: str) -> bool:
            async with connected(each_postgres_dsn) as own:
                return await pay(own, job_id)

        assert all(await asyncio.gather(*map(once, ids)))
        assert [await paid(connection, job_id) for job_id in ids] == [1] * 8


async def test_what_is_no_connection_is_refused(postgres_dsn: str):
    with pytest.raises(SettingsError):
        await pay(object(), new_id())
    async with connected(postgres_dsn) as connection:
        with pytest.raises(BadParameters):
            await pay(connection, new_id(), key="")

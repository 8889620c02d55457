"""The pool over real asyncpg pools on a real server, through a guard that raises on private names."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from asyncworker.errors import PoolDown, PoolError
from asyncworker.tune.actuators.connections import ConnectionPoolOptimizer
from asyncworker.tune.drivers.postgresql import PostgresqlDriver, open
from asyncworker.tune.sensors.borrows import LATE, OVER
from bench.control.pool_double import guarded_asyncpg

CEILING = 8


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[ConnectionPoolOptimizer]:
    driver = PostgresqlDriver(
        lambda: guarded_asyncpg(asyncpg.create_pool(postgres_dsn, min_size=0, max_size=CEILING)), CEILING
    )
    pool = ConnectionPoolOptimizer(driver, max_size=CEILING, leak_after=0.2, automatic=False)
    await pool.start()
    yield pool
    await pool.close(timeout=0.1)


async def settled(pool: ConnectionPoolOptimizer, opened: int) -> None:
    async with asyncio.timeout(10):
        while (await pool.monitor_health()).opened != opened:
            await asyncio.sleep(0.01)


async def backends(connection: Any) -> int:
    count: int = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    )
    return count


async def test_every_leak_is_told_with_its_line(pool: ConnectionPoolOptimizer) -> None:
    pool.resize(CEILING)
    kept = []

    async def ends() -> None:
        await pool.acquire()

    async def keeps() -> None:
        kept.append(await pool.acquire())
        await asyncio.Event().wait()

    async def well() -> None:
        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT 1") == 1

    leaking = [asyncio.create_task(leaky()) for leaky in (ends, keeps, ends, keeps)]
    async with asyncio.TaskGroup() as group:
        for _ in range(40):
            group.create_task(well())
    async with asyncio.timeout(10):
        while len(leaks := pool.detect_leaks()) < 4:
            await asyncio.sleep(0.02)
    lines = {leaky: inspect.getsourcelines(leaky)[1] + 1 for leaky in (ends, keeps)}
    assert sorted((leak.place.file, leak.place.line, leak.because) for leak in leaks) == sorted(
        (__file__, lines[leaky], because) for leaky, because in ((ends, OVER), (keeps, LATE)) * 2
    )
    assert pool.in_use == 4
    for task in leaking:
        task.cancel()
    await asyncio.gather(*leaking, return_exceptions=True)


async def test_a_shrink_closes_connections_of_the_server(pool: ConnectionPoolOptimizer) -> None:
    pool.resize(CEILING)
    taken = [await pool.acquire() for _ in range(CEILING)]
    assert await backends(taken[0]) == CEILING
    pool.resize(2)
    await asyncio.gather(*map(pool.release, taken))
    await settled(pool, 2)
    async with pool.acquire() as connection, asyncio.timeout(10):
        while await backends(connection) > 2:
            await asyncio.sleep(0.01)
    assert pool.in_use == 0


async def test_s38_connections_that_the_server_ended_are_replaced(pool: ConnectionPoolOptimizer) -> None:
    async with pool.acquire() as killer:
        async with pool.acquire() as victim:
            await killer.execute("SELECT pg_terminate_backend($1)", victim.get_server_pid())
        async with asyncio.timeout(10):
            while await backends(killer) > 1:
                await asyncio.sleep(0.01)
        for _ in range(3):
            async with pool.acquire() as connection:
                assert await connection.fetchval("SELECT 1") == 1
    assert pool.in_use == 0


async def test_a_query_that_is_cancelled_does_not_spoil_the_connection(pool: ConnectionPoolOptimizer) -> None:
    async def slow() -> None:
        async with pool.acquire() as connection:
            await connection.execute("SELECT pg_sleep(10)")

    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow(), 0.05)
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT 2") == 2
    assert pool.in_use == 0


async def test_a_connection_that_its_user_closed_is_taken_back(pool: ConnectionPoolOptimizer) -> None:
    for _ in range(CEILING + 1):
        async with pool.acquire() as connection:
            await connection.close()
    assert pool.in_use == 0
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT 3") == 3


async def test_what_is_wrong_with_the_server_is_told(postgres_dsn: str, unused_tcp_port: int) -> None:
    wrong = postgres_dsn.rpartition("/")[0] + "/nowhere"
    with pytest.raises(PoolError, match="refuses") as refused:
        await ConnectionPoolOptimizer(open(wrong, 4, 1)).start()
    assert not isinstance(refused.value, PoolDown)
    with pytest.raises(PoolDown, match="cannot be reached") as down:
        await ConnectionPoolOptimizer(f"postgresql://me:secret@127.0.0.1:{unused_tcp_port}/x").start()
    assert "secret" not in str(down.value)
    with pytest.raises(PoolError, match="cannot be understood") as odd:
        await ConnectionPoolOptimizer("postgresql://me:secret@localhost:port/x").start()
    assert "secret" not in str(odd.value)


async def test_a_url_is_enough(postgres_dsn: str) -> None:
    async with ConnectionPoolOptimizer(postgres_dsn, min_size=2, max_size=4) as pool:
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(one(pool))
        assert (await pool.monitor_health()).opened <= 4


async def one(pool: ConnectionPoolOptimizer) -> None:
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT 1") == 1

"""The pool over real redis-py pools on a real server, through a guard that raises on private names."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator

import pytest
from redis import asyncio as redis

from asyncworker.errors import PoolClosed, PoolDown, PoolError
from asyncworker.tune.actuators.connections import ConnectionPoolOptimizer
from asyncworker.tune.drivers.redis import RedisDriver
from asyncworker.tune.sensors.borrows import LATE, OVER
from bench.control.pool_double import guard

CEILING = 8


@pytest.fixture
async def pool(redis_url: str) -> AsyncIterator[ConnectionPoolOptimizer]:
    driver = RedisDriver(lambda: guard(redis.ConnectionPool.from_url(redis_url, max_connections=CEILING)), CEILING)
    pool = ConnectionPoolOptimizer(driver, max_size=CEILING, leak_after=0.2, automatic=False)
    await pool.start()
    yield pool
    await pool.close(timeout=0.1)


async def test_who_borrows_has_a_connection_alone(pool: ConnectionPoolOptimizer, namespace: str) -> None:
    async with pool.acquire() as one, pool.acquire() as other:
        assert await one.client_id() != await other.client_id()
        assert len({await one.client_id() for _ in range(3)}) == 1
        await one.set(namespace, "1", px=10_000)
        async with one.pipeline(transaction=True) as pipe:
            assert await pipe.get(namespace).incr(namespace).execute() == [b"1", 2]
    assert pool.in_use == 0


async def test_every_leak_is_told_with_its_line(pool: ConnectionPoolOptimizer) -> None:
    pool.resize(CEILING)
    kept = []

    async def ends() -> None:
        kept.append(await pool.acquire())

    async def keeps() -> None:
        kept.append(await pool.acquire())
        await asyncio.Event().wait()

    async def well() -> None:
        async with pool.acquire() as client:
            assert await client.ping()

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
    for task in leaking:
        task.cancel()
    await asyncio.gather(*leaking, return_exceptions=True)


async def test_a_shrink_is_true_where_the_librarys_own_is_not(pool: ConnectionPoolOptimizer, redis_url: str) -> None:
    pool.resize(CEILING)
    taken = [await pool.acquire() for _ in range(CEILING)]
    mine = {await client.client_id() for client in taken}
    pool.resize(2)
    await asyncio.gather(*map(pool.release, taken))
    async with redis.Redis.from_url(redis_url) as looker, asyncio.timeout(10):
        while len(mine & {int(one["id"]) for one in await looker.client_list()}) > 2:
            await asyncio.sleep(0.01)
    assert (await pool.monitor_health()).opened == 2


async def test_s38_connections_that_the_server_ended_are_replaced(pool: ConnectionPoolOptimizer) -> None:
    async with pool.acquire() as killer:
        async with pool.acquire() as victim:
            number = await victim.client_id()
        await killer.client_kill_filter(_id=number)
        await asyncio.sleep(0)
        async with pool.acquire() as client:
            assert await client.ping()
            assert await client.client_id() != number
    assert pool.in_use == 0


async def test_a_command_that_is_cancelled_does_not_spoil_the_connection(
    pool: ConnectionPoolOptimizer, namespace: str
) -> None:
    async def slow() -> None:
        async with pool.acquire() as client:
            await client.blpop([namespace], 10)

    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow(), 0.05)
    async with pool.acquire() as client:
        assert await client.echo("mine") == b"mine"
    assert pool.in_use == 0


async def test_a_client_that_its_user_closed_is_taken_back(pool: ConnectionPoolOptimizer) -> None:
    for _ in range(CEILING + 1):
        async with pool.acquire() as client:
            await client.aclose()
    assert pool.in_use == 0


async def test_what_is_wrong_with_the_server_is_told(unused_tcp_port: int, redis_url: str) -> None:
    with pytest.raises(PoolDown, match="cannot be reached") as down:
        await ConnectionPoolOptimizer(f"redis://me:secret@127.0.0.1:{unused_tcp_port}/0").start()
    assert "secret" not in str(down.value)
    driver = RedisDriver(lambda: redis.ConnectionPool.from_url(redis_url, username="nobody", password="secret"), 4)
    with pytest.raises(PoolError, match="refuses") as refused:
        await driver.start()
    assert "secret" not in str(refused.value)
    await driver.close(1)
    with pytest.raises(PoolClosed):
        await driver.take(1)

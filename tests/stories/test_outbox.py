"""Jobs in the caller's own transaction: there exactly when what it did is, whatever becomes of Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import redis

from asyncworker import Engine
from asyncworker.errors import BadParameters, SettingsError, UnknownName
from asyncworker.queue.job import State
from asyncworker.queue.outboxes import postgresql
from tests.support.brokers import until

ROWS = "SELECT count(*) FROM asyncworker_outbox WHERE namespace = $1"


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def working(engine: Engine) -> AsyncIterator[None]:
    run = asyncio.create_task(engine.run())
    try:
        yield
    finally:
        engine.stop()
        await run


@pytest.fixture
def make(redis_url: str, namespace: str, each_postgres_dsn: str) -> Callable[[], Engine]:
    return lambda: Engine(redis_url, namespace=namespace, outbox=each_postgres_dsn)


async def test_a_job_is_there_when_its_transaction_is(make: Callable[[], Engine], each_postgres_dsn: str):
    async with connected(each_postgres_dsn) as connection, make() as engine:
        await connection.execute(postgresql.TABLE)
        write = engine.task(name="pay", durable="outbox")(_nothing).with_options(outbox=connection)
        transaction = connection.transaction()
        await transaction.start()
        lost = await write.enqueue(1)
        await transaction.rollback()
        async with connection.transaction():
            job = await write.enqueue(2)
            late = await write.with_options(delay=3600).enqueue(3)
            assert (await engine.broker.find([job.id])) == [None], "nobody else sees it before the transaction is over"
        async with working(engine):
            assert await job.result(timeout=20) == 2
            with pytest.raises(TimeoutError):
                await lost.result(timeout=0.1)
            await until(lambda: is_known(engine, late.id))
            status = await late.status()
            assert status.state is State.SCHEDULED
            due = datetime.fromtimestamp(status.due_at or 0, UTC) - datetime.now(UTC)
            assert timedelta(minutes=58) < due <= timedelta(hours=1), "its delay counts from when it was written"
            await late.cancel()
        assert (await engine.broker.find([lost.id])) == [None]


async def is_known(engine: Engine, job_id: str) -> bool:
    return (await engine.broker.find([job_id]))[0] is not None


async def _nothing(order: int) -> int:
    return order


async def test_f11_nothing_is_lost_when_redis_loses_everything(
    make: Callable[[], Engine],
    each_postgres_dsn: str,
    fresh_redis_url: str,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(postgresql.open, "__kwdefaults__", {"look_s": 0.2})
    async with connected(each_postgres_dsn) as connection, make() as engine:
        await connection.execute(postgresql.TABLE)
        gate, ran = asyncio.Event(), list[int]()

        async def hold(order: int) -> None:
            await gate.wait()
            ran.append(order)

        held = engine.task(name="hold", durable="outbox", result_ttl=0)(hold).with_options(outbox=connection)
        async with connection.transaction():
            jobs = await held.enqueue_many([(number,) for number in range(1200)])
        async with working(engine):
            async with asyncio.timeout(30):
                while (await engine.broker.depth(["default"])).running < 10:
                    await asyncio.sleep(0.01)
            with redis.Redis.from_url(fresh_redis_url) as client:
                client.flushall()
            gate.set()
            async with asyncio.timeout(60):
                while await connection.fetchval(ROWS, namespace):
                    await asyncio.sleep(0.05)
        assert set(ran) == set(range(1200)), "lost"
        assert (await jobs[-1].status()).state is State.SUCCEEDED


async def test_what_cannot_be_written(make: Callable[[], Engine], each_postgres_dsn: str, redis_url: str):
    async with make() as engine, connected(each_postgres_dsn) as connection:
        task = engine.task(name="other", durable="outbox")(_nothing)
        with pytest.raises(BadParameters, match="outbox=connection"):
            await task.enqueue(1)
        with pytest.raises(SettingsError, match="connection of asyncpg, not str"):
            await task.with_options(outbox="x").enqueue(1)
        await connection.execute("DROP TABLE IF EXISTS asyncworker_outbox")
        with pytest.raises(SettingsError, match="no table asyncworker_outbox"):
            await task.with_options(outbox=connection).enqueue(1)
    with pytest.raises(UnknownName, match="unknown outbox 'mysql'"):
        Engine(redis_url, outbox="mysql://host/name")

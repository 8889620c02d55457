"""Jobs in the caller's own transaction: there exactly when what it did is, whatever becomes of Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import redis

from asyncworker import Engine
from asyncworker.errors import BadParameters, SettingsError, TaskFailed, UnknownName
from asyncworker.queue.codec import Ids
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
    monkeypatch.setitem(postgresql.open.__kwdefaults__, "look_s", 0.2)
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


async def test_f11_what_was_over_when_redis_lost_everything_is_not_waited_for_again(
    make: Callable[[], Engine], each_postgres_dsn: str, fresh_redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(postgresql.open.__kwdefaults__, "look_s", 0.1)
    async with connected(each_postgres_dsn) as connection, make() as engine:
        await connection.execute(postgresql.TABLE)
        ran, gate = list[int](), asyncio.Event()

        async def hold(number: int) -> int:
            await gate.wait()
            ran.append(number)
            return number

        note = engine.task(name="note")(_noting(ran)).with_options(outbox=connection)
        held = engine.task(name="hold")(hold).with_options(outbox=connection)
        async with connection.transaction():
            over = await note.enqueue(1)
            between = await held.with_options(after=over).enqueue(2)
            last = await note.with_options(after=[over, between]).enqueue(3)
        async with working(engine):
            await until(lambda: is_gone(connection, over.id))
            async with connection.transaction():
                late = await note.with_options(after=[over, between]).enqueue(4)
            await until(lambda: waits_for(connection, late.id, between.id))
            with redis.Redis.from_url(fresh_redis_url) as client:
                client.flushall()
            gate.set()
            assert [await job.result(timeout=20) for job in (last, late)] == [3, 4]
            await until(lambda: gone(connection, engine))
        assert ran[0] == 1
        assert ran.count(1) == 1
        assert set(ran[-2:]) == {3, 4}


class TestAfter:
    """Jobs that wait for others, written into the outbox; the same on both brokers."""

    @pytest.fixture(params=["memory", "redis"])
    def make(
        self,
        request: pytest.FixtureRequest,
        namespace: str,
        postgres_dsn: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Callable[[], Engine]:
        monkeypatch.setitem(postgresql.open.__kwdefaults__, "look_s", 0.1)
        monkeypatch.setitem(postgresql.open.__kwdefaults__, "held_s", 3600.0)
        url = "memory://" if request.param == "memory" else request.getfixturevalue("fresh_redis_url")
        return lambda: Engine(url, namespace=namespace, outbox=postgres_dsn)

    @pytest.fixture
    async def connection(self, postgres_dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        async with connected(postgres_dsn) as connection:
            await connection.execute(postgresql.TABLE)
            yield connection

    async def test_one_of_the_same_transaction_of_an_earlier_one_and_of_none(
        self, make: Callable[[], Engine], connection: asyncpg.Connection[asyncpg.Record]
    ):
        async with make() as engine:
            ran = list[int]()
            task = engine.task(name="note")(_noting(ran))
            note = task.with_options(outbox=connection)
            plain = await task.enqueue(0)
            async with connection.transaction():
                first = await note.enqueue(1)
            async with connection.transaction():
                second = await note.with_options(after=[plain, first]).enqueue(2)
                last = await note.with_options(after=second).enqueue_many([(3,), (4,)])
            async with working(engine):
                assert [await job.result(timeout=20) for job in last] == [3, 4]
            assert sorted(ran[:2]) == [0, 1]
            assert ran[2] == 2
            assert (await second.status()).state is State.SUCCEEDED

    async def test_one_whose_transaction_is_over_later(
        self, make: Callable[[], Engine], connection: asyncpg.Connection[asyncpg.Record], postgres_dsn: str
    ):
        async with make() as engine, connected(postgres_dsn) as other:
            ran = list[int]()
            note = engine.task(name="note")(_noting(ran))
            transaction = connection.transaction()
            await transaction.start()
            first = await note.with_options(outbox=connection).enqueue(1)
            last = await note.with_options(outbox=other, after=first).enqueue(2)
            async with working(engine):
                await until(lambda: other.fetchval(f"{ROWS} AND seen_at IS NOT NULL", engine.namespace))
                assert await engine.broker.find([last.id]) == [None], "held"
                await transaction.commit()
                assert await last.result(timeout=20) == 2
            assert ran == [1, 2]

    async def test_one_that_fails(self, make: Callable[[], Engine], connection: asyncpg.Connection[asyncpg.Record]):
        async with make() as engine:
            ran = list[int]()
            engine.task(name="note")(_noting(ran))
            fail = engine.task(name="fail", max_attempts=1)(_failing).with_options(outbox=connection)
            note = engine.task(name="also")(_noting(ran)).with_options(outbox=connection)
            async with connection.transaction():
                first = await fail.enqueue()
                never = await note.with_options(after=first).enqueue(1)
                anyway = await note.with_options(after=first, allow_failure=True).enqueue(2)
            async with working(engine):
                assert await anyway.result(timeout=20) == 2
                with pytest.raises(TaskFailed) as failed:
                    await never.result(timeout=20)
            assert failed.value.reason == "dependency"
            assert ran == [2]

    async def test_one_that_nobody_knows(
        self,
        make: Callable[[], Engine],
        connection: asyncpg.Connection[asyncpg.Record],
        monkeypatch: pytest.MonkeyPatch,
    ):
        monkeypatch.setitem(postgresql.open.__kwdefaults__, "held_s", 0.0)
        async with make() as engine:
            ran, nobody = list[int](), Ids()()
            note = engine.task(name="note", failure_ttl=None)(_noting(ran)).with_options(outbox=connection)
            async with connection.transaction():
                never = await note.with_options(after=nobody).enqueue(1)
                after_it = await note.with_options(after=never).enqueue(2)
                anyway = await note.with_options(after=nobody, allow_failure=True).enqueue(3)
            async with working(engine):
                for job in (never, after_it):
                    with pytest.raises(TaskFailed, match=f"nobody knows how job {nobody} ended") as failed:
                        await job.result(timeout=20)
                    assert failed.value.reason == "dependency"
                assert await anyway.result(timeout=20) == 3
                await until(lambda: gone(connection, engine))
            assert ran == [3]
            assert (await never.status()).task == "note"

    async def test_one_whose_work_another_does(
        self, make: Callable[[], Engine], connection: asyncpg.Connection[asyncpg.Record]
    ):
        async with make() as engine:
            ran, gate = list[int](), asyncio.Event()

            async def hold(number: int) -> None:
                await gate.wait()
                ran.append(number)

            held = engine.task(name="hold")(hold).with_options(unique="nightly")
            note = engine.task(name="note")(_noting(ran)).with_options(outbox=connection)
            await held.enqueue(1)
            async with connection.transaction():
                twin = await held.with_options(outbox=connection).enqueue(2)
                last = await note.with_options(after=twin).enqueue(3)
            async with working(engine):
                await until(lambda: is_known(engine, last.id))
                assert (await last.status()).state is State.BLOCKED
                gate.set()
                assert await last.result(timeout=20) == 3
            assert ran == [1, 3]


def _noting(ran: list[int]) -> Callable[[int], Awaitable[int]]:
    async def note(number: int) -> int:
        ran.append(number)
        return number

    return note


async def _failing() -> None:
    raise ValueError("no")


async def gone(connection: asyncpg.Connection[asyncpg.Record], engine: Engine) -> bool:
    return not await connection.fetchval(ROWS, engine.namespace)


async def waits_for(connection: asyncpg.Connection[asyncpg.Record], job_id: str, *formers: str) -> bool:
    after = await connection.fetchval("SELECT after FROM asyncworker_outbox WHERE id = $1", job_id)
    return after == list(formers)


async def is_gone(connection: asyncpg.Connection[asyncpg.Record], job_id: str) -> bool:
    return not await connection.fetchval("SELECT count(*) FROM asyncworker_outbox WHERE id = $1", job_id)


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

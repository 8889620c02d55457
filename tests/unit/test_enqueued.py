"""What `enqueue` returns is awaited, gathered, made a task of, cancelled and refused like any coroutine."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from asyncworker import Engine
from asyncworker.enqueued import Enqueued
from asyncworker.errors import BadParameters, BrokerDown, JobTooBig, QueueFull
from asyncworker.job import JobHandle
from asyncworker.queue.brokers.redis import RedisBroker
from asyncworker.task import Task


@pytest.fixture
def engine(redis_url: str, namespace: str) -> Engine:
    return Engine(redis_url, namespace=namespace)


@pytest.fixture
def double(engine: Engine) -> Task[[int], int]:
    @engine.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    return double


async def depth(engine: Engine) -> int:
    return (await engine.broker.depth(["default"])).queues["default"].queued


async def test_a_plain_call_is_under_way_at_once(engine: Engine, double: Task[[int], int]):
    async with engine:
        call = double.enqueue(1)
        assert isinstance(call, Enqueued)
        handle = await call
        assert isinstance(handle, JobHandle)
        assert await depth(engine) == 1
        assert await call is handle


async def test_it_goes_wherever_a_coroutine_goes(engine: Engine, double: Task[[int], int]):
    async with engine:
        one = await double.enqueue(1)
        two, three = await asyncio.gather(double.enqueue(2), double.enqueue(3))
        four = await asyncio.create_task(double.enqueue(4))
        async with asyncio.TaskGroup() as group:
            five = group.create_task(double.enqueue(5))
        six = await asyncio.wait_for(double.enqueue(6), 20)
        seven = await asyncio.shield(double.enqueue(7))
        eight = await engine.enqueue("double", 8)
        nine = await engine.enqueue("elsewhere", 9)
        handles = one, two, three, four, five.result(), six, seven, eight, nine
        assert len({handle.id for handle in handles}) == await depth(engine) == 9


async def test_a_task_of_it_can_be_cancelled(engine: Engine, double: Task[[int], int]):
    async with engine:
        await double.enqueue(0)
        first, second = double.enqueue(1), double.enqueue(2)  # the second waits for the first one's answer
        task = asyncio.create_task(second)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert second.cancelled()
        await first
        await double.enqueue(3)
        assert await depth(engine) == 3


async def test_a_closed_task_of_it_leaves_nothing(engine: Engine, double: Task[[int], int]):
    async with engine:
        call = double.enqueue(1)
        call.close()
        with pytest.raises(ZeroDivisionError):
            double.enqueue(2).throw(ZeroDivisionError())
        await double.enqueue(3)
        assert await depth(engine) == 3


async def test_what_does_not_fit_is_told_to_who_awaits(engine: Engine, double: Task[[int], int]):
    async with engine:
        one, two, three = await asyncio.gather(
            double.enqueue("x"),  # type: ignore[arg-type]
            engine.enqueue("elsewhere", bytes(17 * 2**20)),
            double.enqueue(3),
            return_exceptions=True,
        )
        assert [type(told) for told in (one, two, three)] == [BadParameters, JobTooBig, JobHandle]


async def test_without_a_loop_it_is_a_coroutine(redis_url: str, namespace: str):
    def elsewhere() -> str:
        engine = Engine(redis_url, namespace=namespace)
        return asyncio.run(_enqueued_and_closed(engine, engine.enqueue("double", 1))).id

    job_id = await asyncio.to_thread(elsewhere)
    async with Engine(redis_url, namespace=namespace) as engine:
        assert (await engine.job(job_id).status()).task == "double"


async def _enqueued_and_closed(engine: Engine, call) -> JobHandle[object]:
    async with engine:
        return await call


async def test_a_full_queue_refuses_or_lets_wait(engine: Engine, double: Task[[int], int]):
    async with engine:
        await engine.admin.bound("default", 1)
        await double.enqueue(1)
        with pytest.raises(QueueFull):
            await double.with_options(when_full="reject").enqueue(2)
        waits, gives_up = double.enqueue(3), double.enqueue(4)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(gives_up, 0.1)
        assert not waits.done()
        await engine.admin.bound("default", None)
        await waits
        await double.enqueue(5)
        assert await depth(engine) == 3


async def test_a_broken_connection_is_mended_on_the_way(engine: Engine, double: Task[[int], int]):
    async with engine:
        await double.enqueue(1)
        broker = engine.broker
        assert isinstance(broker, RedisBroker)
        link = broker._senders["memory"]._wire._link
        assert link is not None
        calls = [double.enqueue(2), double.enqueue(3)]
        link.close()
        await asyncio.gather(*calls)
        assert await depth(engine) == 3


async def test_a_refusal_of_the_server_is_told(engine: Engine, double: Task[[int], int]):
    async with engine, Redis.from_url(engine.url) as server:
        await double.enqueue(1)
        await server.config_set("maxmemory", 1)
        try:
            with pytest.raises(QueueFull):
                await double.enqueue(2)
        finally:
            await server.config_set("maxmemory", 0)
        await double.enqueue(3)
        assert await depth(engine) == 2


async def test_closing_ends_what_is_under_way(engine: Engine, double: Task[[int], int]):
    async with engine:
        await double.enqueue(1)
        calls = [double.enqueue(2), double.enqueue(3)]
    told = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in told] == [BrokerDown, BrokerDown]

"""Plain code enqueues, too: in any thread, with any option, through restarts, and never from a shared connection."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from asyncworker import Engine
from asyncworker.errors import BadParameters, BrokerDown, JobExists, JobNotFound, QueueFull, SettingsError
from asyncworker.queue.brokers.redis import RedisBroker
from asyncworker.queue.job import Job
from asyncworker.task import Task

KEY = "0123456789abcdef"


@pytest.fixture
async def engine(redis_url: str, namespace: str) -> AsyncIterator[Engine]:
    engine = Engine(redis_url, namespace=namespace)
    yield engine
    await engine.close()


@pytest.fixture
def double(engine: Engine) -> Task[[int], int]:
    @engine.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    return double


async def test_without_a_loop_and_from_several_threads(engine: Engine, double: Task[[int], int]):
    def main(number: int) -> list[str]:
        return [double.enqueue_blocking(number).id, engine.enqueue_blocking("double", number).id]

    with ThreadPoolExecutor(3) as threads:
        ids = [job_id for some in threads.map(main, range(6)) for job_id in some]
    await engine.run(burst=True)
    values = [await engine.job(job_id).result(timeout=20) for job_id in ids]
    assert values == [2 * number for number in range(6) for _ in range(2)]


async def test_threads_that_come_first_open_one_broker(redis_url: str, namespace: str):
    for _ in range(20):
        engine, barrier = Engine(redis_url, namespace=namespace), threading.Barrier(4)

        def first(engine: Engine = engine, barrier: threading.Barrier = barrier) -> object:
            barrier.wait(20)
            return engine.broker

        with ThreadPoolExecutor(4) as threads:
            brokers = {id(one.result()) for one in [threads.submit(first) for _ in range(4)]}
        assert len(brokers) == 1
        await engine.close()


async def test_threads_share_a_caller_and_its_one_connection(engine: Engine):
    broker = engine.broker
    assert isinstance(broker, RedisBroker)
    call, opened = broker._script.caller(), list[object]()
    own, barrier = broker._script.open_blocking, threading.Barrier(4)
    broker._script.open_blocking = lambda: opened.append(1) or own()  # type: ignore[method-assign,func-returns-value]

    def ask() -> object:
        barrier.wait(20)
        return call("queues")

    with ThreadPoolExecutor(4) as threads:
        assert [one.result() for one in [threads.submit(ask) for _ in range(4)]] == [[[], []]] * 4
    assert len(opened) == 1


async def test_options_and_refusals_are_those_of_enqueue(engine: Engine, double: Task[[int], int]):
    once = double.with_options(unique="one")
    first = await asyncio.to_thread(once.enqueue_blocking, 1)
    assert (await asyncio.to_thread(once.enqueue_blocking, 1)).id == first.id
    later = await asyncio.to_thread(double.with_options(after=first, delay=0.0).enqueue_blocking, 2)
    assert (await later.status()).state == "blocked"
    refused = [
        (double, ("x",), BadParameters),
        (double.with_options(unique="one", on_conflict="raise"), (1,), JobExists),
        (double.with_options(after="0" * 26), (1,), JobNotFound),
        (double.with_options(durable="replica"), (1,), BadParameters),
        (double.with_options(outbox=object()), (1,), BadParameters),
    ]
    for task, args, error in refused:
        with pytest.raises(error):
            await asyncio.to_thread(task.enqueue_blocking, *args)


async def test_a_full_queue_blocks_or_refuses(
    engine: Engine, double: Task[[int], int], monkeypatch: pytest.MonkeyPatch
):
    await engine.admin.bound("default", 1)
    await asyncio.to_thread(double.enqueue_blocking, 1)
    with pytest.raises(QueueFull):
        await asyncio.to_thread(double.with_options(when_full="reject").enqueue_blocking, 2)
    refused = threading.Event()
    slept = time.sleep
    monkeypatch.setattr("asyncworker.queue.entrance.time.sleep", lambda pause: (refused.set(), slept(pause)))
    waits = asyncio.create_task(asyncio.to_thread(double.enqueue_blocking, 3))
    assert await asyncio.to_thread(refused.wait, 20)
    assert not waits.done()
    await engine.admin.bound("default", None)
    await asyncio.wait_for(waits, 20)


def idle_of(engine: Engine) -> deque[Any]:
    assert isinstance(engine.broker, RedisBroker)
    return engine.broker._blocking._idle


async def test_a_lost_answer_is_asked_for_again_and_the_job_is_there_once(engine: Engine, double: Task[[int], int]):
    double.enqueue_blocking(1)
    line = idle_of(engine)[0].call._line
    asked = line.ask

    def lose(*command: object) -> object:
        asked(*command)
        line._socket.close()
        raise ConnectionResetError("lost")

    line.ask = lose
    double.enqueue_blocking(2)
    assert (await engine.broker.depth(["default"])).queues["default"].queued == 2


async def test_a_server_that_is_not_there():
    elsewhere = Engine("redis://127.0.0.1:1", namespace="x")
    elsewhere.broker._script.patience = 0.1  # type: ignore[attr-defined]  # a Redis broker's
    with pytest.raises(BrokerDown):
        elsewhere.enqueue_blocking("double", 1)
    await elsewhere.close()


async def test_a_closed_broker_takes_nothing(engine: Engine, double: Task[[int], int]):
    double.enqueue_blocking(1)
    broker = engine.broker
    assert isinstance(broker, RedisBroker)
    await engine.close()
    with pytest.raises(BrokerDown, match="closed"):
        broker.enqueue_blocking(Job("0" * 26, "default", b""))


async def test_a_forked_child_has_a_connection_of_its_own(engine: Engine, double: Task[[int], int]):
    double.enqueue_blocking(1)
    (before,) = idle_of(engine)
    before.call._process = os.getpid() + 1  # as a child finds what its parent left
    double.enqueue_blocking(2)
    (after,) = idle_of(engine)
    assert after is not before
    assert (await engine.broker.depth(["default"])).queues["default"].queued == 2
    assert before.call.inherited
    before.call.close()
    assert before.call._line.ask("PING") == b"PONG", "the parent goes on with it"
    before.call._process = os.getpid()


async def test_an_interrupted_call_leaves_no_answer_to_the_next(engine: Engine, double: Task[[int], int]):
    double.enqueue_blocking(1)
    line = idle_of(engine)[0].call._line
    whole = line._socket

    class Interrupted:
        def recv(self, _: int) -> bytes:
            raise KeyboardInterrupt

        def __getattr__(self, name: str) -> Any:
            return getattr(whole, name)

    line._socket = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        double.enqueue_blocking(2)
    job = double.enqueue_blocking(3)
    assert (await job.status()).state == "queued"
    assert idle_of(engine)[0].call._line is not line


async def test_threads_that_come_and_go_leave_one_connection(engine: Engine, double: Task[[int], int]):
    for number in range(5):
        thread = threading.Thread(target=double.enqueue_blocking, args=(number,))
        thread.start()
        await asyncio.to_thread(thread.join)
    assert len(idle_of(engine)) == 1


async def test_signed_jobs_are_signed(redis_url: str, namespace: str):
    engine = Engine(redis_url, namespace=namespace, signing_keys=[KEY])

    @engine.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    job = double.enqueue_blocking(4)
    await engine.run(burst=True)
    assert await job.result(timeout=20) == 8
    await engine.close()


async def test_memory_has_no_way_in_from_outside():
    async with Engine("memory://") as engine:
        with pytest.raises(SettingsError, match="await"):
            engine.enqueue_blocking("double", 1)

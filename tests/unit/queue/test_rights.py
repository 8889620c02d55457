"""The Redis user that workers and clients need: enough for all they do, on their own keys, and nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis

from asyncworker import Engine, JobExists, Limit, Rate, State, TaskFailed, chain
from asyncworker.queue import rights
from asyncworker.queue.brokers.redis import TEXT
from asyncworker.queue.keeps.redis import APPEND, TABLE
from tests.support.brokers import until
from tests.support.servers import NAMESPACES


def test_the_functions_use_no_other_commands() -> None:
    called = re.findall(r"(?:call|bulk|push|ready)\(\s*'([A-Z]+)'", TEXT + APPEND + TABLE)
    called += re.findall(r"redis\.call\('([A-Z]+)'", APPEND + TABLE)
    assert {name.lower() for name in called} == set(rights.INSIDE)


def test_a_namespace_is_all_that_it_reaches() -> None:
    rules = rights.rules("shop")
    assert [rule for rule in rules if rule[0] in "~&"] == ["~{shop:0}:*", "&{shop:0}:*"]
    assert {"-@all", "resetkeys", "resetchannels"} <= set(rules)
    assert not [
        rule for rule in rules if rule in {"+@all", "+config", "+flushall", "+flushdb", "+keys", "+debug", "+acl"}
    ]


async def test_other_keys_channels_and_commands_are_refused(limited_redis_url: str) -> None:
    with redis.Redis.from_url(limited_redis_url) as client:
        refused: list[Callable[[], Any]] = [
            client.flushall,
            client.config_get,
            lambda: client.get("anything"),
            lambda: client.set("{other:0}:b", 1),
            lambda: client.publish("{other:0}:in:x", "w"),
            lambda: client.eval("return redis.call('GET', KEYS[1])", 1, "secret"),
        ]
        for call in refused:
            with pytest.raises(redis.exceptions.NoPermissionError):
                call()


async def test_an_engine_lives_as_that_user(limited_redis_url: str, namespace: str) -> None:
    """All that people do with an engine, in short; the long form is the contract of brokers, as that user."""
    assert namespace.startswith(NAMESPACES.rstrip("*"))
    async with Engine(limited_redis_url, namespace=namespace) as engine:

        @engine.task(name="double", limit=Limit(5, key="n", per_key=2), rate=Rate(10_000, per=1))
        async def double(n: int) -> int:
            return 2 * n

        @engine.task(name="fails", max_attempts=2, retry_backoff=0)
        async def fails() -> None:
            raise ValueError("no")

        @engine.batch(max_size=10)
        async def store(rows: list[int]) -> None: ...

        @engine.every(timedelta(seconds=0.2), name="beat")
        async def beat() -> None: ...

        working = asyncio.create_task(engine.run())
        jobs = await double.enqueue_many([(n,) for n in range(300)])
        late = await double.with_options(delay=0.2, priority=9).enqueue(1)
        dead = await fails.enqueue()
        flow = await chain(double.bind(1), double).enqueue()
        rows = await store.enqueue_many([(n,) for n in range(20)])
        counted = await engine.map_reduce([{"text": "a b"}, {"text": "b"}], "word_count", params={"field": "text"})
        async with asyncio.timeout(60):
            assert [await job.result() for job in jobs] == [2 * n for n in range(300)]
            assert (await late.result(), await flow.result()) == (2, 4)
            await asyncio.gather(*(row.result() for row in rows))
            assert (await counted.result())["total_processed"] == 2
            with pytest.raises(TaskFailed):
                await dead.result()
        once = await double.with_options(delay=3600, unique="one").enqueue(1)
        with pytest.raises(JobExists):
            await double.with_options(unique="one", on_conflict="raise").enqueue(1)
        assert await once.cancel()
        assert await engine.admin.dead() == [dead.id]
        await engine.admin.pause("default")
        assert await engine.admin.replay([dead.id]) == [True]
        await engine.admin.bound("default", 5)
        await engine.admin.bound("default", None)
        await engine.admin.resume("default")
        async with asyncio.timeout(60):
            with pytest.raises(TaskFailed):
                await dead.result()
        await engine.admin.purge([dead.id])
        await engine.schedules.add("later", "double", 1, cron="0 3 * * *")
        await engine.strikes.add("double", n=7)
        assert [job async for job in engine.jobs([State.SUCCEEDED], task="double")]

        async def fired() -> bool:
            return bool((await engine.broker.depth(["scheduled"])).queues["scheduled"].succeeded)

        await until(fired, 20)
        engine.stop()
        await working
        assert engine.keep is not None
        await engine.keep.append("log", [b"one"], 10)
        await engine.keep.put("table", {"a": b"1"}, 60)
        assert (await engine.keep.last("log", 1), await engine.keep.values("table")) == ([b"one"], {"a": b"1"})
        await engine.keep.drop("table", "a")

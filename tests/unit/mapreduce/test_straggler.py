"""A partition that takes far longer than the others is done by another worker as well, and counts once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from asyncworker import registry
from asyncworker.mapreduce import mapper, straggler
from asyncworker.mapreduce.catalogue import from_callables
from asyncworker.mapreduce.job import CHUNK_BYTES
from asyncworker.mapreduce.sources.source import Partition
from asyncworker.mapreduce.straggler import LATE, LEAST_S, overdue, tame
from asyncworker.queue.brokers.memory import MemoryBroker
from asyncworker.queue.codec import pack_call
from asyncworker.queue.context import Context
from asyncworker.queue.job import Found, State, child_id
from tests.support.mapreduce import Fleet

PATIENCE = 20.0


def ran(items: int, seconds: float) -> Found:
    return Found("a", State.RUNNING, started_s=1000 - seconds, payload=pack_call("m", (Partition(0, items),), {}))


def test_late_is_who_runs_longer_than_what_others_cost():
    costs = [(2.0, 100), (1.0, 50), (100.0, 100)]  # 20 ms an item; one that was slow itself does not count
    late, in_time = ran(100, LATE * 2 + 0.1), ran(200, LATE * 2 + 0.1)
    assert overdue([late, in_time], costs, 1000) == [late]
    assert overdue([ran(1, LEAST_S - 0.1)], costs, 1000) == []
    assert overdue([late], [], 1000) == []
    assert overdue([ran(0, 2.5), late := ran(0, 3.1)], costs, 1000) == [late], "uncounted ones are compared as a whole"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(straggler, "LEAST_S", 0.05)
    monkeypatch.setattr(straggler, "LATE", 0.0)
    monkeypatch.setattr(straggler, "LATER", 1e9)
    monkeypatch.setattr(straggler, "LOOK_S", 0.02)


@asynccontextmanager
async def tamed(broker: MemoryBroker, job_id: str) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(tame(broker, job_id))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def stuck(slow: Fleet, items: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while slow.collect.mapped < items:
            await asyncio.sleep(0)


@pytest.mark.usefixtures("at_once")
async def test_a_worker_that_never_ends_holds_nobody_up_and_its_part_counts_once():
    broker = MemoryBroker()
    slow, quick = Fleet(broker), Fleet(broker)
    quick.collect.gate("for ever").set()
    items = [*range(25), {"await": "for ever"}, *range(26, 30)]
    async with slow.working(queues={"default": 3}, concurrency=3):
        job_id = await slow.sealed(items)
        await stuck(slow, 26)
        async with quick.working(), tamed(broker, job_id) as taming, asyncio.timeout(PATIENCE):
            state, record = await quick.end(job_id)
            await taming
    assert state is State.SUCCEEDED
    assert record.value["final_result"]["items"] == items
    assert record.value["total_processed"] == 30
    assert record.value["partitions_processed"] == 3
    assert quick.collect.mapped <= 10
    depth = (await broker.depth(["default"])).queues["default"]
    assert (depth.succeeded, depth.queued) == (4, 0)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_workers_look_after_a_job_whose_submitter_has_gone(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, namespace: str, kind: str
) -> None:
    monkeypatch.setattr(mapper, "TAMING_S", 0.02)
    url = "memory://" if kind == "memory" else request.getfixturevalue("redis_url")
    broker = registry.find("broker", kind).open(url, namespace=namespace)
    slow, quick = Fleet(broker), Fleet(broker)
    quick.collect.gate("for ever").set()
    items = [*range(5), {"await": "for ever"}, *range(6, 10)]
    try:
        for speculate in (True, False):
            mapped = slow.collect.mapped
            async with slow.working(queues={"default": 2}, concurrency=2):
                job_id = await slow.sealed(items, partition_size=5, speculate=speculate)
                await stuck(slow, mapped + 6)
                async with quick.working(), asyncio.timeout(PATIENCE):
                    if speculate:
                        assert (await quick.end(job_id))[1].value["final_result"]["items"] == items
                    else:
                        await broker.wait([job_id], 0.3)
                        assert await broker.running(job_id) == [child_id(job_id, 1)]
            await broker.cancel(job_id)
    finally:
        await broker.close()


@pytest.mark.usefixtures("at_once")
async def test_a_large_result_of_a_copy_is_found_where_it_lies():
    broker = MemoryBroker()
    slow, quick = Fleet(broker), Fleet(broker)
    quick.collect.gate("for ever").set()
    items = ["x" * (CHUNK_BYTES // 2)] * 3 + [{"await": "for ever"}, 1, 2]
    async with slow.working(queues={"default": 2}, concurrency=2):
        job_id = await slow.sealed(items, partition_size=4)
        await stuck(slow, 6)
        async with quick.working(), tamed(broker, job_id), asyncio.timeout(PATIENCE):
            _, record = await quick.end(job_id)
    assert record.value["final_result"]["items"] == items


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("later", [0.0, 1e9])
async def test_while_partitions_wait_one_is_copied_that_is_very_late(
    monkeypatch: pytest.MonkeyPatch, later: float
) -> None:
    monkeypatch.setattr(straggler, "LATER", later)
    broker = MemoryBroker()
    slow, other = Fleet(broker), Fleet(broker)
    async with slow.working(queues={"default": 2}, concurrency=2):
        job_id = await slow.sealed([1, *[{"await": "a"}] * 3], partition_size=1)
        await stuck(slow, 3)
        async with tamed(broker, job_id), asyncio.timeout(PATIENCE):
            for _ in range(5):
                await broker.wait([job_id], 0.03)
            depth = (await broker.depth(["default"])).queues["default"]
            assert depth.queued == (2 if later == 0 else 1)
            other.collect.gate("a").set()
            slow.collect.gate("a").set()
            async with other.working():
                assert (await slow.end(job_id))[1].value["total_processed"] == 4


@pytest.mark.usefixtures("at_once")
async def test_effects_of_a_partition_that_two_do_come_about_once(postgres_dsn: str):
    begun, gate = asyncio.Event(), asyncio.Event()
    connections = [await asyncpg.connect(postgres_dsn) for _ in range(2)]
    await connections[0].execute("CREATE TABLE sent (item int)")

    def sender(own: Any, *, stalls: bool) -> Any:
        lock = asyncio.Lock()

        async def send(item: int, params: Any, ctx: Context) -> int:
            async with lock, ctx.effect(own, key=f"item {item}") as first:
                if first:
                    await own.execute("INSERT INTO sent VALUES ($1)", item)
            if stalls and item == 7:
                begun.set()
                await gate.wait()
            return item

        return from_callables(send)

    broker = MemoryBroker()
    slow = Fleet(broker, send=sender(connections[0], stalls=True))
    quick = Fleet(broker, send=sender(connections[1], stalls=False))
    try:
        async with slow.working(), asyncio.timeout(PATIENCE):
            job_id = await slow.sealed(range(10), "send", partition_size=5)
            await begun.wait()
            async with quick.working(), tamed(broker, job_id):
                state, record = await quick.end(job_id)
        assert state is State.SUCCEEDED
        assert record.value["final_result"] == list(range(10))
        sent = await connections[0].fetch("SELECT item FROM sent ORDER BY item")
        assert [row["item"] for row in sent] == list(range(10))
    finally:
        gate.set()
        for connection in connections:
            await connection.close()


async def test_who_looks_after_a_job_that_nobody_knows_ends():
    await asyncio.wait_for(tame(MemoryBroker(), "0" * 26), PATIENCE)

"""What an engine is given to watch is on `/metrics`, with what it decided about itself."""

from __future__ import annotations

import asyncio
from typing import Any

from asyncworker import AsyncBatchProcessor, ConnectionPoolOptimizer, Engine
from asyncworker.daemon.process import ProcessMetrics
from asyncworker.tune.decisions import Decides
from asyncworker.tune.drivers.postgresql import PostgresqlDriver
from bench.control.pool_double import PostgresPool, guarded_asyncpg


def numbers(engine: Engine) -> dict[Any, float]:
    metrics = ProcessMetrics(engine, None)
    try:
        return metrics.read().numbers
    finally:
        metrics.close()


async def test_a_watched_pool_tells_its_size_and_why() -> None:
    engine = Engine()
    driver = PostgresqlDriver(lambda: guarded_asyncpg(PostgresPool(4, connect_s=0.0)), 4)
    pool = engine.watch(ConnectionPoolOptimizer(driver, name="shop", min_size=1, max_size=4))
    assert isinstance(pool, Decides)
    async with pool, pool.acquire():
        pool.decisions.add("shop", 1, 3, "3 wait")
        found = numbers(engine)
        assert found["concurrency_limit", ("shop",)] == 1
        assert found["concurrency_inflight", ("shop",)] == 1
        assert found["pool_connections", ("shop", "used")] == 1
    assert pool.completed == 1
    assert numbers(engine)["optimizer_decisions_total", ("shop", "n wait")] == 1
    assert [one.because for one in engine.optimizer.decisions] == ["3 wait"]
    await engine.close()


async def test_a_batch_task_tells_its_size_under_its_own_name() -> None:
    engine = Engine()

    @engine.batch(max_size=7)
    async def store(rows: list[int]) -> None:
        await asyncio.sleep(0)

    assert not any(name == "batch_size" for name, _ in numbers(engine))
    await store(1)
    assert 1 <= numbers(engine)["batch_size", ("store",)] <= 7
    assert not isinstance(AsyncBatchProcessor(lambda rows: None), Decides)
    await engine.close()


def test_what_alerts_ask_for_is_told_before_its_first_event() -> None:
    found = numbers(Engine())
    assert found["partitions_total", ("failed",)] == found["partitions_total", ("succeeded",)] == 0

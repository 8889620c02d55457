"""PostgreSQL to PostgreSQL over Redis, while a worker is killed three times with work in its hands."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
import redis.asyncio

from asyncworker import Engine
from asyncworker.mapreduce.job import REDUCE_TASK

ROOT = Path(__file__).resolve().parents[2]
ROWS = 200_000
KILLS = 3
LEASE_S = 1.5
RULES: dict[str, Any] = {
    "required_fields": ["id", "name", "email0"],
    "type_validations": {"id": "int", "name": "str", "age": "int", "score": "number"},
    "range_validations": {"age": {"min": 0, "max": 120}, "score": {"min": 0, "max": 100}},
    # So many patterns that there is work left for each of the three deaths.
    "pattern_validations": {f"email{n}": r"[a-z0-9._%+-]+@[a-z0-9.-]+\.[a-z]{2,}" for n in range(16)},
}


def row(number: int) -> tuple[str, int, str]:
    """Return row *number*: indexes with gaps, negative ones among them; one row in 7 breaks one rule or more."""
    data: dict[str, Any] = {
        "id": number,
        "name": f"name {number}",
        "age": number % 100,
        "score": number % 101 / 1.01,
        **dict.fromkeys(RULES["pattern_validations"], f"u{number}@example.org"),
    }
    if number % 7 == 0:
        data["age"] = 500
    if number % 49 == 0:
        del data["name"]
    return "ds_with_partition_0", 3 * number - 1000 + number % 2, msgspec.json.encode(data).decode()


async def fill(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "CREATE TABLE dataset_items (dataset_id text, item_index bigint, data jsonb,"
            " PRIMARY KEY (dataset_id, item_index))"
        )
        await connection.copy_records_to_table("dataset_items", records=map(row, range(ROWS)))
    finally:
        await connection.close()


class WorkerProcess:
    """A worker of its own process."""

    def __init__(self, url: str) -> None:
        self._program = ["-m", "asyncworker", "worker", "--broker", url, "--lease", f"{LEASE_S}s", "--no-color"]

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._program,
            cwd=ROOT,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def worker_process(url: str) -> AsyncIterator[WorkerProcess]:
    worker = WorkerProcess(url)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.end()


async def holds_work(client: redis.asyncio.Redis, engine: Engine, pid: int) -> bool:
    """Return whether the worker with this pid has claimed something that it has not settled."""
    for epoch, card in (await engine.broker.depth([])).workers.items():
        if card.pid == pid:
            return await client.hlen(f"{{{engine.namespace}:0}}:a:{epoch}") > 1
    return False


@pytest.mark.timeout(180)
async def test_each_row_counts_once_though_a_worker_is_killed_three_times(
    fresh_redis_url: str, postgres_dsn: str
) -> None:
    await fill(postgres_dsn)
    client = redis.asyncio.Redis.from_url(fresh_redis_url)
    async with (
        worker_process(fresh_redis_url),
        worker_process(fresh_redis_url) as victim,
        Engine(fresh_redis_url, database=postgres_dsn, lease=LEASE_S) as engine,
    ):
        params = {"validation_rules": RULES}
        job = await engine.map_reduce(
            "ds_with_partition_0", "data_validation", params=params, partition_size=1000, speculate=False
        )
        for _ in range(KILLS):
            async with asyncio.timeout(60):
                while True:
                    victim.send(signal.SIGSTOP)  # what it holds now, it holds when it dies
                    if await holds_work(client, engine, victim.process.pid):
                        break
                    victim.send(signal.SIGCONT)
                    assert not (await job.status()).state.terminal, "the job was over before the last kill"
                    await asyncio.sleep(0.01)
            victim.send(signal.SIGKILL)
            await victim.process.wait()
            await victim.start()
        summary = await job.result(timeout=120)
        depth = await engine.broker.depth(["cpu_intensive"])
    await client.aclose()

    connection = await asyncpg.connect(postgres_dsn)
    try:
        expected = await connection.fetchrow(
            """SELECT count(*) AS n, count(*) FILTER (WHERE (data->>'age')::int <= 120 AND data ? 'name') AS valid,
                      count(*) FILTER (WHERE (data->>'age')::int > 120) AS old,
                      count(*) FILTER (WHERE NOT data ? 'name') AS nameless FROM dataset_items"""
        )
        results = await connection.fetch("SELECT * FROM distributed_processing_results")
    finally:
        await connection.close()
    assert expected["n"] == ROWS
    final = summary["final_result"]
    assert (summary["total_processed"], final["valid_count"]) == (ROWS, expected["valid"])
    assert final["invalid_count"] == ROWS - expected["valid"]
    assert final["error_count"] == 0
    assert summary["partitions_processed"] == ROWS // 1000
    assert [result["job_id"] for result in results] == [job.id], "one job has one result row"
    assert msgspec.json.decode(results[0]["result_data"])["final_result"] == final
    counted = depth.queues["cpu_intensive"]
    assert counted.redelivered >= KILLS, "nobody died with work in hand"
    assert counted.succeeded == ROWS // 1000 + 1, f"each partition and {REDUCE_TASK} end once"

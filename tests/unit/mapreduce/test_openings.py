"""Databases stay open between partitions, for a while; files do not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from asyncworker.mapreduce import openings
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.openings import Openings
from asyncworker.mapreduce.sources.postgresql import CONNECTIONS
from tests.support.datasets import all_pairs, all_partitions
from tests.support.mapreduce import Fleet

PATIENCE = 20.0


async def connections(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        count: int = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        return count
    finally:
        await connection.close()


async def table(dsn: str) -> str:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS opened AS SELECT n AS id FROM generate_series(1, 5) AS n")
    finally:
        await connection.close()
    return f"{dsn}?table=opened&key=id"


async def test_all_who_read_from_a_database_share_its_connections(postgres_dsn: str) -> None:
    url, kept = await table(postgres_dsn), Openings()
    other = url.replace("opened", "public.opened")
    async with kept.open(url) as one, kept.open(url) as two, kept.open(other) as three:
        assert one is two
        assert three is not one
        partitions = await all_partitions(one, 1)
        reads = [all_pairs(source, partitions) for source in (one, two, three)]
        assert [len(pairs) for pairs in await asyncio.gather(*reads)] == [5, 5, 5]
        assert await connections(postgres_dsn) == CONNECTIONS
    async with kept.open(url) as again:
        assert again is one
    await kept.close()
    assert await connections(postgres_dsn) == 0


async def test_one_partition_that_fails_takes_no_connection_from_others(postgres_dsn: str) -> None:
    url, kept = await table(postgres_dsn), Openings()
    async with kept.open(url) as one:
        partitions = await all_partitions(one, 3)
        lists = one.read(partitions[0])
        assert len(await anext(lists)) == 3
        with pytest.raises(ZeroDivisionError):
            async with kept.open(url):
                _ = 1 / 0
        assert [pairs async for pairs in lists] == []
        assert len(await all_pairs(one, partitions)) == 5
    await kept.close()


async def test_what_nobody_reads_is_closed_after_a_while(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openings, "IDLE_S", 0.01)
    url, kept = await table(postgres_dsn), Openings()
    async with kept.open(url) as source:
        await all_partitions(source, 9)
    async with asyncio.timeout(PATIENCE):
        while await connections(postgres_dsn):
            await asyncio.sleep(0.01)
    async with kept.open(url) as another:
        assert another is not source
    await kept.close()


async def test_files_are_opened_anew(tmp_path: Path) -> None:
    path, kept = tmp_path / "rows.jsonl", Openings()
    path.write_text("1\n")
    async with kept.open(str(path)) as one, kept.open(str(path)) as two:
        assert one is not two
    await kept.close()


async def test_what_one_left_is_lent_to_one_that_reads_from_there(postgres_dsn: str) -> None:
    url, kept = await table(postgres_dsn), Openings()
    first, second, third = (open_source(url) for _ in range(3))
    assert len(await all_partitions(first, 1)) == 5
    await kept.leave(first)
    kept.lend(second)
    kept.lend(third)
    assert second.database is first.database is not third.database  # type: ignore[attr-defined]  # PostgreSQL has one
    assert len(await all_partitions(second, 1)) == 5
    assert await connections(postgres_dsn) == 1
    await kept.leave(second)
    await third.close()
    await kept.close()
    assert await connections(postgres_dsn) == 0


async def test_few_are_kept_and_not_for_long(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url, kept = await table(postgres_dsn), Openings()
    for _ in range(5):
        source = open_source(url)
        await all_partitions(source, 9)
        await kept.leave(source)
    async with asyncio.timeout(PATIENCE):
        while await connections(postgres_dsn) > openings.MOST_LEFT:
            await asyncio.sleep(0.01)
    monkeypatch.setattr(openings, "IDLE_S", 0.01)
    await kept.leave(open_source(url))
    async with asyncio.timeout(PATIENCE):
        while await connections(postgres_dsn):
            await asyncio.sleep(0.01)
    await kept.close()


async def test_results_go_through_the_connections_of_who_reads(postgres_dsn: str) -> None:
    url, kept = await table(postgres_dsn), Openings()
    row: Any = {"job_id": "r", "dataset_id": "d", "processing_function": "f", "total_processed": 1, "success_rate": 1.0}
    async with kept.results(url) as table_:
        await table_.save(row | {"completed_at": 0.0})
    assert await connections(postgres_dsn) == 0, "it had one of its own"
    async with kept.open(url) as source:
        await all_partitions(source, 9)
    async with kept.results(url) as table_:
        await table_.save(row | {"completed_at": 1.0})
    assert await connections(postgres_dsn) == 1
    async with kept.open(url) as source:
        assert len(await all_partitions(source, 1)) == 5, "it is still open"
    await kept.close()
    assert await connections(postgres_dsn) == 0


async def test_a_source_is_left_once_its_job_is_sealed(postgres_dsn: str) -> None:
    url, fleet = await table(postgres_dsn), Fleet()
    await fleet.sealed(url, partition_size=1, in_flight=9)
    assert await connections(postgres_dsn) == 1
    await fleet.openings.close()
    _, feeding = await fleet.submit(url, partition_size=1, in_flight=1)  # nobody works: it waits for its turn
    feeding.cancel()
    await asyncio.wait([feeding])
    assert await connections(postgres_dsn) == 0, "it may still be cut"
    await fleet.openings.close()
    await fleet.broker.close()

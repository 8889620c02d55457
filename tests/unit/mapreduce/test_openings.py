"""Databases stay open between partitions, for a while; files do not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from asyncworker.mapreduce import openings
from asyncworker.mapreduce.openings import Openings
from tests.support.datasets import all_pairs, all_partitions

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


async def test_what_was_given_back_is_taken_again_and_closed_in_the_end(postgres_dsn: str) -> None:
    url, kept = await table(postgres_dsn), Openings()
    one, two = kept.take(url), kept.take(url)
    assert one is not two
    assert len(await all_pairs(one, await all_partitions(one, 9))) == 5
    await kept.give(url, one)
    assert kept.take(url) is one
    assert await connections(postgres_dsn) == 1
    await kept.give(url, one)
    await kept.give(url, two)
    await kept.close()
    assert await connections(postgres_dsn) == 0


async def test_what_nobody_takes_is_closed_after_a_while(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openings, "IDLE_S", 0.01)
    url, kept = await table(postgres_dsn), Openings()
    source = kept.take(url)
    await all_partitions(source, 9)
    await kept.give(url, source)
    async with asyncio.timeout(PATIENCE):
        while await connections(postgres_dsn):
            await asyncio.sleep(0.01)
    assert kept.take(url) is not source
    await kept.close()


async def test_files_are_opened_anew(tmp_path: Path) -> None:
    path, kept = tmp_path / "rows.jsonl", Openings()
    path.write_text("1\n")
    source = kept.take(str(path))
    await kept.give(str(path), source)
    assert kept.take(str(path)) is not source
    await kept.close()

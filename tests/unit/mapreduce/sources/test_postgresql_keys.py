"""Tables by keys of any kind that sorts, and tables without one, by their pages."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from asyncworker.errors import SourceError
from asyncworker.mapreduce.dataset import open_source
from tests.support.datasets import all_pairs, all_partitions, pairs_of, unique
from tests.support.mapreduce import Fleet

KEYS = {
    "numeric": "(n - 5) * 1.5",
    "float8": "(n - 5) / 3.0::float8",
    "float4": "(n - 5)::float4",
    "date": "'2024-02-27'::date + n",
    "timestamp": "'1999-12-31 23:00'::timestamp + n * '17 min 1 us'::interval",
    "timestamptz": "'2024-03-31 00:00+00'::timestamptz + n * '17 min'::interval",
}


async def make(dsn: str, definition: str) -> str:
    name = unique("keyed")
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(definition.format(name))
    finally:
        await connection.close()
    return name


@pytest.mark.parametrize("kind", KEYS)
async def test_a_key_of_any_kind_that_sorts(each_postgres_dsn: str, kind: str) -> None:
    rows = f"SELECT ({KEYS[kind]})::{kind} AS k, n FROM generate_series(0, 2499) AS n"
    name = await make(each_postgres_dsn, f"CREATE TABLE {{}} AS {rows} ORDER BY random()")
    pairs = await pairs_of(f"{each_postgres_dsn}?table={name}&key=k", 700)
    assert [item["n"] for _, item in pairs] == list(range(2500))
    assert len({key for key, _ in pairs}) == 2500


@pytest.mark.parametrize("size", [1, 700, 10**6])
async def test_a_table_without_a_key_is_read_by_its_pages(each_postgres_dsn: str, size: int) -> None:
    count = 5000
    name = await make(each_postgres_dsn, "CREATE TABLE {} AS SELECT n, 'x' AS pad FROM generate_series(1, 5000) AS n")
    source = open_source(f"{each_postgres_dsn}?table={name}&key=ctid")
    partitions = await all_partitions(source, size)
    pairs = await all_pairs(source, partitions)
    await source.close()
    assert sorted(item["n"] for _, item in pairs) == list(range(1, count + 1))
    assert len({key for key, _ in pairs}) == count
    assert (len(partitions) == 1) == (size > count)
    assert source.columns == ("n", "pad")


async def test_pages_that_are_empty_are_no_error_and_whole_jobs_come_out(postgres_dsn: str) -> None:
    name = await make(postgres_dsn, "CREATE TABLE {} AS SELECT n FROM generate_series(1, 3000) AS n")
    connection = await asyncpg.connect(postgres_dsn)
    try:
        await connection.execute(f"DELETE FROM {name} WHERE n <= 1500 OR n % 2 = 0")
    finally:
        await connection.close()
    summary = await Fleet().summary(f"{postgres_dsn}?table={name}&key=ctid", partition_size=100)
    assert sorted(item["n"] for item in summary["final_result"]["items"]) == list(range(1501, 3000, 2))
    assert summary["total_processed"] == 750


async def test_an_empty_table_has_no_pages(postgres_dsn: str) -> None:
    name = await make(postgres_dsn, "CREATE TABLE {} (n int)")
    assert await pairs_of(f"{postgres_dsn}?table={name}&key=ctid") == []


@pytest.mark.parametrize(
    ("definition", "key", "said"),
    [
        ("CREATE VIEW {} AS SELECT 1 AS n", "ctid", "only a plain table has pages"),
        ("CREATE TABLE {} (n int) PARTITION BY RANGE (n)", "ctid", "only a plain table has pages"),
        ("CREATE TABLE {} (n point)", "n", "a number, text, date or uuid is needed"),
    ],
)
async def test_what_cannot_be_read_so_is_told(postgres_dsn: str, definition: str, key: str, said: str) -> None:
    name = await make(postgres_dsn, definition)
    source: Any = open_source(f"{postgres_dsn}?table={name}&key={key}")
    with pytest.raises(SourceError, match=said):
        await all_partitions(source, 10)
    await source.close()

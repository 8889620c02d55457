"""Tables by keys of any kind that sorts, and tables without one, by their pages."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from asyncworker.errors import SourceError
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.sources import postgresql
from asyncworker.mapreduce.sources.source import BadItem
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


KINDS = KEYS | {"int4": "n - 5", "text": "chr(97 + n % 26) || n", "uuid": "md5(n::text)"}


@pytest.mark.parametrize("kind", KINDS)
async def test_walking_along_an_index_cuts_as_sorting_does(each_postgres_dsn: str, kind: str) -> None:
    for count in (0, 1, 6, 1000):
        rows = f"SELECT ({KINDS[kind]})::{kind} AS k, n FROM generate_series(1, {count}) AS n ORDER BY random()"
        name = await make(each_postgres_dsn, f"CREATE TABLE {{0}} AS {rows}; CREATE TABLE {{0}}_i AS TABLE {{0}}")
        await make(each_postgres_dsn, f"ALTER TABLE {name}_i ADD PRIMARY KEY (k)")
        sorted_, walked = (open_source(f"{each_postgres_dsn}?table={each}&key=k") for each in (name, f"{name}_i"))
        for size in (1, 2, 3, 400, 5000):
            partitions = await all_partitions(sorted_, min(count, size) or 1)
            assert await all_partitions(walked, min(count, size) or 1) == partitions
            assert sum(partition.items for partition in partitions) == count
        assert await all_pairs(walked, partitions) == await all_pairs(sorted_, partitions)
        await sorted_.close()
        await walked.close()


FIRM = "ALTER TABLE {0} ALTER k SET NOT NULL; "


@pytest.mark.parametrize(
    "index",
    [
        FIRM + "CREATE UNIQUE INDEX ON {0} (k) WHERE k > 3",
        FIRM + "CREATE UNIQUE INDEX ON {0} ((k + 1))",
        "ALTER TABLE {0} ADD PRIMARY KEY (k) DEFERRABLE",
        "ALTER TABLE {0} ADD PRIMARY KEY (k); CREATE TABLE {0}_child () INHERITS ({0}); INSERT INTO {0}_child VALUES (8), (9)",
    ],
)
async def test_an_index_that_knows_only_some_rows_is_passed_over(postgres_dsn: str, index: str) -> None:
    name = await make(postgres_dsn, f"CREATE TABLE {{0}} AS SELECT generate_series(1, 7) AS k; {index}")
    keys = [key for key, _ in await pairs_of(f"{postgres_dsn}?table={name}&key=k", 3)]
    assert keys == list(range(1, 10 if "child" in index else 8))


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("CREATE UNIQUE INDEX ON {0} (k); INSERT INTO {0} VALUES (NULL, 8)", "is NULL in some rows"),
        (FIRM + "CREATE UNIQUE INDEX ON {0} (k, n); INSERT INTO {0} VALUES (7, 8)", "has values twice"),
        (FIRM + "CREATE INDEX ON {0} (k); INSERT INTO {0} VALUES (7, 8)", "has values twice"),
    ],
)
async def test_an_index_that_does_not_tell_rows_apart_is_no_help(postgres_dsn: str, index: str, said: str) -> None:
    name = await make(postgres_dsn, f"CREATE TABLE {{0}} AS SELECT n AS k, n FROM generate_series(1, 7) AS n; {index}")
    with pytest.raises(SourceError, match=said):
        await pairs_of(f"{postgres_dsn}?table={name}&key=k")


async def test_items_that_cannot_be_read_stand_alone_among_those_fetched_with_them(postgres_dsn: str) -> None:
    schema = await make(postgres_dsn, "CREATE SCHEMA {}")
    await make(
        postgres_dsn,
        f"CREATE TABLE {schema}.dataset_items AS SELECT 'x' AS dataset_id, n AS item_index, "
        f"CASE WHEN n IN (700, 1900) THEN '1e999'::json ELSE to_json(n) END AS data FROM generate_series(1, 2500) AS n",
    )
    pairs = await pairs_of(f"{postgres_dsn}?dataset=x&search_path={schema}", 2000)
    assert [key for key, _ in pairs] == list(range(1, 2501))
    broken = [(key, value) for key, value in pairs if value != key]
    assert [key for key, _ in broken] == [700, 1900]
    assert all(isinstance(value, BadItem) for _, value in broken)


async def test_partitions_are_given_before_all_are_cut(postgres_dsn: str) -> None:
    name = await make(
        postgres_dsn, "CREATE TABLE {0} AS SELECT generate_series(1, 3001) AS k; ALTER TABLE {0} ADD PRIMARY KEY (k)"
    )
    source = open_source(f"{postgres_dsn}?table={name}&key=k")
    partitions = source.partitions(2)
    first = await anext(partitions)
    assert (first.items, first.span, source.left) == (2, (1, 2), None)
    rest = [partition async for partition in partitions]
    assert [partition.index for partition in rest] == list(range(1, 1501))
    assert (rest[-1].items, rest[-1].span, source.left) == (1, (3001, 3001), 0)
    await source.close()


async def test_a_cut_that_fails_on_its_way_is_told(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "MOST_CUT", 1)  # so that it takes longer than to end it
    name = await make(
        postgres_dsn, "CREATE TABLE {0} AS SELECT generate_series(1, 50000) AS k; ALTER TABLE {0} ADD PRIMARY KEY (k)"
    )
    source = open_source(f"{postgres_dsn}?table={name}&key=k")
    partitions = source.partitions(1)
    await anext(partitions)
    await make(
        postgres_dsn,
        "SELECT '{0}', pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    with pytest.raises(SourceError):
        _ = [partition async for partition in partitions]
    await source.close()

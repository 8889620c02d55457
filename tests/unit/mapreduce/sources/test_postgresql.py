"""What PostgreSQL alone has: keys of all kinds, one snapshot, names that are no names, and a server that is gone."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
import uuid
from typing import Any
from urllib.parse import urlencode

import pytest

from asyncworker.errors import EmptyDataset, SourceError
from asyncworker.mapreduce import database
from asyncworker.mapreduce.dataset import open_sink, open_source
from asyncworker.mapreduce.sources.source import BadItem
from tests.support.datasets import all_pairs, all_partitions, connected, fill, pairs_of, unique
from tests.support.injections import INJECTIONS

DATASETS = "dataset_id text, item_index bigint, data jsonb"


async def refused(thing: str, match: str, error: type[SourceError] = SourceError) -> None:
    with pytest.raises(error, match=match):
        await pairs_of(thing)


async def made(dsn: str, columns: str, rows: list[tuple[Any, ...]], name: str = "") -> str:
    """Make a table; returns its name."""
    name = name or unique("table")
    async with connected(dsn) as connection:
        await connection.execute(f"CREATE TABLE {name} ({columns})")
        if rows:
            await connection.copy_records_to_table(name, records=rows)
    return name


@pytest.fixture
async def dataset(each_postgres_dsn: str) -> str:
    """An empty dataset's URL on each server; its name is not easy."""
    await fill(each_postgres_dsn, "another", ["of another dataset"] * 3)
    return f"{each_postgres_dsn}?{urlencode({'dataset': unique('a_b&c=d')})}"


async def put(url: str, indexes: list[int]) -> None:
    dsn, name = url.partition("?")[0], open_source(url)._dataset
    async with connected(dsn) as connection:
        await connection.executemany(
            "INSERT INTO dataset_items VALUES ($1, $2, to_jsonb($2::int8))", [(name, index) for index in indexes]
        )


@pytest.mark.parametrize(
    "indexes",
    [[0, 1, 7, 10**6], list(range(1, 26)), list(range(-20, 5)), [-(2**63), -1, 0, 2**63 - 1], [5]],
    ids=["gaps", "from one", "negative", "extreme", "one"],
)
async def test_s01_each_row_of_the_dataset_is_read_once(dataset: str, indexes: list[int]):
    await put(dataset, indexes)
    for size in (1, 2, 3, 10, 100):
        partitions = await all_partitions(source := open_source(dataset), size)
        await source.close()
        assert [part.items for part in partitions] == [
            min(size, len(indexes) - at) for at in range(0, len(indexes), size)
        ]
        assert await pairs_of(dataset, size) == [(index, index) for index in indexes]


async def test_s01_rows_that_come_and_go_after_the_cut_do_no_harm(dataset: str):
    await put(dataset, list(range(10, 110, 10)))
    source = open_source(dataset)
    partitions = await all_partitions(source, 5)
    await put(dataset, [1, 55, 200])
    async with connected(dataset.partition("?")[0]) as connection:
        await connection.execute("DELETE FROM dataset_items WHERE item_index = 40 AND dataset_id = $1", source._dataset)
    assert [key for key, _ in await all_pairs(source, partitions)] == [10, 20, 30, 50, 60, 70, 80, 90, 100]
    await source.close()


async def test_s01_random_keys_are_cut_without_loss(postgres_dsn: str):
    for seed in range(8):
        dice = random.Random(seed)
        indexes = sorted(dice.sample(range(-500, 3000), dice.randrange(1, 2500)))
        url = f"{postgres_dsn}?dataset={unique('random')}"
        await fill(postgres_dsn, "x", [])
        await put(url, indexes)
        assert await pairs_of(url, dice.randrange(1, 2000)) == [(index, index) for index in indexes]


@pytest.mark.parametrize(
    "name",
    [
        "dataset_001_partition_0",
        "a_b_c",
        "it's",
        'say "hi"',
        "日本語 🙂",
        "%_*",
        "../x",
        "a?b=c&d#e",
        "x" * 5000,
        "$1;--",
    ],
)
async def test_s02_a_dataset_is_found_by_whatever_id_it_has(postgres_dsn: str, name: str):
    await fill(postgres_dsn, name, [{"id": name}] * 3)
    assert await pairs_of(name, 2, database=postgres_dsn) == [(index, {"id": name}) for index in range(3)]


async def test_s02_a_partition_that_lost_all_its_rows_is_an_error(postgres_dsn: str):
    await fill(postgres_dsn, "lost", [1, 2, 3])
    source = open_source(f"{postgres_dsn}?dataset=lost")
    partitions = await all_partitions(source, 2)
    async with connected(postgres_dsn) as connection:
        await connection.execute("DELETE FROM dataset_items WHERE dataset_id = 'lost' AND item_index < 2")
    with pytest.raises(SourceError, match="nothing is left of the 2 rows"):
        await all_pairs(source, partitions)
    await source.close()


async def test_s03_a_server_that_is_down_is_an_error_and_not_an_empty_dataset(tmp_path: Any):
    await refused(f"postgresql://me:s3cret@/db?host={tmp_path}&dataset=x", "cannot be reached")
    await refused("postgresql://me:s3cret@127.0.0.1:1/db?table=t&key=id", r"me:\*\*\*@.*cannot be reached")


async def test_s03_a_dataset_without_rows_is_told_apart_from_an_empty_table(postgres_dsn: str):
    await fill(postgres_dsn, "some", [1])
    await refused(f"{postgres_dsn}?dataset=none", "the dataset 'none' has no rows in dataset_items", EmptyDataset)
    table = await made(postgres_dsn, "id int", [])
    assert await pairs_of(f"{postgres_dsn}?table={table}&key=id") == []


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("smallint", [-32768, 0, 5, 32767]),
        ("integer", [-(2**31), 7, 2**31 - 1]),
        ("bigint", [-(2**63), 0, 2**63 - 1]),
        ("text", ["", " ", "A", "a", "a'b", "b", "zebra", "é", "日本"]),
        ('text COLLATE "ucs_basic"', ["A", "B", "a", "é"]),
        ("varchar(20)", ["1", "10", "2"]),
        ("uuid", sorted(uuid.UUID(int=number * 2**64) for number in (1, 9, 10, 2**60))),
    ],
)
async def test_keys_may_be_of_these_kinds(each_postgres_dsn: str, kind: str, keys: list[Any]):
    table = await made(each_postgres_dsn, f"k {kind} PRIMARY KEY, n int", [(key, at) for at, key in enumerate(keys)])
    for size in (1, 2, 3, 100):
        pairs = await pairs_of(f"{each_postgres_dsn}?table={table}&key=k", size)
        assert [key for key, _ in pairs] == [key if isinstance(key, int) else str(key) for key in keys]
        assert [value["n"] for _, value in pairs] == list(range(len(keys)))


async def test_keys_that_cannot_tell_rows_apart_are_refused(postgres_dsn: str):
    table = await made(postgres_dsn, "id int, at point", [(1, None), (1, None), (2, None), (None, None)])
    url = f"{postgres_dsn}?table={table}"
    await refused(f"{url}&key=id", "is NULL in some rows")
    await refused(f"{url}&key=at", "is of type point: a number, text, date or uuid is needed")
    async with connected(postgres_dsn) as connection:
        await connection.execute(f"DELETE FROM {table} WHERE id IS NULL")
    await refused(f"{url}&key=id", "has values twice")


async def test_a_row_is_a_dict_of_plain_values(each_postgres_dsn: str):
    table = unique("kinds")
    async with connected(each_postgres_dsn) as connection:
        await connection.execute(f"""
            CREATE TABLE {table} AS SELECT 1 AS id, 'é' AS a_text, 1.5::float8 AS a_float, 10::numeric AS whole, 2.50 AS exact,
            'NaN'::numeric AS nan, true AS yes, NULL::int AS nothing, '2013-01-01 10:00:00+00'::timestamptz AS at,
            'infinity'::timestamp AS never, date '2013-02-03' AS day, '\\x0102'::bytea AS bytes, ARRAY[1, 2] AS list,
            '{{"a": [1, null]}}'::jsonb AS json, '00000000-0000-0000-0000-000000000001'::uuid AS uuid,
            '[1,5)'::int4range AS range, '127.0.0.1'::inet AS address, 9007199254740993 AS big
        """)
    ((key, row),) = await pairs_of(f"{each_postgres_dsn}?table={table}&key=id&timezone=UTC")
    assert key == 1
    assert row == {
        "id": 1,
        "a_text": "é",
        "a_float": 1.5,
        "whole": 10,
        "exact": 2.5,
        "nan": "NaN",
        "yes": True,
        "nothing": None,
        "at": "2013-01-01T10:00:00+00:00",
        "never": "infinity",
        "day": "2013-02-03",
        "bytes": "\\x0102",
        "list": [1, 2],
        "json": {"a": [1, None]},
        "uuid": "00000000-0000-0000-0000-000000000001",
        "range": "[1,5)",
        "address": "127.0.0.1",
        "big": 9007199254740993,
    }


@pytest.mark.parametrize("kind", ["json", "text", "varchar"])
async def test_data_may_be_json_or_text_and_be_broken(each_postgres_dsn: str, kind: str):
    schema = unique("other")
    async with connected(each_postgres_dsn) as connection:
        await connection.execute(f"CREATE SCHEMA {schema}")
        await connection.execute(
            f"CREATE TABLE {schema}.dataset_items (dataset_id varchar(9), item_index int, data {kind})"
        )
        rows = [("x", 0, '{"a": 1}'), ("x", 1, None), ("x", 2, "1e999"), ("x", 3, "[]" if kind == "json" else "[")]
        await connection.executemany(f"INSERT INTO {schema}.dataset_items VALUES ($1, $2, $3)", rows)
    values = [value for _, value in await pairs_of(f"{each_postgres_dsn}?dataset=x&search_path={schema}")]
    assert values[:2] == [{"a": 1}, None]
    assert isinstance(values[2], BadItem)
    assert values[3] == [] if kind == "json" else isinstance(values[3], BadItem)


async def test_views_and_mixed_names_can_be_read(postgres_dsn: str):
    async with connected(postgres_dsn) as connection:
        await connection.execute('CREATE SCHEMA "Mixed"; CREATE VIEW "Mixed"."View" AS SELECT 1 AS "Id", 2 AS "select"')
    assert await pairs_of(f"{postgres_dsn}?table=Mixed.View&key=Id") == [(1, {"Id": 1, "select": 2})]


async def test_names_that_are_not_there_are_told_with_the_nearest(postgres_dsn: str):
    table = await made(postgres_dsn, "identity int", [(1,)], "customers")
    await refused(f"{postgres_dsn}?table=custmers&key=id", "no table 'custmers'; did you mean 'customers'")
    await refused(f"{postgres_dsn}?table=nowhere.{table}&key=id", "no table 'nowhere.customers'")
    await refused(f"{postgres_dsn}?table={table}&key=identitty", "no column 'identitty'; did you mean 'identity'")


def test_s59_there_are_enough_injections():
    assert len(set(INJECTIONS)) >= 60


@pytest.mark.parametrize("text", INJECTIONS)
def test_s59_e6_names_with_more_than_a_name_are_refused_before_a_server_is_asked(text: str):
    for options in (
        {"table": text, "key": "id"},
        {"table": "canary", "key": text},
        {"table": f"{text}.t", "key": "id"},
    ):
        with pytest.raises(SourceError, match=r"is no name of a (table|column|schema)"):
            open_source(f"postgresql://localhost/db?{urlencode(options)}")
    with pytest.raises(SourceError, match=r"is no name of a (table|schema)"):
        open_sink(f"postgresql://localhost/db?{urlencode({'table': text})}")


async def test_s59_e6_dataset_ids_are_values_and_nothing_else(postgres_dsn: str):
    canary = await made(postgres_dsn, "id int, password text", [(1, "x")], "canary")
    for text in INJECTIONS:
        await fill(postgres_dsn, text, [text])
        source = open_source(f"{postgres_dsn}?{urlencode({'dataset': text})}")
        assert await all_pairs(source, await all_partitions(source, 1)) == [(0, text)]
        await source.close()
    async with connected(postgres_dsn) as connection:
        assert await connection.fetchval(f"SELECT count(*) FROM {canary}") == 1
        assert await connection.fetchval(
            "SELECT count(*) FROM dataset_items WHERE dataset_id = ANY ($1)", INJECTIONS
        ) == len(set(INJECTIONS))
    with pytest.raises(SourceError):
        await fill(postgres_dsn, "a\0b", [1])


async def test_s59_e6_reading_cannot_write(postgres_dsn: str):
    async with connected(postgres_dsn) as connection:
        await connection.execute("""
            CREATE TABLE written (id int);
            CREATE FUNCTION write() RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO public.written VALUES (1) RETURNING id';
            CREATE VIEW trap AS SELECT write() AS id
        """)
    await refused(f"{postgres_dsn}?table=trap&key=id", "read-only transaction")


async def test_reading_items_writes_nothing_either(postgres_dsn: str):
    async with connected(postgres_dsn) as connection:
        await connection.execute("""
            CREATE TABLE traces (id int);
            CREATE FUNCTION leave_trace() RETURNS int LANGUAGE sql AS $$INSERT INTO public.traces VALUES (1) RETURNING id$$;
            CREATE FUNCTION pretend() RETURNS int STABLE LANGUAGE plpgsql AS $$BEGIN RETURN public.leave_trace(); END$$;
            CREATE VIEW innocent AS SELECT 1 AS id, pretend() AS other
        """)
    source = open_source(f"{postgres_dsn}?table=innocent&key=id")
    (part,) = await all_partitions(source, 10)
    with pytest.raises(SourceError, match="read-only transaction"):
        await all_pairs(source, [part])
    await source.close()


async def test_s59_functions_of_the_users_path_do_not_step_in(postgres_dsn: str):
    async with connected(postgres_dsn) as connection:
        await connection.execute("""
            CREATE SCHEMA evil;
            CREATE TABLE evil.victims AS SELECT 1 AS id;
            CREATE FUNCTION evil.row_to_json(evil.victims) RETURNS json LANGUAGE sql AS $$SELECT '"evil"'::json$$;
            CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$
        """)
    path = urlencode({"search_path": "evil,pg_catalog,public"})
    assert await pairs_of(f"{postgres_dsn}?{path}&table=victims&key=id") == [(1, {"id": 1})]


async def test_a_query_that_takes_too_long_is_ended_and_told(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(database, "STATEMENT_S", 0.1)
    async with connected(postgres_dsn) as connection:
        await connection.execute("CREATE VIEW slow AS SELECT 1 AS id FROM (SELECT pg_sleep(20)) AS s")
    await refused(f"{postgres_dsn}?table=slow&key=id", "statement timeout")


async def test_rights_that_lack_are_told(postgres_dsn: str):
    role = unique("reader")
    async with connected(postgres_dsn) as connection:
        await connection.execute(f"CREATE ROLE {role} LOGIN")
    table = await made(postgres_dsn, "id int", [(1,)])
    url = postgres_dsn.replace("postgres@", f"{role}@")
    await refused(f"{url}?table={table}&key=id", f"permission denied for table {table}; grant this user the right")
    sink = open_sink(f"{url}?table={unique('out')}")
    with pytest.raises(SourceError, match="permission denied for schema public"):
        await sink.write([1])
    await sink.abort()
    await refused(f"{postgres_dsn}_none?dataset=x", "does not exist")
    await refused(f"{url.replace(role, 'nobody_' + role)}?dataset=x", "refuses this user or password|does not exist")


@pytest.mark.parametrize(
    "query",
    ["", "?dataset=a&table=b&key=c", "?table=a", "?key=a", "?dataset=a&dataset=b", "?dataset=a&key=b", "?datasett=a"],
)
def test_a_url_that_does_not_say_what_is_meant_is_refused(query: str):
    with pytest.raises(SourceError):
        open_source(f"postgresql://localhost/db{query}")


def test_our_words_are_kept_from_the_driver():
    parts = database.address("postgres://u:p@h/db?host=/run/x&dataset=a%26b&sslmode=require")
    assert parts.dsn == "postgres://u:p@h/db?host=%2Frun%2Fx&sslmode=require"
    assert parts.label == "postgres://u:***@h/db?dataset=a%26b"
    assert parts.options == {"dataset": "a&b"}


@pytest.mark.parametrize(
    "authority", ["me:s3cret@h:x", "me:s3/cret@h", "me:s3?cret@h", "me:s3#cret@127.0.0.1:1", "me:s3cret@h:1,h2:zz"]
)
async def test_passwords_are_shown_to_nobody(authority: str):
    text = ""
    try:
        source = open_source(f"postgresql://{authority}/db?dataset=a&password=s3cret&sslpassword=s3cret")
        text += source.label
        await all_partitions(source, 1)
    except SourceError as exc:
        text += str(exc) + repr(exc.__cause__)
    assert "***" in text or "s3" not in text
    assert "cret" not in text


async def test_s11_reading_takes_memory_by_list_and_not_by_partition(postgres_dsn: str):
    async with connected(postgres_dsn) as connection:
        await fill(postgres_dsn, "x", [])
        await connection.execute(
            "INSERT INTO dataset_items SELECT 'large', g, jsonb_build_object('id', g, 'text', repeat('x', 500)) "
            "FROM generate_series(1, 20000) AS g"
        )
    source = open_source(f"{postgres_dsn}?dataset=large")
    (partition,) = await all_partitions(source, 100_000)
    tracemalloc.start()
    try:
        total = 0
        async for pairs in source.read(partition):
            total += sum(key for key, _ in pairs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    await source.close()
    assert total == 20_000 * 20_001 // 2
    assert peak < 4 * 2**20 < 20_000 * 500


async def test_a_connection_that_breaks_is_opened_anew(postgres_dsn: str):
    await fill(postgres_dsn, "broken", list(range(10)))
    source = open_source(f"{postgres_dsn}?dataset=broken")
    partitions = await all_partitions(source, 5)
    async with connected(postgres_dsn) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    for _ in range(2):  # the first may still find the old connection, and tell
        try:
            pairs = await all_pairs(source, partitions)
        except SourceError:
            continue
    assert pairs == [(index, index) for index in range(10)]
    await source.close()


async def test_no_transaction_stays_open_while_items_are_mapped(postgres_dsn: str):
    await fill(postgres_dsn, "slowly", list(range(2000)))
    source = open_source(f"{postgres_dsn}?dataset=slowly")
    (partition,) = await all_partitions(source, 5000)
    async with connected(postgres_dsn) as connection:
        async for _ in source.read(partition):
            async with asyncio.timeout(20):  # the next items are fetched meanwhile, and then it ends
                while await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid() AND state <> 'idle'"
                ):
                    await asyncio.sleep(0.01)
    await source.close()


async def test_a_table_keeps_the_rows_of_other_jobs(each_postgres_dsn: str):
    name = unique("out")
    for job, rows in (("a", [1, None]), ("b", [{"x": "é"}]), ("a", [[2], "3"])):
        sink = open_sink(f"{each_postgres_dsn}?table={name}", job)
        await sink.write(rows)
        await sink.commit()
    async with connected(each_postgres_dsn) as connection:
        rows = await connection.fetch(f"SELECT job_id, item_index, data::text FROM {name} ORDER BY 1, 2")
    assert [tuple(row) for row in rows] == [("a", 0, "[2]"), ("a", 1, '"3"'), ("b", 0, '{"x": "é"}')]


async def test_the_same_job_writing_twice_at_once_leaves_one_set_of_rows(postgres_dsn: str):
    name = unique("out")

    async def write(mark: int) -> None:
        sink = open_sink(f"{postgres_dsn}?table={name}", "job")
        for _ in range(3):
            await sink.write([mark] * 50)
        await sink.commit()

    await asyncio.gather(*map(write, range(4)))
    async with connected(postgres_dsn) as connection:
        rows = await connection.fetch(f"SELECT data::text AS mark, count(*) FROM {name} GROUP BY 1")
    assert [row["count"] for row in rows] == [150]


async def test_tables_of_another_form_are_told_and_left_alone(postgres_dsn: str):
    for columns, match in (
        ("id int", "has no column 'job_id'"),
        ("job_id text, item_index int8, data text", "must be jsonb"),
    ):
        sink = open_sink(f"{postgres_dsn}?table={await made(postgres_dsn, columns, [])}", "job")
        with pytest.raises(SourceError, match=match):
            await sink.write([1])
        await sink.abort()


async def test_rows_that_jsonb_cannot_carry_are_told_and_nothing_is_written(postgres_dsn: str):
    await fill(postgres_dsn, "kept", [1])
    for row in (object(), "a\0b"):
        sink = open_sink(f"{postgres_dsn}?dataset=kept")
        await sink.write([2])
        with pytest.raises(SourceError):
            await sink.write([row])
        await sink.abort()
    assert await pairs_of(f"{postgres_dsn}?dataset=kept") == [(0, 1)]


async def test_a_server_that_goes_while_rows_are_written_is_told_and_abort_is_calm(postgres_dsn: str):
    sink = open_sink(f"{postgres_dsn}?dataset=gone")
    await sink.write([1])
    async with connected(postgres_dsn) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises(SourceError):
        await sink.commit()
    await sink.abort()
    await refused(f"{postgres_dsn}?dataset=gone", "has no rows", EmptyDataset)

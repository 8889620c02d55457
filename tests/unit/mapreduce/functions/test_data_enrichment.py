"""Enrichment: from tables, files, services and databases; what is added, counted, and never asked twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from asyncworker.errors import BadParameters, SourceError, UnknownName
from asyncworker.mapreduce.folding import Folding
from asyncworker.mapreduce.functions.data_enrichment import FUNCTION
from asyncworker.mapreduce.functions.function import Holding, Yielding
from tests.support.datasets import connected, unique
from tests.support.web import served


async def enriched(items: list[Any], *lookups: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Enrich items as a partition is; returns the result and the errors of those that failed."""
    work = FUNCTION.prepare({"enrichment_config": {"lookups": list(lookups)}})
    assert isinstance(work, Holding)
    folding = Folding(work, None, 8)
    try:
        await folding.take(list(enumerate(items)))
        await folding.drain()
    finally:
        await work.close()
    return work.finish(folding.acc, folding.failed), [failure.error_text for failure in folding.failures]


async def test_from_a_table_whole_or_by_field() -> None:
    items = [{"c": "UA"}, {"c": "ZZ"}, {"c": ""}, {}, {"c": 7}]
    result, errors = await enriched(
        items,
        {"field": "c", "table": {"UA": "United", "7": "Seven"}, "into": "name", "default": "?"},
        {"field": "c", "name": "more", "table": {"UA": {"n": 1, "m": 2}}, "fields": {"x": "n", "y": "absent"}},
    )
    assert errors == []
    assert result["enriched_items"] == [
        {"c": "UA", "name": "United", "x": 1, "y": None},
        {"c": "ZZ", "name": "?", "x": None, "y": None},
        {"c": "", "name": "?", "x": None, "y": None},
        {"name": "?", "x": None, "y": None},
        {"c": 7, "name": "Seven", "x": None, "y": None},
    ]
    assert result["enrichment_stats"] == {
        "items": 5,
        "failed": 0,
        "lookups": {
            "c": {"found": 2, "not_found": 1, "without_key": 2},
            "more": {"found": 1, "not_found": 2, "without_key": 2},
        },
    }


async def test_lookups_see_what_those_before_them_added() -> None:
    result, _ = await enriched(
        [{"a": "1"}],
        {"field": "a", "table": {"1": "x"}, "into": "b"},
        {"field": "b", "table": {"x": {"deep": [1]}}, "into": "c"},
    )
    assert result["enriched_items"] == [{"a": "1", "b": "x", "c": {"deep": [1]}}]


async def test_what_is_required_and_not_found_fails_its_item() -> None:
    lookup = {"field": "a", "table": {"1": "x", "2": "y"}, "into": "b", "required": True}
    result, errors = await enriched([{"a": "1"}, {"a": "3"}, {}], lookup)
    assert (len(result["enriched_items"]), result["enrichment_stats"]["failed"]) == (1, 2)
    assert errors == ["nothing is found for field 'a'"] * 2


@pytest.mark.parametrize("key", [[1], {"a": 1}, "x" * 2000, "\ud800"])
async def test_s22_what_makes_no_key_fails_its_item_and_is_not_shown(key: Any) -> None:
    _, errors = await enriched([{"a": key}], {"field": "a", "table": {"1": "x"}, "into": "b"})
    assert [error.partition(" is ")[0] for error in errors] == ["field 'a'"]
    assert errors[0].endswith("which makes no key")


async def test_a_scalar_has_no_fields() -> None:
    _, errors = await enriched([{"a": "1"}], {"field": "a", "table": {"1": 5}, "fields": {"b": "c"}})
    assert errors == ["for field 'a' a number is found, which has no fields"]


async def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / f"{unique('airlines')}.csv"
    path.write_text("carrier,name\nUA,United\nAA,American\n")
    items = [{"carrier": code} for code in ("UA", "AA", "ZZ", "UA")]
    lookup = {"field": "carrier", "file": str(path), "key": "carrier", "fields": {"airline": "name"}}
    result, _ = await enriched(items, lookup)
    assert [item["airline"] for item in result["enriched_items"]] == ["United", "American", None, "United"]


async def test_from_a_service_in_the_order_of_the_items_and_each_key_once() -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        key = request.path.rpartition("/")[2]
        asked.append(key)
        await asyncio.sleep(0.001 * (int(key) % 3))
        return web.json_response({"twice": 2 * int(key)}) if key != "13" else web.Response(status=404)

    async with served(answer) as url:
        items = [{"n": number % 20} for number in range(200)]
        lookup = {"field": "n", "url": f"{url}/{{key}}", "fields": {"twice": "twice"}}
        result, errors = await enriched(items, lookup)
        assert errors == []
        expected = [None if number % 20 == 13 else 2 * (number % 20) for number in range(200)]
        assert [item["twice"] for item in result["enriched_items"]] == expected
        assert sorted(asked, key=int) == [str(number) for number in range(20)]
        again, _ = await enriched(items, lookup)
        assert again == result
        assert len(asked) == 20, "the next partition in this process asks nothing anew"


async def test_a_service_that_is_down_fails_items_and_is_soon_left_alone() -> None:
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=500)

    async with served(answer) as url:
        items = [{"n": number} for number in range(100)]
        result, errors = await enriched(items, {"field": "n", "url": f"{url}/{{key}}", "into": "x"})
    assert (result["enrichment_stats"]["failed"], result["enriched_items"]) == (100, [])
    assert set(errors) == {f"{url}/{{key}} answers 500"}
    assert asked < 30


async def test_from_a_database_many_keys_at_once(postgres_dsn: str) -> None:
    table = unique("customers")
    async with connected(postgres_dsn) as connection:
        await connection.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, name text)")
        await connection.execute(f"INSERT INTO {table} SELECT n, 'n' || n FROM generate_series(1, 50) AS n")
    lookup = {"field": "id", "url": f"{postgres_dsn}?table={table}", "key": "id", "fields": {"name": "name"}}
    result, _ = await enriched([{"id": str(number)} for number in range(60)], lookup)
    names = [item["name"] for item in result["enriched_items"]]
    assert names == [f"n{number}" if 1 <= number <= 50 else None for number in range(60)]


async def test_rows_can_be_taken_before_the_end() -> None:
    work = FUNCTION.prepare({"enrichment_config": {"lookups": [{"field": "a", "table": {"1": 2}, "into": "b"}]}})
    assert isinstance(work, Yielding)
    acc = work.fold(work.initial(), work.map({"a": 1}))
    assert work.take_rows(acc) == [{"a": 1, "b": 2}]
    assert work.finish(acc) == {
        "enrichment_stats": {
            "items": 1,
            "failed": 0,
            "lookups": {"a": {"found": 1, "not_found": 0, "without_key": 0}},
        }
    }


GOOD = {"field": "a", "table": {"1": 2}, "into": "b"}


@pytest.mark.parametrize(
    ("lookups", "error", "because"),
    [
        ([], BadParameters, "1 or more entries"),
        ([{**GOOD, "fields": {"x": "y"}}], BadParameters, r"lookups\[0\] must have one of into and fields"),
        ([{"field": "a", "into": "b"}], BadParameters, r"lookups\[0\] must have one of table, file and url"),
        ([{**GOOD, "file": "x.csv"}], BadParameters, "must have one of table, file and url"),
        ([GOOD, GOOD], BadParameters, "two are called 'a'"),
        ([{"field": "a", "into": "b", "url": "/etc/passwd"}], BadParameters, "must begin with http"),
        ([{"field": "a", "into": "b", "url": "file:///etc/{key}"}], BadParameters, "must begin with http"),
        ([{"field": "a", "into": "b", "url": "ftp://host/{key}"}], UnknownName, "unknown lookup 'ftp'"),
        ([{"field": "a", "into": "b", "url": "http://me:hush@h/{key}"}], BadParameters, "must not hold"),
        ([{"field": "a", "into": "b", "file": "data", "key": "k"}], SourceError, "no URL and no file"),
        ([{**GOOD, "rate": 0}], BadParameters, "rate must be"),
    ],
)
def test_s15_what_does_not_fit_is_refused_at_submit(lookups: Any, error: type[Exception], because: str) -> None:
    with pytest.raises(error, match=because) as caught:
        FUNCTION.prepare({"enrichment_config": {"lookups": lookups}})
    assert "hush" not in str(caught.value)


def test_it_asks_for_the_fields_that_an_item_must_have() -> None:
    lookups = [GOOD, {**GOOD, "field": "b", "into": "c"}, {**GOOD, "field": "d"}]
    assert FUNCTION.prepare({"enrichment_config": {"lookups": lookups}}).fields == ("a", "d")

"""What every look-up does: `mapreduce/lookups/lookup.py` as tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from asyncworker import registry
from asyncworker.errors import SourceError
from asyncworker.mapreduce.lookups.lookup import Lookup
from tests.support.datasets import connected, unique
from tests.support.web import served

ROWS = {
    "UA": {"code": "UA", "name": "United"},
    "7": {"code": "7", "name": "a number"},
    "a/b ?#%&ü": {"code": "a/b ?#%&ü", "name": "odd"},
}


Opened = Callable[[], AbstractAsyncContextManager[Lookup]]


@pytest.fixture(params=["file", "http", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    if request.param == "file":
        path = tmp_path / "codes.csv"
        path.write_text("code,name\n" + "".join(f'"{row["code"]}",{row["name"]}\n' for row in ROWS.values()))
        return lambda: in_file(str(path))
    if request.param == "http":
        return in_web
    dsn = request.getfixturevalue("postgres_dsn")
    return lambda: in_database(dsn)


@asynccontextmanager
async def in_file(path: str) -> AsyncIterator[Lookup]:
    yield registry.find("lookup", "file").open(path, "code", 5.0)


@asynccontextmanager
async def in_web() -> AsyncIterator[Lookup]:
    async def answer(asked: web.Request) -> web.Response:
        row = ROWS.get(asked.query["code"])
        return web.json_response(row) if row else web.Response(status=404)

    async with served(answer) as url:
        yield registry.find("lookup", "http").open(f"{url}/codes?code={{key}}", None, 5.0)


@asynccontextmanager
async def in_database(dsn: str) -> AsyncIterator[Lookup]:
    table = unique("codes")
    async with connected(dsn) as connection:
        await connection.execute(f"CREATE TABLE {table} (code text PRIMARY KEY, name text)")
        rows = [tuple(row.values()) for row in ROWS.values()]
        await connection.executemany(f"INSERT INTO {table} VALUES ($1, $2)", rows)
    yield registry.find("lookup", "postgresql").open(f"{dsn}?table={table}", "code", 5.0)


async def answers(lookup: Lookup, keys: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for start in range(0, len(keys), lookup.batch):
        found.update(await lookup.fetch(keys[start : start + lookup.batch]))
    return found


def test_every_lookup_of_the_room_is_tested() -> None:
    assert registry.names("lookup") == ("file", "http", "postgresql")


async def test_what_is_known_is_answered_and_what_is_not_is_left_out(opened: Opened) -> None:
    async with opened() as lookup:
        assert await answers(lookup, [*ROWS, "unknown", "", "' OR true --", "\0", "../x"]) == ROWS
        assert lookup.label
        await lookup.close()


async def test_it_can_be_closed_twice_and_asked_again(opened: Opened) -> None:
    async with opened() as lookup:
        assert await answers(lookup, ["UA"]) == {"UA": ROWS["UA"]}
        await lookup.close()
        await lookup.close()
        assert await answers(lookup, ["UA"]) == {"UA": ROWS["UA"]}
        await lookup.close()


@pytest.mark.parametrize(
    ("scheme", "url", "key"),
    [
        ("file", "/nowhere/codes.csv", "code"),
        ("http", "http://127.0.0.1:1/{key}", None),
        ("postgresql", "postgresql://127.0.0.1:1/shop?table=codes", "code"),
    ],
)
async def test_who_cannot_be_asked_is_told_without_the_key(scheme: str, url: str, key: str | None) -> None:
    lookup = registry.find("lookup", scheme).open(url, key, 5.0)
    with pytest.raises(SourceError) as caught:
        await lookup.fetch(["canary-4711"])
    assert "canary-4711" not in str(caught.value)
    await lookup.close()

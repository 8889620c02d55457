"""The same over the same is not done twice; another version, function or parameter is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from asyncworker import Engine
from asyncworker.errors import BadParameters
from asyncworker.mapreduce.cache import key_of
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.sources.source import Versioned

PARAMS = {"field": "text"}


def rows(path: Path, *texts: str) -> str:
    path.write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    return str(path)


async def key(source: Any, **more: Any) -> str | None:
    options: dict[str, Any] = {"version": None, "database": None} | more
    return await key_of(source, options.pop("function", "f"), options.pop("params", {}), {}, **options)


async def test_a_job_that_did_the_same_is_the_answer(tmp_path: Path) -> None:
    source = rows(tmp_path / "rows.jsonl", "a b", "c")
    async with Engine() as engine:
        one = await engine.map_reduce(source, "word_count", params=PARAMS, cache=True)
        assert (await engine.map_reduce(source, "word_count", params=PARAMS, cache=True)).id == one.id
        summary = await one.result(20)
        assert (await engine.map_reduce(source, "word_count", params=PARAMS, cache=True)).id == one.id
        others = [
            await engine.map_reduce(source, "word_count", params=PARAMS | {"top": 1}, cache=True),
            await engine.map_reduce(source, "word_count", params=PARAMS, cache="another version"),
            await engine.map_reduce(source, "word_count", params=PARAMS),
        ]
        rows(tmp_path / "rows.jsonl", "a b", "d")
        changed = await engine.map_reduce(source, "word_count", params=PARAMS, cache=True)
        assert len({one.id, changed.id, *(other.id for other in others)}) == 5
        assert (await changed.result(20))["final_result"] != summary["final_result"]
        for other in others:
            await other.result(20)


async def test_a_job_that_was_cancelled_is_no_answer(tmp_path: Path) -> None:
    source = rows(tmp_path / "rows.jsonl", "a")
    async with Engine() as engine:
        engine.stop()
        one = await engine.map_reduce(source, "word_count", params=PARAMS, cache=True)
        await one.cancel()
        two = await engine.map_reduce(source, "word_count", params=PARAMS, cache=True)
        assert two.id != one.id
        await two.cancel()


async def test_side_outputs_are_not_taken_for_done(tmp_path: Path) -> None:
    source = rows(tmp_path / "rows.jsonl", "a")
    async with Engine() as engine:
        for where in ({"to": "out.csv"}, {"failed_to": "out.csv"}):
            with pytest.raises(BadParameters, match="cache="):
                await engine.map_reduce(source, "word_count", params=PARAMS, cache=True, **where)  # type: ignore[arg-type]


async def test_what_has_no_version_is_known_by_the_one_that_is_given() -> None:
    assert await key([1, 2]) is None
    assert await key([1, 2], version="v1") is not None
    assert await key([1, 2], version="v1") != await key([1, 2], version="v2")


async def test_the_order_of_parameters_does_not_matter(tmp_path: Path) -> None:
    source = rows(tmp_path / "rows.jsonl", "a")
    one = await key(source, params={"a": [1, {"x": 1, "y": 2}], "b": 2})
    assert one == await key(source, params={"b": 2, "a": [1, {"y": 2, "x": 1}]})
    assert one != await key(source, params={"b": 2, "a": [{"y": 2, "x": 1}, 1]})
    assert one != await key(source, params={"a": [1, {"x": 1, "y": 2}], "b": 2}, function="g")


async def test_each_change_of_a_table_is_another_version(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        await connection.execute("CREATE TABLE versioned AS SELECT n AS id, 1 AS v FROM generate_series(1, 10) AS n")
        await connection.execute("CREATE VIEW seen AS SELECT * FROM versioned")
        url = f"{postgres_dsn}?table=versioned&key=id"
        versions = [await version(url)]
        assert await version(url) == versions[0]
        for change in (
            "UPDATE versioned SET v = 2 WHERE id = 3",
            "INSERT INTO versioned VALUES (11, 1)",
            "DELETE FROM versioned WHERE id = 1",
        ):
            await connection.execute(change)
            versions.append(await version(url))
        assert len(set(versions)) == 4
        assert None not in versions
        assert await version(f"{postgres_dsn}?table=seen&key=id") is None
    finally:
        await connection.close()


async def test_a_file_that_was_written_anew_is_another_version(tmp_path: Path) -> None:
    source = rows(tmp_path / "rows.jsonl", "a")
    before = await version(source)
    assert await version(source) == before
    rows(tmp_path / "rows.jsonl", "b")
    assert await version(source) != before
    assert await version("-") is None


async def version(url: str) -> str | None:
    source = open_source(url)
    assert isinstance(source, Versioned)
    try:
        return await source.version()
    finally:
        await source.close()

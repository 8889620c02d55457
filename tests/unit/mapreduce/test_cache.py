"""The same over the same is not done twice; another version, function or parameter is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from asyncworker import Engine
from asyncworker.errors import BadParameters, SettingsError, SourceError
from asyncworker.mapreduce import cachetable
from asyncworker.mapreduce.cache import key_of
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.sources.source import Versioned
from asyncworker.queue.job import State

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


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_results_in_a_table_outlive_their_broker(
    tmp_path: Path, postgres_dsn: str, request: pytest.FixtureRequest, namespace: str, kind: str
) -> None:
    source = rows(tmp_path / "rows.jsonl", "a b", "c")
    broker = "memory://" if kind == "memory" else request.getfixturevalue("redis_url")

    async def asked(number: int) -> tuple[str, Any, int]:
        """Ask in a world of its own: nobody else's jobs are known there."""
        engine = Engine(broker, namespace=f"{namespace}-{number}", result_cache=postgres_dsn)
        async with engine:
            job = await engine.map_reduce(source, "word_count", params=PARAMS, cache=True)
            if kind == "redis":
                await engine.run(burst=True)
            summary = await job.result(20)
            assert (await job.status()).state is State.SUCCEEDED
            assert [now.ratio async for now in job.progress()] == [1.0]
            assert (await engine.map_reduce(source, "word_count", params=PARAMS, cache=True)).id == job.id
            return job.id, summary, (await engine.broker.depth(["cpu_intensive"])).queues["cpu_intensive"].enqueued

    first, again = await asked(1), await asked(2)
    assert again[:2] == first[:2]
    assert (first[2], again[2]) == (2, 1), "a partition and its job; and the job alone, that was done before"
    rows(tmp_path / "rows.jsonl", "a b", "d")
    assert (await asked(3))[0] != first[0]


async def test_a_table_forgets_what_is_old_and_what_is_too_much(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cachetable, "MOST_ROWS", 3)
    table = cachetable.CacheTable(postgres_dsn)
    connection = await asyncpg.connect(postgres_dsn)
    summary: Any = {"job_id": "one", "processing_function": "f", "final_result": {"big": 2**60}}
    try:
        await connection.execute("DROP TABLE IF EXISTS asyncworker_cache")
        assert await table.find("none yet") is None
        for n in range(5):
            await table.save(f"key {n}", summary | {"job_id": f"job {n}"}, 100 + n)
        await table.save("key 3", summary, 103)
        assert await table.find("key 4") == ("job 4", summary | {"job_id": "job 4"})
        assert await table.find("key 3") == ("one", summary)
        assert await table.find("key 1") is None
        await connection.execute("UPDATE asyncworker_cache SET until = now() WHERE key = 'key 4'")
        assert await table.find("key 4") is None
        await table.save("key 9", summary, 60)
        kept = await connection.fetch("SELECT key FROM asyncworker_cache ORDER BY key")
        assert [row["key"] for row in kept] == ["key 2", "key 3", "key 9"]
        await connection.execute("UPDATE asyncworker_cache SET result = '\\xc1'")
        with pytest.raises(SourceError, match="no result"):
            await table.find("key 9")
    finally:
        await connection.close()
        await table.close()


async def test_a_table_that_cannot_be_reached_keeps_no_job_from_running(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = rows(tmp_path / "rows.jsonl", "a b")
    async with Engine(result_cache=f"postgresql://u:secret@%2F{tmp_path}/db") as engine:
        job = await engine.map_reduce(source, "word_count", params=PARAMS, cache=True)
        assert (await job.result(20))["final_result"]["total"] == 2
    assert "cached results cannot be asked for" in caplog.text
    assert f"the result of job {job.id} is not cached" in caplog.text
    assert "secret" not in caplog.text
    with pytest.raises(SettingsError, match="result_cache"):
        Engine(result_cache="redis://localhost")

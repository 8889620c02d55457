"""Large results lie in a store, and whoever asks for them is given them all the same."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from asyncworker import Engine, chain
from asyncworker.errors import ResultExpired, SettingsError, TaskFailed, UnknownName
from asyncworker.queue.codec import MAX_PAYLOAD_BYTES, unpack_record
from asyncworker.queue.worker import runner

LARGE = 5000


@pytest.fixture(params=["memory", "redis"])
async def engine(request: pytest.FixtureRequest, namespace: str, tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine that works its own queue, with a store in the folder ``results``."""
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    it = Engine(
        url, namespace=namespace, result_store=f"file://{tmp_path}/results", result_offload=1000, grace_period=5
    )
    async with it:
        run = None if request.param == "memory" else asyncio.create_task(it.run())
        yield it
        if run:
            it.stop(now=True)
            await run


def files(folder: Path) -> list[Path]:
    return [one for one in (folder / "results").iterdir() if not one.name.startswith(".")]


async def test_a_large_result_lies_in_the_store_and_a_small_one_with_its_job(engine: Engine, tmp_path: Path) -> None:
    @engine.task()
    async def echo(size: int) -> str:
        return "x" * size

    small, large = await echo.enqueue(10), await echo.enqueue(LARGE)
    assert [await job.result(timeout=20) for job in (small, large)] == ["x" * 10, "x" * LARGE]
    (file,) = files(tmp_path)
    (found,) = await engine.broker.find([large.id])
    assert found is not None
    record = unpack_record(found.record)
    assert (record.stored, record.value, record.task) == (file.name, None, "echo")
    assert len(found.record) < 200
    assert (await large.status()).state == "succeeded"
    file.unlink()
    with pytest.raises(ResultExpired):
        await large.result(timeout=20)


async def test_jobs_are_given_large_results_of_others(engine: Engine, tmp_path: Path) -> None:
    @engine.task(result_ttl=1)
    async def make(size: int) -> str:
        return "x" * size

    @engine.task()
    async def count(text: str) -> int:
        return len(text)

    job = await chain(make.bind(LARGE), count).enqueue()
    assert await job.result(timeout=20) == LARGE
    assert len(files(tmp_path)) == 1


async def test_a_client_without_the_store_is_told(redis_url: str, namespace: str, tmp_path: Path) -> None:
    engine = Engine(redis_url, namespace=namespace, result_store=f"file://{tmp_path}", result_offload=1000)

    @engine.task()
    async def make() -> str:
        return "x" * LARGE

    async with engine, Engine(redis_url, namespace=namespace) as client:
        job = await make.enqueue()
        await engine.run(burst=True)
        with pytest.raises(ResultExpired, match="result_store"):
            await client.job(job.id).result(timeout=20)


async def test_while_the_store_is_away_results_that_may_travel_do(engine: Engine, tmp_path: Path) -> None:
    @engine.task(max_attempts=1)
    async def make(size: int) -> bytes:
        return bytes(size)

    place = tmp_path / "results"
    while not place.is_file():  # who sweeps may make the folder anew in between
        shutil.rmtree(place, ignore_errors=True)
        with suppress(IsADirectoryError):
            place.touch()
    assert await (await make.enqueue(LARGE)).result(timeout=20) == bytes(LARGE)
    with pytest.raises(TaskFailed, match="cannot be used"):
        await (await make.enqueue(MAX_PAYLOAD_BYTES + 1)).result(timeout=20)


async def test_f19_what_is_too_large_for_broker_and_store_fails_its_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runner, "LARGEST", MAX_PAYLOAD_BYTES + 1000)
    with_store, without = Engine(result_store=f"file://{tmp_path}"), Engine()
    for engine in (with_store, without):

        @engine.task()
        async def make(size: int) -> bytes:
            return bytes(size)

        async with engine:
            too_large = MAX_PAYLOAD_BYTES + (2000 if engine is with_store else 1)
            with pytest.raises(TaskFailed, match="bytes"):
                await (await make.enqueue(too_large)).result(timeout=20)
            if engine is with_store:
                assert len(await (await make.enqueue(MAX_PAYLOAD_BYTES)).result(timeout=20)) == MAX_PAYLOAD_BYTES


def test_a_store_of_no_kind_is_refused_at_once() -> None:
    with pytest.raises(UnknownName):
        Engine(result_store="ftp://somewhere")
    with pytest.raises(SettingsError):
        _ = Engine(result_store="file://host/folder").broker

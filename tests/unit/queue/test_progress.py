"""What a job says of its own progress: seen while it runs, told rarely, and by nobody whose attempt is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from asyncworker import Context, Engine
from asyncworker.errors import BadParameters
from asyncworker.job import JobHandle
from asyncworker.queue import context
from asyncworker.queue.job import Op

PATIENCE = 20.0


@pytest.fixture(params=["memory", "redis"])
async def engine(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[Engine]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    async with Engine(url, namespace=namespace) as opened:
        yield opened


async def told(job: JobHandle[None]) -> tuple[float | None, float | None]:
    status = await job.status()
    return status.progress_done, status.progress_total


async def test_it_is_seen_while_the_job_runs(engine: Engine) -> None:
    said, seen = asyncio.Queue[None](), asyncio.Event()

    @engine.task()
    async def walk(ctx: Context) -> None:
        for done, total in ((3, None), (10, 10)):
            await ctx.progress(done, total)
            said.put_nowait(None)
            await seen.wait()
            seen.clear()

    job = await walk.enqueue()
    work = None if engine.url == "memory://" else asyncio.create_task(engine.run(burst=True))
    async with asyncio.timeout(PATIENCE):
        for expected in ((3, None), (10, 10)):
            await said.get()
            assert await told(job) == expected
            seen.set()
        await job.result()
        assert await told(job) == (None, None)
        if work is not None:
            await work


async def test_a_plain_function_just_says_it(engine: Engine) -> None:
    @engine.task()
    def walk(ctx: Context) -> None:
        ctx.progress(1, 2)
        raise OSError("stay, to be looked at")

    job = await walk.with_options(max_attempts=2, retry_backoff=1000.0).enqueue()
    work = asyncio.create_task(engine.run()) if engine.url != "memory://" else None
    async with asyncio.timeout(PATIENCE):
        while (await job.status()).state != "retrying":
            await asyncio.sleep(0.01)
        assert await told(job) == (1, 2)
    if work is not None:
        engine.stop()
        await work


async def test_it_is_told_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now, sent = 100.0, list[tuple[Op, int, bytes]]()
    monkeypatch.setattr(context.time, "monotonic", lambda: now)

    async def send(*words: object) -> None:
        sent.append(words)  # type: ignore[arg-type]  # as `Context` sends it

    ctx = Context("id", "task", "queue", 1, 0, send)
    for done in range(1000):
        await ctx.progress(done, 1000)
        now += 0.001
    await ctx.progress(1000, 1000)
    assert [data for *_, data in sent] == [b"0 1000", b"500 1000", b"1000 1000"]


@pytest.mark.parametrize(
    ("done", "total"), [(-1, 2), (1, -2), (float("nan"), 1), (1, float("inf")), ("1", 2), (True, 1)]
)
async def test_what_is_no_progress(done: float, total: float) -> None:
    async def send(*_: object) -> None:
        raise AssertionError

    with pytest.raises(BadParameters, match="numbers of 0 or more"):
        await Context("id", "task", "queue", 1, 0, send).progress(done, total)

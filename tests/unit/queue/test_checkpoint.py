"""What an attempt keeps for the next one: whether it raised or its worker died, and for nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncworker import Context, Engine
from asyncworker.errors import BadParameters, LeaseLost, TaskTimeout
from asyncworker.queue.context import CHECKPOINT_BYTES
from asyncworker.queue.job import Op
from asyncworker.queue.task import TaskOptions, Tasks

PATIENCE = 20.0


@pytest.fixture(params=["memory", "redis"])
async def engine(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[Engine]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    async with Engine(url, namespace=namespace, lease=1) as opened:
        yield opened


async def worked(engine: Engine) -> None:
    if engine.url != "memory://":
        await engine.run(burst=True)


async def test_the_next_attempt_is_given_it_back(engine: Engine) -> None:
    seen: list[Any] = []

    @engine.task(max_attempts=3, retry_backoff=0.0)
    async def walk(ctx: Context) -> int:
        seen.append((ctx.attempt, ctx.saved(), ctx.saved("side", "none")))
        done = ctx.saved(default=0)
        await ctx.checkpoint(done + 10)
        assert ctx.saved() == done + 10
        if ctx.attempt == 1:
            await ctx.checkpoint({"page": 7}, key="side")
        if ctx.attempt == 2:
            await ctx.checkpoint(None, key="side")
        if ctx.attempt < 3:
            raise OSError("later")
        return ctx.saved()  # type: ignore[no-any-return]  # it is what was kept

    job = await walk.enqueue()
    await worked(engine)
    assert await job.result(timeout=PATIENCE) == 30
    assert seen == [(1, None, "none"), (2, 10, {"page": 7}), (3, 20, "none")]


@asynccontextmanager
async def taken_over(engine: Engine, kept: asyncio.Event) -> AsyncIterator[None]:
    """Give a worker up as soon as its job has *kept* something, and let another one work."""
    working = asyncio.create_task(engine.run()) if engine.url != "memory://" else None
    async with asyncio.timeout(PATIENCE):
        await kept.wait()
    held = (await engine.broker.depth([])).held
    (epoch,) = [epoch for epoch, count in held.items() if count]
    await engine.broker.reap(epoch, "", crashed=True)
    yield
    if working:
        engine.stop(now=True)
        await working


async def test_whoever_takes_over_from_a_dead_worker_is_given_it_back(engine: Engine) -> None:
    kept, seen = asyncio.Event(), list[Any]()

    @engine.task()
    async def walk(ctx: Context) -> Any:
        seen.append((ctx.deliveries, ctx.saved()))
        if not ctx.deliveries:
            await ctx.checkpoint("half way")
            kept.set()
            await asyncio.Event().wait()
        return ctx.saved()

    job = await walk.enqueue()
    async with taken_over(engine, kept):
        assert await job.result(timeout=PATIENCE) == "half way"
    assert seen == [(0, None), (1, "half way")]


async def test_what_is_too_much_or_no_plain_value_is_refused_and_the_one_before_stays(engine: Engine) -> None:
    @engine.task(max_attempts=2, retry_backoff=0.0)
    async def walk(ctx: Context) -> Any:
        if ctx.attempt == 2:
            return ctx.saved()
        await ctx.checkpoint("fits")
        for wrong, told in (("x" * CHECKPOINT_BYTES, "at most 65,536"), (object(), "object")):
            with pytest.raises(BadParameters, match=told):
                await ctx.checkpoint(wrong)
        assert ctx.saved() == "fits"
        raise OSError("again")

    job = await walk.enqueue()
    await worked(engine)
    assert await job.result(timeout=PATIENCE) == "fits"


async def test_a_mapper_keeps_one_for_an_item(engine: Engine, tmp_path: Path) -> None:
    kept = asyncio.Event()

    @engine.mapper
    async def slow(item: Any, params: Any, ctx: Context) -> Any:
        key = str(item)
        before = ctx.saved(key)
        if item == 3 and before is None:
            await ctx.checkpoint("begun", key)
            kept.set()
            await asyncio.Event().wait()
        return [item, before]

    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(map(str, range(5))))
    job = await engine.map_reduce(str(source), map="slow", speculate=False)
    async with taken_over(engine, kept):
        summary = await job.result(timeout=PATIENCE)
    assert summary["final_result"] == [[n, "begun" if n == 3 else None] for n in range(5)]


async def test_a_plain_function_waits_in_its_thread(engine: Engine) -> None:
    @engine.task(max_attempts=2, retry_backoff=0.0)
    def walk(ctx: Context) -> Any:
        if ctx.attempt == 1:
            ctx.checkpoint("from a thread")
            with pytest.raises(BadParameters):
                ctx.checkpoint("x" * CHECKPOINT_BYTES)
            raise OSError("again")
        return ctx.saved()

    job = await walk.enqueue()
    await worked(engine)
    assert await job.result(timeout=PATIENCE) == "from a thread"


async def test_an_attempt_that_is_over_leaves_nothing_to_the_next(engine: Engine) -> None:
    told: list[type[BaseException]] = []
    second, late = threading.Event(), threading.Event()

    @engine.task(max_attempts=2, retry_backoff=0.0, timeout=0.2)
    def walk(ctx: Context) -> Any:
        if ctx.attempt == 1:  # a thread cannot be stopped: it comes too late
            second.wait(PATIENCE)
            try:
                ctx.checkpoint("a zombie's")
            except LeaseLost as exc:
                told.append(type(exc))
            late.set()
            return None
        second.set()
        late.wait(PATIENCE)
        ctx.checkpoint("mine")
        return ctx.saved()

    job = await walk.enqueue()
    await worked(engine)
    with contextlib.suppress(TaskTimeout):
        assert await job.result(timeout=PATIENCE) == "mine"
    assert await asyncio.to_thread(late.wait, PATIENCE)
    assert told == [LeaseLost]


async def test_a_job_apart_finds_what_was_kept_before() -> None:
    tasks = Tasks()
    sent: list[Op] = []

    async def send(op: Op, number: int, data: bytes) -> None:
        sent.append(op)

    ctx = Context("the id", "the task", "the queue", 2, 3, send)
    await ctx.checkpoint("from before")
    assert sent == [Op.CHECKPOINT]
    try:
        apart = tasks.add("alone", alone, TaskOptions()).apart
        assert apart is not None
        assert await apart(ctx=ctx) == ["from before", "and here"]
        assert sent == [Op.CHECKPOINT]
    finally:
        tasks.close()


async def alone(ctx: Context) -> list[Any]:
    before = ctx.saved()
    await ctx.checkpoint("and here")
    return [before, ctx.saved()]

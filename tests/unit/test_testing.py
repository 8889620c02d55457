"""What users test their tasks with: drain, the frozen clock, failures on demand."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from asyncworker import Engine, SettingsError, State, TaskFailed, TaskTimeout
from asyncworker.queue.drain import Drained
from asyncworker.testing import FrozenClock
from tests.support import calls

MakeEngine = Callable[..., Engine]


async def test_drain_ends_what_is_there_and_what_that_enqueues(memory_engine: MakeEngine) -> None:
    engine = memory_engine()
    seen = []

    @engine.task(max_attempts=2, retry_backoff=0)
    async def count_down(n: int) -> None:
        seen.append(n)
        if n:
            await count_down.enqueue(n - 1)
        else:
            raise ValueError

    async with engine:
        assert await engine.drain() == Drained()
        await count_down.enqueue(5)
        assert await engine.drain() == Drained(succeeded=5, failed=1, retried=1)
        assert seen == [5, 4, 3, 2, 1, 0, 0]


async def test_delayed_jobs_run_when_the_clock_is_advanced(
    memory_engine: MakeEngine, frozen_clock: FrozenClock
) -> None:
    async with memory_engine() as engine:

        @engine.task()
        async def work() -> int:
            return 7

        job = await work.with_options(delay=3600).enqueue()
        assert await engine.drain() == Drained()
        assert (await job.status()).state is State.SCHEDULED
        frozen_clock.advance(3599)
        assert await engine.drain() == Drained()
        frozen_clock.advance(1)
        assert await engine.drain() == Drained(succeeded=1)
        assert await job.result(timeout=0) == 7


async def test_a_task_fails_when_told_to_and_only_so_often(
    memory_engine: MakeEngine, frozen_clock: FrozenClock, fail_next: Callable[..., None]
) -> None:
    async with memory_engine() as engine:

        @engine.task(max_attempts=3, retry_backoff=60)
        async def work(n: int) -> int:
            return n

        fail_next(work, ConnectionError("away"), times=2)
        job = await work.enqueue(1)
        assert await engine.drain() == Drained(retried=1)
        assert (await job.status()).error == "ConnectionError: away"
        for _ in range(2):
            frozen_clock.advance(3600)
            await engine.drain()
        assert await job.result(timeout=0) == 1
        fail_next(work, SystemExit(), times=3)
        other = await work.enqueue(2)
        for _ in range(3):
            await engine.drain()
            frozen_clock.advance(3600)
        with pytest.raises(TaskFailed, match="SystemExit"):
            await other.result(timeout=0)


async def test_timeouts_pass_by_the_clock(memory_engine: MakeEngine, frozen_clock: FrozenClock) -> None:
    async with memory_engine() as engine:
        begun = asyncio.Event()

        @engine.task(timeout=600, max_attempts=1)
        async def hang() -> None:
            begun.set()
            await asyncio.Event().wait()

        job = await hang.enqueue()
        await begun.wait()
        frozen_clock.advance(601)
        assert await engine.drain() == Drained(failed=1)
        with pytest.raises(TaskTimeout):
            await job.result(timeout=0)


async def test_ones_own_engine_is_put_into_memory_for_a_test(memory_engine: MakeEngine, redis_url: str) -> None:
    engine = memory_engine(Engine(redis_url), concurrency=3)
    assert (engine.url, engine.concurrency) == ("memory://", 3)
    assert memory_engine(calls.engine) is calls.engine
    async with engine:
        assert await engine.drain() == Drained()


async def test_drain_works_where_nobody_else_does(redis_url: str, namespace: str) -> None:
    engine = Engine(redis_url, namespace=namespace)

    @engine.task()
    async def work() -> None: ...

    async with engine:
        await work.enqueue_many([()] * 20)
        await work.with_options(delay=3600).enqueue()
        assert await engine.drain() == Drained(succeeded=20)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(engine.run())
            await work.enqueue()
            while (await engine.drain()).succeeded:
                pass
            engine.stop()


async def test_drain_tells_why_it_cannot_work(redis_url: str, namespace: str) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise ValueError("no")
        yield

    async with Engine(redis_url, namespace=namespace, lifespan=broken) as engine:
        await engine.enqueue("work")
        with pytest.raises(SettingsError, match="ValueError: no"):
            await engine.drain()


TEST = """
async def test_it(memory_engine, frozen_clock, fail_next):
    async with memory_engine() as engine:
        assert not (await engine.drain()).failed
"""


def test_pytest_finds_the_fixtures_by_itself(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TEST)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:valkey", "-o", "asyncio_mode=auto"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_it.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr

"""Hooks at the turning points, what is recent, and the context in which a worker lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from asyncworker import Context, Discard, Engine, Retry, SettingsError, Snooze, TaskCancelled, TaskFailed, TaskTimeout
from tests.support.brokers import until


async def test_hooks_are_told_at_each_turn() -> None:
    engine = Engine()
    seen: list[Any] = []
    told = asyncio.Event()

    @engine.on_start
    async def start() -> None:
        seen.append("start")

    @engine.on_stop
    def stop() -> None:
        seen.append("stop")

    @engine.before_task
    async def before(ctx: Context) -> None:
        seen.append(("before", ctx.task, ctx.attempt))

    @engine.after_task
    def after(ctx: Context, error: BaseException | None) -> None:
        seen.append(("after", ctx.attempt, type(error).__name__))

    @engine.on_success
    async def success(ctx: Context, value: Any) -> None:
        seen.append(("success", value))
        told.set()

    @engine.on_failure
    def failure(ctx: Context, error: BaseException) -> None:
        seen.append(("failure", ctx.task, str(error)))
        told.set()

    @engine.task(max_attempts=2, retry_backoff=0)
    async def flaky(cured_at: int, ctx: Context) -> int:
        seen.append("call")
        if ctx.attempt < cured_at:
            raise KeyError(ctx.attempt)
        return ctx.attempt

    async with engine:
        await (await flaky.enqueue(2)).result(timeout=10)
        await told.wait()
        first, seen[:] = list(seen), []
        told.clear()
        with pytest.raises(TaskFailed):
            await (await flaky.enqueue(3)).result(timeout=10)
        await told.wait()
        second, seen[:] = list(seen), []
    assert first == [
        "start",
        ("before", "flaky", 1),
        "call",
        ("after", 1, "KeyError"),
        ("before", "flaky", 2),
        "call",
        ("after", 2, "NoneType"),
        ("success", 2),
    ]
    assert second[-2:] == [("after", 2, "KeyError"), ("failure", "flaky", "2")]
    assert seen == ["stop"]


async def test_a_hook_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine()
    told = asyncio.Event()

    @engine.on_start
    @engine.before_task
    @engine.after_task
    @engine.on_success
    def broken(*about: Any) -> None:
        raise RuntimeError("of the hook")

    engine.on_success(lambda ctx, value: told.set())

    @engine.task()
    async def work() -> int:
        return 7

    with caplog.at_level(logging.ERROR):
        async with engine:
            assert await (await work.enqueue()).result(timeout=10) == 7
            await told.wait()
    assert caplog.text.count("broken failed") == 4


@pytest.mark.parametrize(("signal", "calls"), [(Discard("not today"), 0), (Retry(delay=0), 1), (Snooze(0), 1)], ids=str)
async def test_before_task_may_steer_the_job(signal: Exception, calls: int) -> None:
    engine = Engine()
    once = [signal]
    called = []

    @engine.before_task
    async def before(ctx: Context) -> None:
        if once:
            raise once.pop()

    @engine.task()
    async def work(ctx: Context) -> None:
        called.append(ctx.attempt)

    async with engine:
        job = await work.enqueue()
        if calls:
            await job.result(timeout=10)
        else:
            with pytest.raises(TaskCancelled, match="not today"):
                await job.result(timeout=10)
    assert len(called) == calls


async def test_a_timeout_counts_the_hook_before_and_is_told_as_one() -> None:
    engine = Engine()
    errors: list[BaseException | None] = []

    @engine.before_task
    async def before(ctx: Context) -> None:
        await asyncio.Event().wait()

    engine.on_failure(lambda ctx, error: errors.append(error))

    @engine.task(timeout=0.01, max_attempts=1)
    async def work() -> None: ...

    async with engine:
        with pytest.raises(TaskTimeout):
            await (await work.enqueue()).result(timeout=10)
    assert [type(error) for error in errors] == [TimeoutError]


async def test_hooks_after_the_end_hold_nothing_up_and_are_waited_for() -> None:
    engine = Engine(concurrency=1)
    go, done = asyncio.Event(), []

    @engine.on_success
    async def slow(ctx: Context, value: int) -> None:
        await go.wait()
        done.append(value)

    @engine.task()
    async def echo(n: int) -> int:
        return n

    async with engine:
        assert await (await echo.enqueue(1)).result(timeout=10) == 1
        assert await (await echo.enqueue(2)).result(timeout=10) == 2
        assert done == []
        go.set()
    assert done == [1, 2]


async def test_a_call_that_does_not_fit_is_told_as_a_failure_alone() -> None:
    engine = Engine()
    told: list[str] = []
    engine.on_failure(lambda ctx, error: told.append(f"{ctx.task}: {type(error).__name__}"))
    engine.after_task(lambda ctx, error: told.append("after"))
    async with engine:
        job = await engine.enqueue("late", 1)  # nobody knows it yet, so nobody can check

        @engine.task()
        async def late() -> None: ...

        with pytest.raises(TaskFailed):
            await job.result(timeout=10)
    assert told == ["late: DecodeError"]


async def test_hooks_see_the_context_variables_of_their_attempt() -> None:
    engine = Engine()
    who: ContextVar[str] = ContextVar("who")
    seen = []
    engine.before_task(lambda ctx: who.set(ctx.id) and None)
    engine.after_task(lambda ctx, error: seen.append(who.get() == ctx.id))

    @engine.task()
    def in_a_thread() -> str:
        return who.get()

    async with engine:
        job = await in_a_thread.enqueue()
        assert await job.result(timeout=10) == job.id
    assert seen == [True]


async def test_the_recent_failures_and_successes_are_kept_when_asked_for() -> None:
    engine = Engine()
    recent = engine.recent
    recent.successes = type(recent.successes)(maxlen=3)

    @engine.task(max_attempts=1)
    async def half(n: int) -> float:
        return 1 / n

    @engine.task()
    async def given_up() -> None:
        raise Discard("no")

    async with engine:
        jobs = await half.enqueue_many([(n,) for n in range(6)])
        jobs.append(await given_up.enqueue())

        async def all_told() -> bool:
            return len(recent.successes) == 3 and len(recent.failures) == 1

        await until(all_told)
        (failed,) = recent.failures
        assert (failed.id, failed.task, failed.error) == (jobs[0].id, "half", "ZeroDivisionError: division by zero")
        with pytest.raises(TaskCancelled):
            await jobs[-1].result(timeout=10)


# --- lifespan ---------------------------------------------------------------------------------------------


class Resources:
    """What a worker holds, and how often."""

    def __init__(self) -> None:
        self.opened = self.closed = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[str]:
        self.opened += 1
        yield f"pool {self.opened}"
        self.closed += 1


async def use(engine: Engine) -> str:
    @engine.task()
    async def ask(ctx: Context) -> str:
        return str(ctx.resources)

    return str(await (await engine.enqueue("ask")).result(timeout=10))


async def test_each_worker_enters_its_context_once_and_leaves_it_at_its_end() -> None:
    resources = Resources()
    engine = Engine(lifespan=resources)
    for number in (1, 2):
        async with engine:
            assert await use(engine) == f"pool {number}"
            assert (resources.opened, resources.closed) == (number, number - 1)
        assert resources.closed == number
        engine.tasks.remove("ask")


async def test_an_engine_beside_a_web_application_has_its_context_too(redis_url: str, namespace: str) -> None:
    resources = Resources()
    engine = Engine(redis_url, namespace=namespace, lifespan=resources)
    async with asynccontextmanager(engine.lifespan)(None):
        assert await use(engine) == "pool 1"
    assert resources.closed == 1


@pytest.mark.parametrize("url", ["memory://", "redis"])
async def test_a_context_that_does_not_start_ends_the_worker_with_a_clear_word(
    url: str, redis_url: str, namespace: str
) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise ConnectionError("no database at postgresql://me:secret@db")
        yield

    engine = Engine(redis_url if url == "redis" else url, namespace=namespace, lifespan=broken)
    told = r"the worker's lifespan did not start: ConnectionError: no database at postgresql://me:\*+@db"
    with pytest.raises(SettingsError, match=told):
        async with asynccontextmanager(engine.lifespan)(None):
            raise AssertionError("it has not started")
    with pytest.raises(SettingsError, match=told):
        await engine.run(burst=True)
    await engine.close()


async def test_middleware_stands_around_each_attempt() -> None:
    engine = Engine()
    seen: list[Any] = []

    @engine.middleware
    async def outer(ctx: Context, call: Any) -> Any:
        seen.append(("in", ctx.task, ctx.attempt))
        try:
            return 10 * await call()
        finally:
            seen.append("out")

    @engine.middleware
    async def inner(ctx: Context, call: Any) -> Any:
        seen.append("inner")
        try:
            return await call()
        except KeyError:
            return await call()

    @engine.task(name="flaky")
    async def flaky(number: int) -> int:
        seen.append("call")
        if seen.count("call") == 1:
            raise KeyError
        return number

    @engine.task(max_attempts=1)
    def plain() -> int:
        raise ValueError("seen by all")

    async with engine:
        assert await (await flaky.enqueue(7)).result(timeout=10) == 70
        assert seen == [("in", "flaky", 1), "inner", "call", "call", "out"]
        with pytest.raises(TaskFailed, match="seen by all"):
            await (await plain.enqueue()).result(timeout=10)
        assert seen[-2:] == ["inner", "out"]

"""What each executor of the room does: values, errors, cancellation, and an end that leaves nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncworker import registry
from asyncworker.work.executors.executor import Executor
from asyncworker.work.executors.thread import ThreadExecutor
from tests.support import calls
from tests.support.brokers import until


def as_coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args, **kwargs)

    return call


class Made:
    """An executor, and how it takes functions."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.executor: Executor = registry.find("executor", name).open()

    def bind(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.executor.bind(as_coroutine(function) if self.name == "inline" else function)


@pytest.fixture(params=registry.names("executor"))
def made(request: pytest.FixtureRequest) -> Iterator[Made]:
    one = Made(request.param)
    yield one
    one.executor.close()


async def test_values_come_back(made: Made) -> None:
    add, echo = made.bind(calls.add), made.bind(calls.echo)
    assert await add(1, b=2) == 3
    assert await add(1) == 1
    big = "é" * 3_000_000
    assert await echo(big) == big
    assert await asyncio.gather(*(add(n, n) for n in range(20))) == [2 * n for n in range(20)]


async def test_errors_come_back_as_they_were_raised(made: Made) -> None:
    with pytest.raises(calls.OwnError, match="no") as own:
        await made.bind(calls.fail)("no")
    assert (own.value.code, own.value.args) == (7, ("no",))
    with pytest.raises(KeyError, match="'key'"):
        await made.bind(calls.fail_at_key)("key")
    with pytest.raises(calls.Retry) as again:
        await made.bind(calls.ask_again)()
    assert again.value.delay == 3.5
    with pytest.raises(ValueError, match="object"):
        await made.bind(calls.fail_with_an_object)()
    assert await made.bind(calls.add)(1) == 1


async def test_calls_overlap_but_in_the_loop(made: Made, tmp_path: Path) -> None:
    count = 1 if made.name == "inline" else 2
    meet = made.bind(calls.meet)
    async with asyncio.timeout(30):
        assert await asyncio.gather(*(meet(str(tmp_path), count) for _ in range(count))) == [count] * count


async def test_a_cancelled_call_ends_at_once(made: Made, tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    async def asleep() -> None:
        begun.set()
        await asyncio.Event().wait()

    def blocked() -> None:
        begun.set()
        go.wait(30)

    if made.name == "process":
        begun.set()
        work = asyncio.ensure_future(made.bind(calls.hang)(str(tmp_path / "mark")))
    else:
        work = asyncio.ensure_future(made.executor.bind(asleep if made.name == "inline" else blocked)())

    async def running() -> bool:
        return begun.is_set() if made.name != "process" else (tmp_path / "mark").exists()

    await until(running)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    go.set()


async def test_threads_that_hang_keep_no_others_from_running() -> None:
    executor, go = ThreadExecutor(4), threading.Event()
    begun = threading.Semaphore(0)

    def hang() -> None:
        begun.release()
        go.wait(30)

    try:
        for _ in range(10):
            work = asyncio.ensure_future(executor.bind(hang)())
            assert await asyncio.to_thread(begun.acquire, timeout=20), "no thread was free"
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
        assert await executor.bind(calls.add)(1, 2) == 3
    finally:
        go.set()
        executor.close()


async def test_it_may_be_closed_at_any_time_and_opens_again(made: Made) -> None:
    made.executor.close()
    add = made.bind(calls.add)
    assert await add(1, 1) == 2
    made.executor.close()
    made.executor.close()
    assert await add(2, 2) == 4

"""What tasks are given beside their arguments."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asyncworker import BadParameters, Context, Engine, SettingsError, TaskFailed, depends
from asyncworker.queue.task import TaskOptions, Tasks

seen: list[Any] = []


async def connection(ctx: Context) -> AsyncIterator[str]:
    seen.append("open")
    try:
        yield f"connection of {ctx.task}"
    except ValueError as exc:
        seen.append(f"saw {exc}")
        raise
    finally:
        seen.append("closed")


def user(db: str = depends(connection)) -> str:
    return f"user by {db}"


@asynccontextmanager
async def opened() -> AsyncIterator[int]:
    yield os.getpid()


async def awaited() -> int:
    return 7


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


async def test_each_attempt_is_given_what_it_depends_on_once() -> None:
    engine = Engine()

    @engine.task(max_attempts=2, retry_backoff=0, name="store")
    async def store(
        row: int, ctx: Context, db: str = depends(connection), who: str = depends(user), at: int = depends(awaited)
    ) -> list[Any]:
        if ctx.attempt == 1:
            raise ValueError("no")
        return [row, db, who, at, seen.count("open"), seen.count("closed")]

    async with engine:
        job = await store.enqueue(5)
        said = await job.result(timeout=20)
    assert said == [5, "connection of store", "user by connection of store", 7, 2, 1]
    assert seen == ["open", "saw no", "closed", "open", "closed"]


async def test_plain_functions_and_context_managers() -> None:
    engine = Engine()

    @engine.task()
    def plain(row: int, pid: int = depends(opened), loud: bool = False) -> list[Any]:
        return [row, pid, loud]

    async with engine:
        assert await (await plain.enqueue(5, loud=True)).result(timeout=20) == [5, os.getpid(), True]
        assert await (await engine.enqueue("plain", 5)).result(timeout=20) == [5, os.getpid(), False] or plain.name


async def test_callers_do_not_pass_them() -> None:
    engine = Engine()

    @engine.task()
    async def store(row: int, db: str = depends(connection)) -> None: ...

    async with engine:
        for arguments in ({"row": 1, "db": "mine"}, {}):
            with pytest.raises(BadParameters):
                await store.enqueue(**arguments)


async def test_a_provider_that_fails_fails_the_attempt() -> None:
    engine = Engine()

    def broken() -> None:
        raise OSError("nobody there")

    @engine.task(max_attempts=1)
    async def store(db: None = depends(broken)) -> None: ...

    async with engine:
        with pytest.raises(TaskFailed, match="nobody there"):
            await (await store.enqueue()).result(timeout=20)


def test_a_provider_of_what_nobody_gives_is_refused() -> None:
    def needs(number: int) -> int:
        return number

    with pytest.raises(SettingsError, match="'number'"):
        depends(needs)


def test_a_process_has_nothing_to_give() -> None:
    with pytest.raises(SettingsError, match="no Context"):
        Tasks().add("apart", needy, TaskOptions(executor="process"))


def needy(number: int, pid: int = depends(opened)) -> list[int]:
    return [number, pid, os.getpid()]


async def test_apart_they_are_given_there() -> None:
    tasks = Tasks()
    try:
        definition = tasks.add("needy", needy, TaskOptions())
        assert definition.apart is not None
        assert definition.context is not None

        async def send(number: int, data: bytes) -> None: ...

        ctx = Context("id", "needy", "default", 1, 3, send)
        number, given, pid = await definition.apart(5, **{definition.context: ctx})
        assert (number, given) == (5, pid)
        assert pid != os.getpid()
    finally:
        tasks.close()

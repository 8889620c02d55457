"""Jobs that run in a process of their own and know their context there."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asyncworker.errors import AsyncWorkerError
from asyncworker.queue.context import Context
from asyncworker.queue.job import Op
from asyncworker.queue.task import TaskOptions, Tasks


@asynccontextmanager
async def life() -> AsyncIterator[str]:
    yield f"resources of {os.getpid()}"


async def asked(word: str, ctx: Context, *, loud: bool = False) -> tuple[Any, ...]:
    return word, loud, ctx.id, ctx.task, ctx.deliveries, ctx.resources, ctx.headers["trace"], os.getpid()


def plain(ctx: Context, word: str) -> tuple[str, int]:
    return word + ctx.queue, os.getpid()


async def chunks(ctx: Context) -> None:
    await ctx.send_chunk(0, b"")


async def _send(op: Op, number: int, data: bytes) -> None:
    raise AssertionError("nothing is sent here")


def context() -> Context:
    return Context("the id", "the task", "the queue", 2, 3, _send, resources="ours", headers={"trace": "7"})


async def test_a_job_apart_knows_its_context_and_lives_in_its_lifespan() -> None:
    tasks = Tasks(life)
    try:
        apart = tasks.add("asked", asked, TaskOptions()).apart
        assert apart is not None
        word, loud, job_id, task, deliveries, resources, trace, pid = await apart("a", ctx=context(), loud=True)
        assert (word, loud, job_id, task, deliveries) == ("a", True, "the id", "the task", 3)
        assert trace == "7"
        assert pid != os.getpid()
        assert resources == f"resources of {pid}"
    finally:
        tasks.close()


async def test_a_plain_function_apart_knows_its_context() -> None:
    tasks = Tasks()
    try:
        apart = tasks.add("plain", plain, TaskOptions()).apart
        assert apart is not None
        said, pid = await apart(word="in ", ctx=context())
        assert said == "in the queue"
        assert pid != os.getpid()
        refuses = tasks.add("chunks", chunks, TaskOptions()).apart
        assert refuses is not None
        with pytest.raises(AsyncWorkerError, match="stores no part"):
            await refuses(ctx=context())
    finally:
        tasks.close()


async def test_what_cannot_be_found_by_name_is_not_run_apart() -> None:
    @asynccontextmanager
    async def local() -> AsyncIterator[None]:
        yield

    assert Tasks(local).add("asked", asked, TaskOptions()).apart is None
    assert Tasks().add("local", lambda: None, TaskOptions(executor="thread")).apart is None

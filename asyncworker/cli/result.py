"""``asyncworker result``: wait for a job and print its result."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from asyncworker.cli.command import Call, command
from asyncworker.cli.line import duration
from asyncworker.cli.summary import show_outcome
from asyncworker.cli.target import client_for
from asyncworker.cli.watch import watch
from asyncworker.job import JobHandle
from asyncworker.mapreduce.job import REDUCE_TASK


async def body(call: Call, job: str) -> int:
    """Print the result of a job: a summary of a map/reduce job, the value of any other.

    With --wait, or --timeout, it waits for the job's end and shows the progress of a map/reduce job; Ctrl-C
    ends the wait alone. Exit code 1: the job failed, or is not over.
    """
    async with client_for(call) as engine:
        return await show_result(call, engine.job(job))


async def show_result(call: Call, handle: JobHandle[Any]) -> int:
    settings = call.settings
    status = await handle.status()
    if not status.state.terminal and not settings.wait and settings.timeout is None:
        call.say(f"job {handle.id} is {status.state.value}; --wait waits for its end")
        return 1
    mapreduce = status.task == REDUCE_TASK
    try:
        async with asyncio.timeout(settings.timeout):
            if mapreduce and not status.state.terminal:
                await watch(call, handle, "job")
            if mapreduce:
                await show_outcome(call, handle.result())
                return 0
            value = await handle.result()
    except TimeoutError:
        call.say(f"job {handle.id} is not over after {duration(settings.timeout or 0)}; it goes on")
        return 1
    if isinstance(value, str) and not settings.json:
        call.show(value)
    else:
        call.document(value)
    return 0


COMMAND = command(
    "result",
    body,
    click.Argument(["job"]),
    flags=("broker", "namespace", "app", "result_store", "wait", "timeout", "json"),
    examples="""
  asyncworker result 01jd3k… --broker redis://localhost:6379/0
  asyncworker result 01jd3k… --wait
  asyncworker result 01jd3k… --timeout 10m --json""",
)

"""Tasks that kill whoever runs them, and some that do not."""

from __future__ import annotations

import asyncio
import os
import signal

from asyncworker import Context, Engine
from asyncworker.queue.task import TaskOptions

engine = Engine()


@engine.task()
async def good(number: int, ctx: Context) -> int:
    await asyncio.sleep(0.01)
    return number


@engine.task(max_deliveries=2)
async def exits() -> None:
    await asyncio.sleep(0.01)
    os._exit(3)


@engine.task(max_deliveries=2)
async def faults() -> None:
    await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGSEGV)


@engine.task(max_deliveries=2)
def is_killed() -> None:
    """Die as what takes all the memory there is."""
    os.kill(os.getpid(), signal.SIGKILL)


@engine.task(max_deliveries=2)
async def knows_its_job(ctx: Context) -> None:
    await asyncio.sleep(0.01)
    os._exit(4)


class Called:
    """What another process finds by no name: it cannot be run apart."""

    __name__ = "cannot_be_run_apart"

    async def __call__(self) -> None:
        await asyncio.sleep(0.01)
        os._exit(5)


engine.tasks.add("cannot_be_run_apart", Called(), TaskOptions(max_deliveries=2))

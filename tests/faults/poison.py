"""Tasks that kill whoever runs them, and some that do not."""

from __future__ import annotations

import asyncio
import os
import signal

from asyncworker import Context, Engine

engine = Engine()


@engine.task()
async def good(number: int) -> int:
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
async def cannot_be_run_apart(ctx: Context) -> None:
    await asyncio.sleep(0.01)
    os._exit(4)

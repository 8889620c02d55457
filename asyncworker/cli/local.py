"""Worker processes of a command's own: they work for one job here, and end with the command, however it ends."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from asyncworker.auto import PARTITION_QUEUE
from asyncworker.engine import Engine
from asyncworker.errors import AsyncWorkerError
from asyncworker.lifeline import Child
from asyncworker.queue.job import Depth
from asyncworker.settings import Settings, environment

LOOK_S = 0.05
START_PATIENCE_S = 30.0
"""A worker takes a third of a second to start; a busy machine may need many times that."""
STDERR = 2


@asynccontextmanager
async def local_workers(
    engine: Engine, settings: Settings, url: str, number: int, *, hurry_s: float
) -> AsyncIterator[None]:
    """Start *number* workers on the broker *url* and yield when they have joined; stop them afterwards.

    What is within is cancelled when none of them is left. Settings travel in their environment, where other users
    cannot read them. What they print goes to standard error, for standard output is the command's.

    Args:
        hurry_s: how long they may take to stop after an error or an interrupt; else it is the grace period.

    Raises:
        ExceptionGroup: of an AsyncWorkerError: all of them ended.
    """
    known = readers(await engine.broker.depth([]))
    own = Settings(
        broker=url,
        namespace=engine.namespace,
        app=settings.app,
        lease=engine.lease,
        grace_period=engine.grace_period,
        log_level="warning",
        debug=settings.debug,
    )
    command = [sys.executable, "-P", "-m", "asyncworker", "worker"]
    children = [Child(command, env=environment(own), stdout=STDERR) for _ in range(number)]
    grace_s = hurry_s
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_none_left(children), name="watch of the workers")
            await _joined(engine, known, number)
            yield
            grace_s = engine.grace_period
            watching.cancel()
    finally:
        await asyncio.gather(*(asyncio.to_thread(child.stop, signal.SIGTERM, grace_s) for child in children))


def readers(depth: Depth) -> set[str]:
    """Return the live workers that take partitions."""
    return {epoch for epoch, card in depth.workers.items() if PARTITION_QUEUE in card.queues}


async def _none_left(children: list[Child]) -> None:
    while any(child.running for child in children):  # noqa: ASYNC110 - the end of a process is no event of the loop
        await asyncio.sleep(LOOK_S)
    codes = ", ".join(sorted({str(child.wait()) for child in children}))
    raise AsyncWorkerError(f"all worker processes have ended (exit code {codes}); what they said stands above")


async def _joined(engine: Engine, known: set[str], number: int) -> None:
    deadline = time.monotonic() + START_PATIENCE_S
    while len(readers(await engine.broker.depth([])) - known) < number and time.monotonic() < deadline:  # noqa: ASYNC110 - nobody is told who joins
        await asyncio.sleep(LOOK_S)

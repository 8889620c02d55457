"""Worker processes of a command's own: they work for one job here, and end with the command, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator

from asyncworker.auto import PARTITION_QUEUE
from asyncworker.engine import Engine
from asyncworker.errors import AsyncWorkerError
from asyncworker.lifeline import Child
from asyncworker.queue.job import Depth
from asyncworker.settings import Settings, environment

LOOK_S = 0.05
START_PATIENCE_S = 30.0
"""A worker takes a third of a second to start; a busy machine may need many times that."""
STOP_PATIENCE_S = 5.0
"""How long a worker may take to hand back what it held, after its grace period; then it is killed."""
STDERR = 2


@contextlib.asynccontextmanager
async def local_workers(
    engine: Engine, settings: Settings, url: str, number: int, *, grace_s: float
) -> AsyncIterator[None]:
    """Start *number* workers on the broker *url* and yield when they have joined; stop them afterwards.

    What is within is cancelled when none of them is left. Settings travel in their environment, where other users
    cannot read them. What they print goes to standard error, for standard output is the command's.

    Args:
        grace_s: how long they may go on with what they run, when all is well or when this process dies; after an
            error or an interrupt they hand it back at once.

    Raises:
        ExceptionGroup: of an AsyncWorkerError: all of them ended.
    """
    known = readers(await engine.broker.depth([]))
    own = Settings(
        broker=url,
        namespace=engine.namespace,
        app=settings.app,
        lease=engine.lease,
        grace_period=grace_s,
        signing_key=tuple(engine.signing_keys),
        log_level="warning",
        no_profile=True,  # whoever waits for a dataset asked for its numbers, not for ours
        debug=settings.debug,
    )
    command = [sys.executable, "-P", "-m", "asyncworker", "worker"]
    children = [Child(command, env=environment(own), stdout=STDERR) for _ in range(number)]
    at_once = True
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_none_left(children), name="watch of the workers")
            await _joined(engine, known, number)
            yield
            at_once = False
            watching.cancel()
    finally:
        stops = [asyncio.to_thread(_stop, child, 0.0 if at_once else grace_s) for child in children]
        await asyncio.gather(*stops)


def readers(depth: Depth) -> set[str]:
    """Return the live workers that take partitions."""
    return {epoch for epoch, card in depth.workers.items() if PARTITION_QUEUE in card.queues}


def _stop(child: Child, grace_s: float) -> None:
    """Stop a worker. Two signals make it hand back at once what it runs; of one sort they would count as one."""
    if not grace_s and child.running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGINT)
    child.stop(signal.SIGTERM, grace_s + STOP_PATIENCE_S)


async def _none_left(children: list[Child]) -> None:
    while any(child.running for child in children):  # noqa: ASYNC110 - the end of a process is no event of the loop
        await asyncio.sleep(LOOK_S)
    codes = ", ".join(sorted({str(child.wait()) for child in children}))
    raise AsyncWorkerError(f"all worker processes have ended (exit code {codes}); what they said stands above")


async def _joined(engine: Engine, known: set[str], number: int) -> None:
    deadline = time.monotonic() + START_PATIENCE_S
    while len(readers(await engine.broker.depth([])) - known) < number and time.monotonic() < deadline:  # noqa: ASYNC110 - nobody is told who joins
        await asyncio.sleep(LOOK_S)

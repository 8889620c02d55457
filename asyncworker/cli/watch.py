"""Watching a job: its progress on standard error, and what is said when the watcher is interrupted."""

from __future__ import annotations

import asyncio
import shlex
from typing import Any

from asyncworker.cli.command import Call
from asyncworker.cli.progress import LOOK_EVERY_S, ProgressDisplay
from asyncworker.engine import Engine
from asyncworker.errors import BrokerError
from asyncworker.job import JobHandle
from asyncworker.secret import mask_url

PATIENCE_S = 3.0


async def watch(call: Call, handle: JobHandle[Any], title: str, *, shipping: bool = False) -> None:
    """Show a map/reduce job's progress until it is over; with *shipping*, until all its partitions are there."""
    with ProgressDisplay(title, call.err, live=call.live, colour=call.colour) as display:
        async for now in handle.progress(LOOK_EVERY_S[call.live]):
            display.update(now)
            if shipping and now.sealed:
                return


async def leave(call: Call, engine: Engine, handle: JobHandle[Any]) -> None:
    """Leave a job with its broker, where it has all its partitions; cancel it, where they come from here."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            (found,) = await engine.broker.find([handle.id])
            if found is None or found.children is None or found.children.sealed or not await handle.cancel():
                call.say(f"interrupted; job {handle.id} goes on, and this waits for its end: {wait(call, handle.id)}")
            else:
                call.say(f"interrupted; job {handle.id} is cancelled, for its partitions were still being shipped")
    except (BrokerError, TimeoutError):
        call.say(f"interrupted; the broker does not say what becomes of job {handle.id}: {wait(call, handle.id)}")


def wait(call: Call, job_id: str) -> str:
    """Return the command that waits for a job."""
    return _line(call, "asyncworker", "result", job_id, "--wait")


def resume(call: Call, job_id: str) -> str:
    """Return the command that does what is left of a job that failed."""
    return _line(call, "asyncworker", "run", "--resume", job_id)


def _line(call: Call, *given: str) -> str:
    """Return a command that names the broker where a variable or file does not."""
    words = list(given)
    for name in ("broker", "namespace", "app"):
        if call.origins[name].startswith("--"):
            words += [f"--{name}", mask_url(getattr(call.settings, name))]
    return shlex.join(words)

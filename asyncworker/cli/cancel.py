"""``asyncworker cancel``: end a job for good."""

from __future__ import annotations

import click

from asyncworker.cli.command import Call, command
from asyncworker.cli.target import client_for


async def body(call: Call, job: str) -> int:
    """End a job for good: at once where it waits, by asking its worker where it runs.

    The partitions of a map/reduce job go with it. Exit code 1: it was over already.
    """
    async with client_for(call) as engine:
        cancelled = await engine.job(job).cancel()
    if call.settings.json:
        call.document({"job_id": job, "cancelled": cancelled})
    else:
        call.say(f"job {job} is cancelled" if cancelled else f"job {job} was over already")
    return 0 if cancelled else 1


COMMAND = command(
    "cancel",
    body,
    click.Argument(["job"]),
    flags=("broker", "namespace", "app", "json"),
    examples="""
  asyncworker cancel 01jd3k… --broker redis://localhost:6379/0""",
)

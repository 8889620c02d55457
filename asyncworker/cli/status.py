"""``asyncworker status``: what is known about one job."""

from __future__ import annotations

import click
import msgspec

from asyncworker.cli.command import Call, command
from asyncworker.cli.line import date
from asyncworker.cli.table import show_table
from asyncworker.cli.target import client_for


async def body(call: Call, job: str) -> None:
    """Show where a job is: its state, attempts and times; of a map/reduce job its partitions, too.

    Of a job that waits for others it says how many of them are over, and names the first ten that are not.

    An id that nobody knows is exit code 2.
    """
    async with client_for(call) as engine:
        status = msgspec.structs.asdict(await engine.job(job).status())
    if call.settings.json:
        call.document(status)
        return
    rows = [
        (name.replace("_", " "), date(value) if name.endswith("_at") else _told(value))
        for name, value in status.items()
        if value is not None
    ]
    show_table(call, ("job", status.pop("id")), rows[1:])


def _told(value: object) -> object:
    return " ".join(value) if isinstance(value, tuple) else value


COMMAND = command(
    "status",
    body,
    click.Argument(["job"]),
    flags=("broker", "namespace", "app", "json"),
    examples="""
  asyncworker status 01jd3k… --broker redis://localhost:6379/0
  asyncworker status 01jd3k… --json""",
)

"""``asyncworker queues``: pause queues and bound them, for all who use the broker."""

from __future__ import annotations

import click

from asyncworker.cli.command import Call, command, group
from asyncworker.cli.line import duration, switches
from asyncworker.cli.table import show_table
from asyncworker.cli.target import client_for
from asyncworker.errors import BadParameters

FLAGS = ("broker", "namespace", "app", "json")
LIFTED = "off"


async def ls(call: Call) -> None:
    """List all queues that ever had a job: what waits there, and what is set."""
    async with client_for(call) as engine:
        queues = (await engine.broker.depth(await engine.admin.queues())).queues
    if call.settings.json:
        call.document(queues)
        return
    rows = [
        (
            name,
            of.queued,
            of.scheduled,
            of.blocked,
            duration(of.oldest_s) if of.queued else "",
            switches(of.paused, of.most),
        )
        for name, of in queues.items()
    ]
    show_table(call, ("queue", "queued", "scheduled", "blocked", "oldest", "set"), rows)


async def pause(call: Call, queue: str) -> None:
    """Hand out no more jobs of QUEUE. What runs goes on; what is enqueued, or becomes due, waits."""
    async with client_for(call) as engine:
        await engine.admin.pause(queue)
    _tell(call, queue, "paused", True)


async def resume(call: Call, queue: str) -> None:
    """Hand out the jobs of QUEUE again."""
    async with client_for(call) as engine:
        await engine.admin.resume(queue)
    _tell(call, queue, "paused", False)


async def bound(call: Call, queue: str, most: str) -> None:
    """Let at most MOST jobs wait in QUEUE ("off": any number); who enqueues more waits, or is refused."""
    if most != LIFTED and not (most.isascii() and most.isdigit()):
        raise BadParameters(f"MOST is a whole number, or {LIFTED}, not {most!r}")
    number = None if most == LIFTED else int(most)
    async with client_for(call) as engine:
        await engine.admin.bound(queue, number)
    _tell(call, queue, "most", number)


def _tell(call: Call, queue: str, name: str, value: bool | int | None) -> None:
    if call.settings.json:
        call.document({"queue": queue, name: value})
    elif name == "paused":
        call.say(f"queue {queue} {'is paused' if value else 'goes on'}")
    else:
        call.say(f"queue {queue} takes {'any number of jobs' if value is None else f'{value} jobs at most'}")


QUEUE = click.Argument(["queue"])
COMMAND = group(
    "queues",
    "List queues, pause and resume them, bound how many jobs may wait in them.",
    command("ls", ls, flags=FLAGS, examples="  asyncworker queues ls --broker redis://localhost:6379/0"),
    command("pause", pause, QUEUE, flags=FLAGS, examples="  asyncworker queues pause mail"),
    command("resume", resume, QUEUE, flags=FLAGS, examples="  asyncworker queues resume mail"),
    command(
        "bound",
        bound,
        QUEUE,
        click.Argument(["most"]),
        flags=FLAGS,
        examples="  asyncworker queues bound mail 10000\n  asyncworker queues bound mail off",
    ),
    examples="""
  asyncworker queues ls --broker redis://localhost:6379/0
  asyncworker queues pause mail
  asyncworker queues bound mail 10000""",
)

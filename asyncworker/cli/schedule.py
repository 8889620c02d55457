"""``asyncworker schedule``: what is enqueued by the calendar, seen and changed while workers run."""

from __future__ import annotations

import click

from asyncworker.cli.command import Call, command, group
from asyncworker.cli.dataset import json_object
from asyncworker.cli.enqueue import value_of
from asyncworker.cli.line import date
from asyncworker.cli.table import show_table
from asyncworker.cli.target import client_for
from asyncworker.errors import BadParameters

FLAGS = ("broker", "namespace", "app", "json")


async def ls(call: Call) -> None:
    """List the schedules that were added, and with --app those in the code of your engine."""
    async with client_for(call) as engine:
        planned = await engine.schedules.ls()
    if call.settings.json:
        shown = [
            {
                "name": one.schedule.name,
                "task": one.schedule.task,
                "when": str(one.schedule),
                "queue": one.schedule.queue,
                "missed": one.schedule.missed,
                "fixed": one.fixed,
                "last": one.last,
                "next": one.next,
            }
            for one in planned
        ]
        call.document(shown)
        return
    rows = [
        (
            one.schedule.name,
            one.schedule.task,
            str(one.schedule),
            date(one.last) if one.last else "never",
            date(one.next),
            "code" if one.fixed else "added",
        )
        for one in planned
    ]
    show_table(call, ("schedule", "task", "when", "last", "next", "from"), rows)


async def add(call: Call, name: str, called: str, args: tuple[str, ...]) -> None:
    """Enqueue TASK with ARGS at each tick of --cron, or --every so often; NAME is the schedule's, to change it by.

    Workers know it after ten seconds at most; each tick fires once, however many workers there are. Arguments are
    read as those of 'asyncworker enqueue'.
    """
    settings = call.settings
    options = {"queue": settings.names[0]} if settings.names else {}
    if len(settings.names) > 1:
        raise BadParameters("a schedule enqueues into one queue: give --queues one name")
    async with client_for(call) as engine:
        new = await engine.schedules.add(
            name,
            called,
            *map(value_of, args),
            cron=settings.cron or "",
            every=settings.every or 0.0,
            tz=settings.tz,
            missed=settings.missed,
            options=options,
            **json_object(settings.kwargs, "--kwargs"),
        )
    if settings.json:
        call.document({"name": name, "new": new})
    else:
        call.say(f"schedule {name} {'added' if new else 'changed'}")


async def rm(call: Call, name: str) -> None:
    """Remove the schedule NAME; what it has enqueued stays."""
    async with client_for(call) as engine:
        await engine.schedules.rm(name)
    if call.settings.json:
        call.document({"name": name, "removed": True})
    else:
        call.say(f"schedule {name} removed")


async def run(call: Call, name: str) -> None:
    """Enqueue the call of schedule NAME now, beside its ticks, and print the job's id."""
    async with client_for(call) as engine:
        handle = await engine.schedules.run(name)
    if call.settings.json:
        call.document({"job_id": handle.id})
    else:
        call.show(handle.id)


NAME = click.Argument(["name"])
COMMAND = group(
    "schedule",
    "Look after what is enqueued by the calendar.",
    command("ls", ls, flags=FLAGS, examples="  asyncworker schedule ls --app shop:engine"),
    command(
        "add",
        add,
        NAME,
        click.Argument(["called"], metavar="TASK"),
        click.Argument(["args"], nargs=-1, metavar="[ARGS]..."),
        flags=("cron", "every", "tz", "missed", "kwargs", "queues", *FLAGS),
        examples="""
  asyncworker schedule add nightly report --cron '0 3 * * *' --tz Europe/Berlin
  asyncworker schedule add poll fetch https://example.org --every 30s --missed skip""",
    ),
    command("rm", rm, NAME, flags=FLAGS, examples="  asyncworker schedule rm nightly"),
    command("run", run, NAME, flags=FLAGS, examples="  asyncworker schedule run nightly"),
    examples="""
  asyncworker schedule ls --broker redis://localhost:6379/0
  asyncworker schedule add nightly report --cron '0 3 * * *'
  asyncworker schedule run nightly""",
)

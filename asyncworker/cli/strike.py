"""``asyncworker strike``: keep workers from starting a task, or calls of it with certain arguments."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from asyncworker.cli.command import Call, command, group
from asyncworker.cli.enqueue import value_of
from asyncworker.cli.table import show_table
from asyncworker.cli.target import client_for
from asyncworker.errors import BadParameters

FLAGS = ("broker", "namespace", "app", "json")


async def ls(call: Call) -> None:
    """List what is struck."""
    async with client_for(call) as engine:
        strikes = await engine.strikes.ls()
    if call.settings.json:
        call.document(strikes)
        return
    rows = [(one.task, msgspec.json.encode(one.arguments, enc_hook=str).decode()) for one in strikes]
    show_table(call, ("task", "arguments"), rows)


async def add(call: Call, called: str, args: tuple[str, ...]) -> None:
    """Start no job of TASK, or none with all of these arguments (tenant=acme), until that is lifted.

    Workers know it after ten seconds at most. Struck jobs wait and spend no attempt; what runs goes on. Values are read as
    those of 'asyncworker enqueue'.
    """
    async with client_for(call) as engine:
        strike = await engine.strikes.add(called, **_arguments(args))
    _tell(call, strike.name, True)


async def rm(call: Call, called: str, args: tuple[str, ...]) -> None:
    """Lift the strike of TASK with these very arguments."""
    arguments = _arguments(args)
    async with client_for(call) as engine:
        await engine.strikes.rm(called, **arguments)
    _tell(call, " ".join((called, *args)), False)


def _arguments(words: tuple[str, ...]) -> dict[str, Any]:
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise BadParameters(f"an argument is written NAME=VALUE, such as tenant=acme, not {name!r}")
    return {name: value_of(value) for name, _, value in pairs}


def _tell(call: Call, name: str, struck: bool) -> None:
    if call.settings.json:
        call.document({"strike": name, "struck": struck})
    else:
        call.say(f"{name} {'is struck' if struck else 'goes on'}")


TASK = click.Argument(["called"], metavar="TASK")
ARGS = click.Argument(["args"], nargs=-1, metavar="[NAME=VALUE]...")
COMMAND = group(
    "strike",
    "Keep workers from starting a task, or calls of it with certain arguments.",
    command("ls", ls, flags=FLAGS, examples="  asyncworker strike ls --broker redis://localhost:6379/0"),
    command("add", add, TASK, ARGS, flags=FLAGS, examples="  asyncworker strike add mail tenant=acme"),
    command("rm", rm, TASK, ARGS, flags=FLAGS, examples="  asyncworker strike rm mail tenant=acme"),
    examples="""
  asyncworker strike add mail
  asyncworker strike add mail tenant=acme
  asyncworker strike rm mail tenant=acme""",
)

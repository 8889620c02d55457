"""``asyncworker enqueue``: call a task once, by name."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from asyncworker.cli.command import Call, command
from asyncworker.cli.dataset import json_object
from asyncworker.cli.result import show_result
from asyncworker.cli.target import client_for


async def body(call: Call, name: str, args: tuple[str, ...]) -> int:
    """Enqueue one call of TASK and print the job's id; with --wait, or --timeout, its result.

    Each argument is read as JSON where it is JSON (1, true, null, '"1"', '[1, 2]'), else it is a text.
    The task's code need not be here; with --app its own queue and options are known.
    """
    settings = call.settings
    named = json_object(settings.kwargs, "--kwargs")
    async with client_for(call) as engine:
        handle = await engine.enqueue(name, *map(value_of, args), **named)
        if settings.wait or settings.timeout is not None:
            return await show_result(call, handle)
    if settings.json:
        call.document({"job_id": handle.id})
    else:
        call.show(handle.id)
    return 0


def value_of(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text


COMMAND = command(
    "enqueue",
    body,
    click.Argument(["name"], metavar="TASK"),
    click.Argument(["args"], nargs=-1, metavar="[ARGS]..."),
    flags=("kwargs", "broker", "namespace", "app", "wait", "timeout", "json"),
    examples="""
  asyncworker enqueue fetch https://example.org --broker redis://localhost:6379/0
  asyncworker enqueue charge 42 --kwargs '{"currency": "EUR"}' --wait
  asyncworker enqueue add -- -1 2""",
)

"""``asyncworker submit``: leave a dataset with the workers and return."""

from __future__ import annotations

import asyncio

import click

from asyncworker.cli.command import Call, command
from asyncworker.cli.dataset import FLAGS, request
from asyncworker.cli.local import readers
from asyncworker.cli.target import client_for
from asyncworker.cli.watch import leave, wait, watch


async def body(call: Call, sources: tuple[str, ...]) -> None:
    """Leave a dataset with the workers of a broker, print the job's id, and return.

    It returns when the job has all its partitions: at once for files and tables that the workers can open
    themselves, else when the last of the items that must be shipped from here is on its way.
    """
    async with client_for(call) as engine:
        asked = request(call, engine, sources)
        handle = await asked.submit(call, engine)
        try:
            await watch(call, handle, "shipping", shipping=True)
        except asyncio.CancelledError:
            await leave(call, engine, handle)
            raise
        if not readers(await engine.broker.depth([])):
            call.say("no live worker reads this broker: the job waits until one is started")
    if call.settings.json:
        call.document({"job_id": handle.id})
    else:
        call.show(handle.id)
        call.say(f"wait for its end with: {wait(call, handle.id)}")


COMMAND = command(
    "submit",
    body,
    click.Argument(["sources"], nargs=-1, required=True, metavar="SOURCE..."),
    flags=FLAGS,
    examples="""
  asyncworker submit rows.jsonl -f word_count -p '{"field": "text"}' --broker redis://localhost:6379/0
  asyncworker submit 'postgresql://shop/db?table=public.orders&key=id' -f data_validation -p rules.json""",
)

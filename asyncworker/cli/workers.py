"""``asyncworker workers``: who works, where, on what, and since when."""

from __future__ import annotations

import time

import click

from asyncworker.cli.command import Call, command
from asyncworker.cli.line import duration
from asyncworker.cli.table import show_table
from asyncworker.cli.target import client_for


async def body(call: Call, **_: str) -> int:
    """List the live workers, and those who submit datasets: where they are, their queues, their age, how much they run.

    A worker is one incarnation of a process; it is live until its lease ends. "asyncworker top" shows what they do.
    Exit code 1: nobody works.
    """
    async with client_for(call) as engine:
        depth = await engine.broker.depth([])
    cards = sorted(depth.workers.items(), key=lambda one: (one[1].role, one[1].host, one[1].pid))
    now = time.time()
    if call.settings.json:
        call.document(
            [
                {
                    "epoch": epoch,
                    "age_s": max(0.0, now - card.started_s),
                    "running": depth.held.get(epoch, 0),
                    "card": card,
                }
                for epoch, card in cards
            ]
        )
    else:
        rows = [
            (
                epoch[:8],
                card.host,
                str(card.pid),
                card.role,
                depth.held.get(epoch, 0),
                card.concurrency or ("auto" if card.role == "worker" else 0),
                duration(max(0.0, now - card.started_s)),
                duration(card.lease_s),
                card.version,
                ",".join(card.queues),
            )
            for epoch, card in cards
        ]
        columns = ("epoch", "host", "pid", "role", "running", "at once", "age", "lease", "version", "queues")
        show_table(call, columns, rows)
    return 0 if any(card.role == "worker" for _, card in cards) else 1


COMMAND = command(
    "workers",
    body,
    click.Argument(["verb"], required=False, type=click.Choice(["ls"]), default="ls"),
    flags=("broker", "namespace", "app", "json"),
    examples="""
  asyncworker workers --broker redis://localhost:6379/0
  asyncworker workers ls --json""",
)

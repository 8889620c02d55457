"""``asyncworker jobs``: how much waits and runs, and who works."""

from __future__ import annotations

import time

from asyncworker.cli.command import Call, command
from asyncworker.cli.line import duration, switches
from asyncworker.cli.table import show_table
from asyncworker.cli.target import client_for

COUNTS = (
    "queued",
    "scheduled",
    "blocked",
    "enqueued",
    "succeeded",
    "failed",
    "cancelled",
    "expired",
    "retried",
    "redelivered",
)


async def body(call: Call) -> None:
    """Count the jobs of each queue, and list who works on them.

    "queued", "scheduled" and "blocked" (by a limit) are what lies there now; the other columns count all that ever passed. Queues that
    live workers read are looked at, too. One job is told by "asyncworker status JOB".
    """
    async with client_for(call) as engine:
        workers = (await engine.broker.depth([])).workers
        names = call.settings.names or tuple(
            dict.fromkeys([*engine.queues, *(name for card in workers.values() for name in card.queues)])
        )
        depth = await engine.broker.depth(names)
    cards = sorted(depth.workers.values(), key=lambda card: (card.role, card.host, card.pid))
    if call.settings.json:
        call.document({"running": depth.running, "queues": depth.queues, "workers": cards})
        return
    rows = [
        (
            name,
            *(getattr(of, field) for field in COUNTS),
            duration(of.oldest_s) if of.queued else "",
            switches(of.paused, of.most),
        )
        for name in names
        if (of := depth.queues.get(name)) is not None
    ]
    show_table(call, ("queue", *COUNTS, "oldest", "set"), rows)
    call.show(f"\n{depth.running} running in {len(cards)} live workers and submitters")
    if cards:
        now = time.time()
        show_table(
            call,
            ("host", "pid", "role", "concurrency", "since", "queues"),
            [
                (
                    card.host,
                    str(card.pid),
                    card.role,
                    card.concurrency or "auto",
                    duration(now - card.started_s),
                    ",".join(card.queues),
                )
                for card in cards
            ],
        )


COMMAND = command(
    "jobs",
    body,
    flags=("broker", "namespace", "app", "queues", "json"),
    examples="""
  asyncworker jobs --broker redis://localhost:6379/0
  asyncworker jobs --queues mail,reports --json""",
)

"""``asyncworker jobs``: how much waits and runs, and who works; ``jobs ls``: which jobs there are."""

from __future__ import annotations

import time
from contextlib import aclosing

import click

from asyncworker.cli.command import Call, command
from asyncworker.cli.line import date, duration, switches
from asyncworker.cli.table import show_table
from asyncworker.cli.target import client_for
from asyncworker.job import JobStatus

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


SHOWN = ("id", "task", "queue", "state", "attempt")


async def body(call: Call, verb: str | None) -> None:
    """Count the jobs of each queue, and list who works on them; with "ls", list the jobs.

    "queued", "scheduled" and "blocked" (by a limit) are what lies there now; the other columns count all that ever passed. Queues that
    live workers read are looked at, too. One job is told by "asyncworker status JOB".

    "ls" lists those of --state, --queues and --task that were enqueued since --since and before --until, both told as how
    long ago: first those that are over and still remembered, then those that run, are queued, are delayed, are blocked.
    """
    if verb is not None:
        await ls(call)
        return
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
                    card.concurrency or ("auto" if card.role == "worker" else 0),
                    duration(now - card.started_s),
                    ",".join(card.queues),
                )
                for card in cards
            ],
        )


async def ls(call: Call) -> None:
    """List jobs."""
    settings, now = call.settings, time.time()
    since, until = (None if ago is None else now - ago for ago in (settings.since, settings.until))
    listed: list[JobStatus] = []
    more = False
    async with client_for(call) as engine:
        for queue in settings.names or ("",):
            async with aclosing(
                engine.jobs(settings.state, queue=queue, task=settings.task or "", since=since, until=until)
            ) as jobs:
                async for job in jobs:
                    if more := not settings.all and len(listed) == settings.limit:
                        break
                    listed.append(job)
    if call.settings.json:
        call.document(listed)
        return
    rows = [(*(getattr(of, name) for name in SHOWN), date(of.enqueued_at), of.error or "") for of in listed]
    show_table(call, (*SHOWN, "enqueued", "error"), rows)
    if more:
        call.say(f"these are the first {len(listed)}; --limit or --all shows more")


COMMAND = command(
    "jobs",
    body,
    click.Argument(["verb"], required=False, type=click.Choice(["ls"])),
    flags=("broker", "namespace", "app", "state", "task", "queues", "since", "until", "limit", "all", "json"),
    examples="""
  asyncworker jobs --broker redis://localhost:6379/0
  asyncworker jobs --queues mail,reports --json
  asyncworker jobs ls --state failed,retrying --task mail --since 1h""",
)

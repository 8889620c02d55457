"""``asyncworker top``: what workers do right now, and where their time goes."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence

from asyncworker.cli.command import Call, command
from asyncworker.cli.line import duration, size
from asyncworker.cli.table import Rows, live_tables, show_table
from asyncworker.cli.target import kept_for
from asyncworker.daemon.instruments import ALONE_S, WATCHED_S, Look, looks, watch
from asyncworker.daemon.top import View, heard_of, view
from asyncworker.queue.keeps.keep import Keep

PATIENCE_S = ALONE_S + 3 * WATCHED_S
"""How long a first look waits for workers to notice it."""


async def body(call: Call) -> None:
    """Watch what workers do right now, and where their time goes.

    Of each task: how many run, and may at once; how many end a second, and in which time; and of a sample of them,
    how long a job was on the event loop, on the processor, and waiting. Of each worker: how busy its process and its
    event loop are, how late the loop is, and which lines of code held it. On a terminal it goes on until Ctrl-C;
    elsewhere, and with --once or --json, it shows the last second and ends.

    Workers that were started with --no-profile are not seen.
    """
    engine, keep = kept_for(call)
    try:
        if call.drawn and not call.settings.once and not call.settings.json:
            await _live(call, keep)
        else:
            found = await _first(keep)
            heard, silent = heard_of(found)
            _show(call, view(heard))
            if silent and not call.settings.json:
                call.say(f"no answer in time, so told as of up to a minute ago, or left out: {', '.join(silent)}")
    finally:
        await engine.close()


async def _first(keep: Keep) -> list[Look]:
    """Ask for looks until each worker has taken one since it was asked."""
    name, deadline = _name(), time.monotonic() + PATIENCE_S
    while True:
        await watch(keep, name)
        found = await looks(keep)
        if time.monotonic() > deadline or (found and all(look.watched for look in found)):
            return found
        await asyncio.sleep(WATCHED_S / 4)


async def _live(call: Call, keep: Keep) -> None:
    name, deadline = _name(), time.monotonic() + PATIENCE_S
    with live_tables(call) as draw:
        while True:
            await watch(keep, name)
            found = await looks(keep)
            draw(_tables(view(heard_of(found)[0] if time.monotonic() > deadline else found)))
            await asyncio.sleep(WATCHED_S)


def _name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _show(call: Call, told: View) -> None:
    if call.settings.json:
        call.document(told)
    elif not told.workers:
        call.say(
            "no worker can be seen there: it shows itself some seconds after its start, unless --no-profile is set"
        )
    else:
        for columns, rows in _tables(told):
            show_table(call, columns, rows)
            call.show("")


def _tables(told: View) -> list[tuple[Sequence[str], Rows]]:
    tasks = [
        (
            of.name,
            of.running,
            "" if of.limit is None else of.limit,
            f"{of.rate:.4g}",
            of.failed,
            *(
                "" if part is None else duration(part)
                for part in (of.p50_s, of.p95_s, of.on_loop_s, of.cpu_s, of.await_s)
            ),
        )
        for of in told.tasks
    ]
    workers = [
        (
            of.name,
            of.running,
            f"{of.cpu_ratio:.0%}",
            f"{of.loop_ratio:.0%}",
            duration(of.lag_p50_s),
            duration(of.lag_p99_s),
            of.held,
            size(of.rss_bytes),
            ",".join(of.queues),
        )
        for of in told.workers
    ]
    found: list[tuple[Sequence[str], Rows]] = [
        (("task", "running", "limit", "/s", "failed", "p50", "p95", "on loop", "cpu", "await"), tasks),
        (("worker", "running", "cpu", "loop", "lag p50", "lag p99", "held", "memory", "queues"), workers),
    ]
    if told.held:
        found.append((("slow lines", "worker"), list(told.held)))
    return found


COMMAND = command(
    "top",
    body,
    flags=("broker", "namespace", "app", "keep", "once", "json"),
    examples="""
  asyncworker top --broker redis://localhost:6379/0
  asyncworker top --once
  asyncworker top --json | jq '.tasks[] | {name, rate, p95_s}'""",
)

"""``asyncworker top``: what workers do right now, and where their time goes."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterable, Sequence

import msgspec

from asyncworker.cli.command import Call, command
from asyncworker.cli.line import duration, size
from asyncworker.cli.table import Rows, live_tables, show_table
from asyncworker.cli.target import kept_for
from asyncworker.daemon.instruments import ALONE_S, WATCHED_S, Look, looks, watch
from asyncworker.queue.keeps.keep import Keep
from asyncworker.tune.top import FunctionLoad, walls_of

PATIENCE_S = ALONE_S + 3 * WATCHED_S
"""How long a first look waits for workers to notice it."""
LINES = 8


class TaskTop(msgspec.Struct, frozen=True):
    """One task over all workers; durations of jobs that ended within the last second or so, None where none did.

    ``on_loop_s``, ``cpu_s`` and ``await_s`` are means of the jobs that were measured, None where none was.
    """

    name: str
    running: int
    limit: int | None
    rate: float
    failed: int
    p50_s: float | None
    p95_s: float | None
    on_loop_s: float | None
    cpu_s: float | None
    await_s: float | None


class WorkerTop(msgspec.Struct, frozen=True):
    name: str
    queues: tuple[str, ...]
    running: int
    cpu_ratio: float
    loop_ratio: float
    lag_p50_s: float
    lag_p99_s: float
    held: int
    rss_bytes: float


class View(msgspec.Struct, frozen=True):
    """What is shown; ``held`` are the lines of code that held an event loop lately, and in which worker."""

    tasks: list[TaskTop]
    workers: list[WorkerTop]
    held: list[tuple[str, str]]


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


def heard_of(found: Sequence[Look]) -> tuple[Sequence[Look], list[str]]:
    """Return the looks of workers that answer (all, where none does), and the names of those that do not.

    A worker that was killed does not answer, and is forgotten some minutes later; nor does one whose loop is held.
    """
    heard = [look for look in found if look.watched]
    return heard or found, [look.source for look in found if not look.watched]


def _name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def view(found: Sequence[Look]) -> View:
    """Put the looks at several workers together."""
    names = {of.name for look in found for of in look.snapshot.jobs if of.name}
    names |= {name.removeprefix("task ") for look in found for name in look.sizes if name.startswith("task ")}
    tasks = [_task(name, found) for name in names]
    tasks.sort(key=lambda of: (-of.rate, -of.running, of.name))
    workers = [
        WorkerTop(
            look.source,
            look.queues,
            sum(of.running for of in look.snapshot.jobs),
            look.snapshot.cpu_ratio,
            look.snapshot.loop_utilisation,
            look.snapshot.lag_p50_s,
            look.snapshot.lag_p99_s,
            look.snapshot.held,
            look.snapshot.memory.get("memory_rss_bytes", 0.0),
        )
        for look in found
    ]
    held = list(dict.fromkeys((hold, look.source) for look in found for hold in reversed(look.snapshot.holds)))
    return View(tasks, workers, held[:LINES])


def _task(name: str, found: Iterable[Look]) -> TaskTop:
    loads = [(of, look.snapshot.seconds) for look in found for of in look.snapshot.jobs if of.name == name]
    profiled = [of for look in found for of in look.snapshot.functions if of.name == name]
    limits = [look.sizes[f"task {name}"][0] for look in found if f"task {name}" in look.sizes]
    walls = walls_of(of for of, _ in loads)
    return TaskTop(
        name,
        sum(of.running for of, _ in loads),
        sum(limits) if limits else None,
        sum(of.ended / seconds for of, seconds in loads if seconds > 0),
        sum(of.failed for of, _ in loads),
        walls.quantile(0.5) if walls.count else None,
        walls.quantile(0.95) if walls.count else None,
        *(_mean(profiled, part) for part in ("on_loop_s", "cpu_s", "await_s")),
    )


def _mean(loads: Sequence[FunctionLoad], part: str) -> float | None:
    calls = sum(of.calls for of in loads)
    return sum(getattr(of, part) * of.calls for of in loads) / calls if calls else None


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

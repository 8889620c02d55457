"""What workers do right now, and where their time goes: the looks at each of them, put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from asyncworker.daemon.instruments import Look
from asyncworker.tune.top import FunctionLoad, walls_of

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


def heard_of(found: Sequence[Look]) -> tuple[Sequence[Look], list[str]]:
    """Return the looks of workers that answer (all, where none does), and the names of those that do not.

    A worker that was killed does not answer, and is forgotten some minutes later; nor does one whose loop is held.
    """
    heard = [look for look in found if look.watched]
    return heard or found, [look.source for look in found if not look.watched]


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

"""``asyncworker report``: where the time of a map/reduce job went."""

from __future__ import annotations

import click
import msgspec

from asyncworker.cli.command import Call, command
from asyncworker.cli.line import count, duration
from asyncworker.cli.table import show_table
from asyncworker.cli.target import client_for
from asyncworker.mapreduce.report import Report


async def body(call: Call, job: str) -> None:
    """Show where the time of a map/reduce job went, by step: planning, waiting, reading, mapping, sending, shuffling, reducing.

    With it the slowest partitions, what was tried again, and how uneven partitions were; of a job that runs also what is
    under way.

    An id that nobody knows is exit code 2.
    """
    async with client_for(call) as engine:
        told = await engine.job(job).report()
    if call.settings.json:
        call.document(msgspec.to_builtins(told))
        return
    show_table(call, ("job", told.job_id), _rows(told))
    call.show("")
    show_table(call, ("step", "work", "share", "from start to end"), _steps(told), "where the time went")
    if told.digest.slowest:
        call.show("")
        rows = [
            (one.partition, count(one.items), duration(one.seconds), one.tries, one.worker)
            for one in told.digest.slowest
        ]
        show_table(call, ("partition", "items", "time", "tries", "worker"), rows, "slowest partitions")
    if told.running:
        call.show("")
        running = [
            (
                f"{one.partition}{' (copy)' if one.copy else ''}",
                count(one.items),
                duration(one.seconds),
                duration(one.expected) if one.expected else "",
            )
            for one in told.running
        ]
        show_table(call, ("partition", "items", "so far", "expected"), running, "under way")


def _steps(told: Report) -> list[tuple[str, ...]]:
    """Return a row for each step; what all who did it took together, but for planning, which one does."""
    work = {"planning": told.stretches["planning"], **told.steps}
    busy = max(sum(work.values()) - work["waiting"] - work["planning"], 1e-9)
    return [
        (
            name,
            duration(seconds),
            "" if name in {"planning", "waiting"} else f"{seconds / busy:.0%}",
            duration(told.stretches[name]) if name in told.stretches else "",
        )
        for name, seconds in work.items()
    ]


def _rows(told: Report) -> list[tuple[str, object]]:
    digest = told.digest
    rows: list[tuple[str, object]] = [
        ("state", f"{told.state.value}{', ' + told.phase if told.phase else ''}"),
        ("time", duration(told.seconds)),
        ("items", count(told.items)),
        ("items/s", count(told.items_per_s)),
        ("partitions", f"{count(told.partitions_done)} of {count(told.partitions_total)}"),
    ]
    rows += [
        ("waiting", f"{duration(told.waiting_s)} a partition, for a worker"),
        ("skew", f"{told.skew:.1f} times the mean, the slowest partition"),
        ("partitions again", f"{count(digest.retries)} after errors, {count(digest.deaths)} after deaths of workers"),
        ("items again", count(digest.item_retries)),
        ("items taken over", f"{count(digest.resumed)} from checkpoints"),
    ]
    return rows


COMMAND = command(
    "report",
    body,
    click.Argument(["job"]),
    flags=("broker", "namespace", "app", "json"),
    examples="""
  asyncworker report 01jd3k… --broker redis://localhost:6379/0
  asyncworker report 01jd3k… --json""",
)

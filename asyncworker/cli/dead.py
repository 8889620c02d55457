"""``asyncworker dead``: look after jobs that failed for good."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from asyncworker.cli.command import Call, command, group
from asyncworker.cli.line import date
from asyncworker.cli.table import show_table
from asyncworker.cli.target import client_for
from asyncworker.engine import Engine
from asyncworker.errors import DecodeError, JobNotFound
from asyncworker.queue.codec import unpack_call, unpack_record
from asyncworker.queue.job import Found

WHICH = ("queues", "task")
WHERE = ("broker", "namespace", "app", "json")
COLUMNS = ("id", "task", "queue", "attempts", "reason", "error", "failed at")


async def ls(call: Call) -> None:
    """List dead letters, oldest jobs first; with --queues or --task only theirs."""
    async with client_for(call) as engine:
        letters = list(map(_letter, await _chosen(call, engine, ())))
    if call.settings.json:
        call.document(letters)
        return
    keys = ("id", "task", "queue", "attempt", "reason", "error")
    show_table(call, COLUMNS, [(*(of[key] for key in keys), date(of["failed_at"])) for of in letters])


async def show(call: Call, job: str) -> None:
    """Show one dead letter, with the arguments of its call."""
    async with client_for(call) as engine:
        (found,) = await _chosen(call, engine, (job,))
    letter = _letter(found)
    try:
        _, letter["args"], letter["kwargs"] = unpack_call(found.payload)
    except DecodeError as exc:
        letter["args"] = letter["kwargs"] = None
        letter["error"] = f"{letter['error']} ({exc})"
    if call.settings.json:
        call.document(letter)
        return
    letter["failed_at"] = date(letter["failed_at"])
    show_table(call, ("job", letter.pop("id")), [(name.replace("_", " "), value) for name, value in letter.items()])


async def replay(call: Call, letters: tuple[str, ...]) -> int:
    """Enqueue dead letters anew: by id, or those of --queues and --task, or --all.

    Each keeps its id, and its attempts begin at 1. Exit code 1: some stay, for their queue is full or another job has
    their unique key.
    """
    async with client_for(call) as engine:
        ids = await _asked(call, engine, letters, "replay")
        lives = dict(zip(ids, await engine.admin.replay(ids), strict=True))
    left = [job_id for job_id in ids if not lives[job_id]]
    if call.settings.json:
        call.document({"replayed": [job_id for job_id in ids if lives[job_id]], "left": left})
    else:
        call.say(f"{len(ids) - len(left)} dead letters replayed" + (f"; {len(left)} stay" if left else ""))
    return 1 if left else 0


async def purge(call: Call, letters: tuple[str, ...]) -> None:
    """Forget dead letters for ever: by id, or those of --queues and --task, or --all."""
    async with client_for(call) as engine:
        ids = await _asked(call, engine, letters, "purge")
        await engine.admin.purge(ids)
    if call.settings.json:
        call.document({"purged": ids})
    else:
        call.say(f"{len(ids)} dead letters purged")


async def _chosen(call: Call, engine: Engine, letters: Sequence[str]) -> list[Found]:
    settings = call.settings
    dead = await engine.admin.dead()
    for job in letters:
        if job not in dead:
            raise JobNotFound(f"{job!r} is no dead letter")
    found = [one for one in await engine.broker.find(letters or dead) if one]
    if settings.names:
        found = [one for one in found if one.queue in settings.names]
    if settings.task:
        found = [one for one in found if _letter(one)["task"] == settings.task]
    return found


async def _asked(call: Call, engine: Engine, letters: tuple[str, ...], verb: str) -> list[str]:
    """Return the ids that are meant, once the person has said so."""
    settings = call.settings
    if not (letters or settings.all or settings.names or settings.task):
        raise click.UsageError("say which: ids, --queues, --task or --all")
    ids = [one.id for one in await _chosen(call, engine, letters)]
    if ids and not letters and not settings.yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"--yes is needed to {verb} {len(ids)} dead letters where nobody can be asked")
        click.confirm(f"{verb} {len(ids)} dead letters?", abort=True, err=True)
    return ids


def _letter(found: Found) -> dict[str, Any]:
    record = unpack_record(found.record)
    task = record.task
    if not task:
        try:
            task = unpack_call(found.payload)[0]
        except DecodeError:
            task = "?"
    error = f"{record.error_type}: {record.error_text}" if record.error_type else record.error_text
    return {
        "id": found.id,
        "task": task,
        "queue": found.queue,
        "priority": found.priority,
        "attempt": record.attempt,
        "deliveries": found.deliveries,
        "reason": record.reason,
        "error": error,
        "failed_at": record.ended_s,
    }


LETTERS = click.Argument(["letters"], nargs=-1, metavar="[JOB]...")
COMMAND = group(
    "dead",
    "List dead letters (jobs that failed for good), show, replay and purge them.",
    command("ls", ls, flags=(*WHICH, *WHERE), examples="  asyncworker dead ls --task charge"),
    command("show", show, click.Argument(["job"]), flags=WHERE, examples="  asyncworker dead show 01jd3k…"),
    command(
        "replay",
        replay,
        LETTERS,
        flags=(*WHICH, "all", "yes", *WHERE),
        examples="  asyncworker dead replay 01jd3k…\n  asyncworker dead replay --task charge --yes",
    ),
    command(
        "purge",
        purge,
        LETTERS,
        flags=(*WHICH, "all", "yes", *WHERE),
        examples="  asyncworker dead purge 01jd3k…\n  asyncworker dead purge --all",
    ),
    examples="""
  asyncworker dead ls --broker redis://localhost:6379/0
  asyncworker dead replay 01jd3k…
  asyncworker dead purge --queues mail --yes""",
)

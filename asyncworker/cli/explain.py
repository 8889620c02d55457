"""``asyncworker explain``: which sizes were decided on, and because of what."""

from __future__ import annotations

import time
from collections.abc import Sequence

from asyncworker.cli.command import Call, command
from asyncworker.cli.line import count, date, duration
from asyncworker.cli.table import show_table
from asyncworker.cli.target import kept_for
from asyncworker.daemon.explained import Explained, Sized, explained
from asyncworker.engine import Engine
from asyncworker.queue.archive import EVERY_S, history
from asyncworker.secret import mask_url

SHOWN = 40
"""Decisions that a terminal shows unless told to show all."""
CAUSES = 3
STYLES = {"undone": "red", "up": "green", "down": "yellow"}


async def body(call: Call) -> None:
    """Show which sizes were decided on, and because of what.

    Workers whose sizes are "auto" write each decision down: what was sized, from what to what, the evidence, and
    whether it was undone since because it did harm. The last thousand are kept, also when the workers are gone, but
    for those that only try what is nearby: these are counted with all others in the first table, in stretches of ten
    seconds.
    """
    settings = call.settings
    engine, keep = kept_for(call)
    try:
        known = await history(keep)
    finally:
        await engine.close()
    begin = time.time() - settings.since if settings.since is not None else 0.0
    told = explained(known, settings.task or "", begin)
    sized, decisions = told.sizes, told.decisions
    if settings.json:
        call.document(told)
    elif sized or decisions:
        _show_sizes(call, sized)
        _show_decisions(call, decisions)
    else:
        call.say(_nothing(call, engine))


def _show_sizes(call: Call, sized: Sequence[Sized]) -> None:
    if not sized:
        return
    now = time.time()
    rows = [
        (
            of.name,
            of.size,
            f"{of.low}..{of.high}",
            of.changes,
            of.undone,
            "" if of.rate is None else f"{of.rate:.4g}/s",
            ", ".join(f"{cause} ({count(number)})" for cause, number in list(of.causes.items())[:CAUSES]),
            duration(now - of.since_s),
        )
        for of in sized
    ]
    show_table(call, ("what", "size", "was", "changes", "undone", "done", "mostly because", "over"), rows)


def _show_decisions(call: Call, decisions: Sequence[Explained]) -> None:
    if not decisions:
        return
    shown = decisions if call.settings.all or not call.drawn else decisions[-SHOWN:]
    rows = [
        (date(one.at_s), one.name, one.old, one.new, "undone" if one.undone else "", one.because, one.source)
        for one in shown
    ]
    styles = [STYLES["undone" if one.undone else "up" if one.new > one.old else "down"] for one in shown]
    call.show("")
    show_table(call, ("when", "what", "from", "to", "", "because", "by"), rows, styles=styles)
    if len(shown) < len(decisions):
        call.say(f"{len(decisions) - len(shown)} earlier ones: --all shows them")


def _nothing(call: Call, engine: Engine) -> str:
    settings = call.settings
    of = f" about {settings.task!r}" if settings.task else ""
    when = f" in the last {duration(settings.since)}" if settings.since is not None else ""
    place = mask_url(engine.keep_at or engine.url)
    return (
        f"nothing was decided{of}{when}, as far as {place} knows (namespace {engine.namespace}): workers write there"
        f" every {EVERY_S:g} s what they decide; a number that was given (--concurrency 20) is not decided about"
    )


COMMAND = command(
    "explain",
    body,
    flags=("broker", "namespace", "app", "keep", "task", "since", "all", "json"),
    examples="""
  asyncworker explain --broker redis://localhost:6379/0
  asyncworker explain --task mail --since 10m
  asyncworker explain --json | jq '.decisions[] | select(.undone)'""",
)

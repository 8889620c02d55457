"""How a job gets on: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Self, TextIO

from asyncworker.cli.line import count, duration, one_line
from asyncworker.clock import SYSTEM, Clock
from asyncworker.mapreduce.job import Progress

LINE_EVERY_S = 5.0
LINES = 10
"""Without a terminal a line is written after so long, and whenever another tenth of the job is done."""
LOOK_EVERY_S = {True: 0.1, False: 0.5}
"""How often to look, by whether it is live: two round trips each."""


class ProgressDisplay:
    """Show one job; use as a context manager.

    Args:
        live: whether *stream* is a terminal, where a bar can move; without *colour* it is grey.
    """

    def __init__(self, title: str, stream: TextIO, *, live: bool, colour: bool = True, clock: Clock = SYSTEM) -> None:
        self._title, self._stream, self._clock = one_line(title), stream, clock
        self._bar = bar(stream, colour=colour) if live else None
        self._row = self._bar.add_task(self._title, words="") if self._bar else None
        self._written_at, self._tenths = float("-inf"), 0

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    async def follow(self, looks: AsyncIterator[Progress]) -> None:
        """Show each look until the last."""
        async for now in looks:
            self.update(now)

    def update(self, now: Progress) -> None:
        if self._bar:
            known = now.total if now.sealed else None
            self._bar.update(self._row, completed=now.done, total=known, words=words(now), refresh=True)
            return
        at, tenths = self._clock.monotonic(), int(now.ratio * LINES + 1e-9)
        if now.state.terminal or at - self._written_at >= LINE_EVERY_S or tenths > self._tenths:
            self._written_at, self._tenths = at, tenths
            self._stream.write(f"{self._title}: {words(now)}\n")
            self._stream.flush()


def words(now: Progress) -> str:
    """Return how far a job is, as people say it."""
    told = [now.state.value] if now.state.terminal or not now.done else []
    if now.total:
        share = f" ({now.ratio:.0%})" if now.sealed else ""
        told.append(f"{count(now.done)}/{count(now.total)}{'' if now.sealed else '+'} partitions{share}")
    if now.items:
        told += [f"{count(now.items)} items", f"{count(now.items_per_s)} items/s"]
    if now.phase in {"planning", "reducing"}:  # else it maps
        told.append(now.phase)
    if now.eta_s and not now.state.terminal:
        told.append(f"{duration(now.eta_s)} left")
    if now.failed:
        told.append(f"{count(now.failed)} failed")
    return ", ".join(told)


def bar(stream: TextIO, *, colour: bool) -> Any:
    """Return a `rich` progress display, not yet started, whose rows have a field ``words``."""
    from rich.console import Console  # noqa: PLC0415 - slow to import, and most calls draw nothing
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - as above

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[words]}", markup=False),
        console=Console(file=stream, no_color=not colour),
        auto_refresh=False,
    )

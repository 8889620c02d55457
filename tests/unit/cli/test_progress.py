from __future__ import annotations

import io
import os
import pty
import re
from collections.abc import AsyncIterator

from asyncworker.cli.progress import ProgressDisplay, words
from asyncworker.mapreduce.job import Progress
from asyncworker.queue.job import State

HALF = Progress(State.RUNNING, done=5, total=10, items=50_000, items_per_s=12_345.6, eta_s=4.05, failed=1, sealed=True)


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> float:
        return self.time


def running(done: int, total: int = 100) -> Progress:
    return Progress(State.RUNNING, done=done, total=total, sealed=True)


def test_the_words_tell_partitions_items_rate_time_left_and_failures() -> None:
    assert words(HALF) == "5/10 partitions (50%), 50,000 items, 12,346 items/s, 4 s left, 1 failed"
    assert words(Progress(State.QUEUED)) == "queued"
    assert words(Progress(State.RUNNING, done=1, total=3)) == "1/3+ partitions, planning"
    assert words(Progress(State.RUNNING, done=3, total=3, sealed=True)) == "3/3 partitions (100%), reducing"
    done = Progress(State.SUCCEEDED, 10, 10, 27_004, 9_000.0, 0.0, 0, sealed=True)
    assert words(done) == "succeeded, 10/10 partitions (100%), 27,004 items, 9,000 items/s"


def test_in_a_pipe_a_line_is_written_every_ten_percent() -> None:
    out = io.StringIO()
    with ProgressDisplay("job", out, live=False, clock=Hands()) as display:
        for done in range(101):
            display.update(running(done))
        display.update(Progress(State.SUCCEEDED, 100, 100, sealed=True))
    lines = out.getvalue().splitlines()
    assert len(lines) == 12
    assert lines[0] == "job: running, 0/100 partitions (0%)"
    assert lines[1] == "job: 10/100 partitions (10%)"
    assert lines[-1] == "job: succeeded, 100/100 partitions (100%)"


def test_in_a_pipe_a_line_is_written_every_few_seconds() -> None:
    out, clock = io.StringIO(), Hands()
    with ProgressDisplay("job", out, live=False, clock=clock) as display:
        for _ in range(100):
            display.update(running(1))
            clock.time += 0.5
    assert len(out.getvalue().splitlines()) == 10


def test_a_title_stays_on_one_line() -> None:
    out = io.StringIO()
    with ProgressDisplay("a\n\x1b[31mb\u202e", out, live=False) as display:
        display.update(running(1))
    assert out.getvalue() == "a\\n\\x1b[31mb\\u202e: 1/100 partitions (1%)\n"


async def test_it_follows_a_job_to_its_end() -> None:
    async def looks() -> AsyncIterator[Progress]:
        yield running(50)
        yield Progress(State.FAILED, 50, 100, sealed=True)

    out = io.StringIO()
    with ProgressDisplay("job", out, live=False) as display:
        await display.follow(looks())
    assert out.getvalue().splitlines()[-1].startswith("job: failed")


def on_a_terminal(*, colour: bool) -> str:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w", encoding="utf-8") as stream:
        with ProgressDisplay("validate [bold]", stream, live=stream.isatty(), colour=colour) as display:
            display.update(Progress(State.RUNNING, done=1, total=3))
            display.update(HALF)
        shown = os.read(leader, 100_000).decode()
    os.close(leader)
    return shown


def test_on_a_terminal_a_bar_is_redrawn_in_place(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = on_a_terminal(colour=True)
    assert "━" in shown
    assert "\x1b[2K" in shown, "a line is erased before it is drawn again"
    assert re.search(r"\x1b\[[0-9;]*38;5;", shown), "it is coloured"
    assert "validate [bold]" in shown
    assert "5/10 partitions (50%), 50,000 items" in shown.replace("\r\n", " ")


def test_on_a_terminal_without_colour_nothing_is_coloured(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7;]*m", on_a_terminal(colour=False))

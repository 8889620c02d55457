"""Who holds what they borrowed, since when, and where in the code they borrowed it; and which of them leak.

Two things give a leak away. The task that borrowed has ended and the thing is not back: that is told at once. Or it is
held much longer than others are: that is a guess, and taken back when the thing comes home.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import events
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any
from weakref import ref

import msgspec

from asyncworker.tune.histogram import LogHistogram
from asyncworker.tune.sensors.sensor import Reading

DEPTH = 8
"""Frames that are remembered of a borrowing call: its own line first, then those who called it."""
USUAL = 3.0
"""A borrow is late at so many times the 99th percentile of those that came back; HikariCP leaves this to the user."""
ENOUGH = 20
"""Borrows that must have come back before their percentile says anything."""

OVER = "its task has ended"
LATE = "held much longer than others"


class Place(msgspec.Struct, frozen=True):
    """A line of code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


class Leak(msgspec.Struct, frozen=True):
    """Something borrowed that seems not to come back.

    Attributes:
        places: the line that borrowed, then its callers.
        task: the name of the task that borrowed, empty where there was none.
        because: `OVER` or `LATE`.
    """

    places: tuple[Place, ...]
    task: str
    held_s: float
    because: str

    @property
    def place(self) -> Place:
        return self.places[0]

    def __str__(self) -> str:
        return f"borrowed at {self.place}, {self.held_s:.1f} s ago; {self.because}"


class Borrow:
    """One thing that is out. Made where it is asked for, so that line and task are those of who asks."""

    __slots__ = ("_frames", "_name", "_on_over", "began", "because", "task", "thing")

    def __init__(self, skip: int = 1) -> None:
        """Remember the calling line, without the nearest *skip* frames. Cost: 1.5 us."""
        self._frames = _frames(skip + 1)
        task = asyncio.current_task()
        self.task = ref(task) if task is not None else None
        self._name = task.get_name() if task is not None else ""
        self.began = 0.0
        self.because = ""
        self.thing: Any = None
        self._on_over: Callable[[Any], None] | None = None

    def watch(self, on_over: Callable[[Borrow], None]) -> None:
        """Have *on_over* called when the task ends before `unwatch`."""
        if (task := self.task() if self.task else None) is not None:
            self._on_over = lambda _: on_over(self)
            task.add_done_callback(self._on_over)

    def unwatch(self) -> None:
        if self._on_over is not None and (task := self.task() if self.task else None) is not None:
            task.remove_done_callback(self._on_over)
        self._on_over = None

    def leak(self, now: float) -> Leak:
        places = tuple(Place(*frame) for frame in self._frames)
        return Leak(places, self._name, now - self.began, self.because)


class BorrowsSensor:
    """Watch what is out of one pool, in one event loop.

    Args:
        late_s: seconds after which a borrow is late at the earliest; what is usual may move that up, never down.
        on_leak, on_return: called once for each leak when it is found; and when it comes back after all.
    """

    def __init__(
        self,
        pool: str,
        *,
        late_s: float = 2.0,
        on_leak: Callable[[Leak], None] | None = None,
        on_return: Callable[[Leak], None] | None = None,
    ) -> None:
        self._pool, self._late_s = pool, late_s
        self._on_leak, self._on_return = on_leak, on_return
        self._out: dict[int, Borrow] = {}
        self._holds = LogHistogram()
        self._back = 0
        self._suspects = 0
        self.leaks = 0
        """Leaks found so far, also those that came back."""

    @property
    def out(self) -> int:
        return len(self._out)

    @property
    def suspects(self) -> int:
        """Return how many of those that are out seem not to come back."""
        return self._suspects

    @property
    def late_s(self) -> float:
        """Return the seconds after which a borrow is late now."""
        return max(self._late_s, USUAL * self._holds.quantile(0.99)) if self._back >= ENOUGH else self._late_s

    def begin(self, borrow: Borrow, thing: Any) -> None:
        borrow.thing, borrow.began = thing, asyncio.get_running_loop().time()
        self._out[id(thing)] = borrow
        borrow.watch(self._over)

    def end(self, thing: Any) -> tuple[Borrow, float] | None:
        """Take note that a thing is back; returns its borrow and the seconds it was out, None where it was not."""
        borrow = self._out.pop(id(thing), None)
        if borrow is None:
            return None
        borrow.unwatch()
        held = asyncio.get_running_loop().time() - borrow.began
        self._holds.add(held)
        self._back += 1
        if borrow.because:
            self._suspects -= 1
            if self._on_return:
                self._on_return(borrow.leak(borrow.began + held))
        return borrow, held

    def look(self) -> list[Leak]:
        """Return all that seems to leak now, the longest held first."""
        now, late = asyncio.get_running_loop().time(), self.late_s
        for borrow in self._out.values():
            if not borrow.because and now - borrow.began > late:
                self._suspect(borrow, LATE, now)
        leaks = [borrow.leak(now) for borrow in self._out.values() if borrow.because]
        return sorted(leaks, key=lambda leak: -leak.held_s)

    def read(self) -> Sequence[Reading]:
        labels = (("pool", self._pool),)
        return (
            Reading("pool_leaks_total", self.leaks, labels),
            Reading("pool_borrows", len(self._out), labels),
        )

    def close(self) -> None:
        for borrow in self._out.values():
            borrow.unwatch()
        self._out.clear()
        self._suspects = 0

    def _over(self, borrow: Borrow) -> None:
        if not borrow.because:
            self._suspect(borrow, OVER, asyncio.get_running_loop().time())

    def _suspect(self, borrow: Borrow, because: str, now: float) -> None:
        borrow.because = because
        self._suspects += 1
        self.leaks += 1
        if self._on_leak:
            self._on_leak(borrow.leak(now))


def _frames(skip: int) -> list[tuple[str, int, str]]:
    """Return file, line and function of the callers, up to the event loop; no text is made of them yet."""
    found: list[tuple[str, int, str]] = []
    frame: FrameType | None = sys._getframe(skip + 1)  # noqa: SLF001 - the documented way to a frame without a traceback
    while frame is not None and len(found) < DEPTH and frame.f_code.co_filename != events.__file__:
        found.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return found

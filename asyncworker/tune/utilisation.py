"""How busy the event loop is, from a beat in it and the CPU clock of its thread."""

from __future__ import annotations

import asyncio
from time import perf_counter, thread_time

from asyncworker.tune.beat import EVERY_S, Beat

LATE_S = 0.002
"""Timers may come a millisecond late of themselves: select counts in these."""
WINDOW_S = 1.0


class Utilisation:
    """Take in the beats of the loop in whose thread it was made, window by window.

    Attributes: ``ratio``, the busy share of the last window, 0..1: on the CPU, or too late to be idle, whichever is
    more. On a machine whose processors are wanted by others, too, a full loop is not on the CPU all the time.
    """

    def __init__(self, window_s: float | None = None) -> None:
        self.ratio = 0.0
        self._window_s = WINDOW_S if window_s is None else window_s
        self._began, self._cpu, self._late = perf_counter(), thread_time(), 0.0

    def beat(self, lag: float) -> None:
        """Take in one of `Beat`'s."""
        if lag > LATE_S:
            self._late += EVERY_S  # which this beat stands for
        now = perf_counter()
        if (wall := now - self._began) >= self._window_s:
            cpu = thread_time()
            self.ratio = min(1.0, max(cpu - self._cpu, self._late) / wall)
            self._began, self._cpu, self._late = now, cpu, 0.0


class LoopLoad:
    """How busy the running loop is, for those who want to know it only at times: watching wakes it 100 times a second."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._busy: Utilisation | None = None
        self._beat: Beat | None = None

    @property
    def ratio(self) -> float:
        """The busy share of the last window, 0..1; 0 where it is not watched."""
        return 0.0 if self._busy is None else self._busy.ratio

    def watch(self) -> None:
        """Watch from now on, if that is not so already."""
        if self._beat is None:
            self._busy = Utilisation(self._window_s)
            self._beat = Beat(asyncio.get_running_loop(), self._busy.beat)

    def rest(self) -> None:
        """Watch no more."""
        if self._beat is not None:
            self._beat.stop()
            self._beat = self._busy = None

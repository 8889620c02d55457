"""A beat in the event loop, 100 times a second: how late it comes is how long what is ready waits for its turn.

A beat takes the way of a task that slept: a timer falls due, and what it wakes is called a round later. Several are
under way at any time, so a loop that is held answers for each beat that fell into the hold, at the place where it
really comes; one late beat among many good ones would hide the worst second (coordinated omission).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter

EVERY_S = 0.01
AHEAD = 50
"""Beats under way: in rounds of up to half a second, each beat comes at its own place."""


class Beat:
    """Call *on_beat* with the lag in seconds of each beat, in the loop's thread, until stopped.

    All beats of a loop are one, whoever listens. Attributes: ``last``, when the last beat came (`time.perf_counter`),
    which other threads may read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_beat: Callable[[float], None]) -> None:
        heart = _HEARTS.get(loop)
        if heart is None:
            for ended in [other for other in _HEARTS if other.is_closed()]:
                del _HEARTS[ended]
            heart = _HEARTS[loop] = _Heart(loop)
        self._heart, self._on_beat = heart, on_beat
        heart.listeners = (*heart.listeners, on_beat)

    @property
    def last(self) -> float:
        return self._heart.last

    def stop(self) -> None:
        heart = self._heart
        left = list(heart.listeners)
        if self._on_beat in left:
            left.remove(self._on_beat)
        heart.listeners = tuple(left)
        if not left:
            heart.stop()


class _Heart:
    """What beats in one loop, for its listeners."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.listeners: tuple[Callable[[float], None], ...] = ()
        self.last = perf_counter()
        self._timers = deque[asyncio.TimerHandle]()
        self._stopped = False
        for number in range(1, AHEAD + 1):
            self._send(self.last + number * EVERY_S)

    def stop(self) -> None:
        self._stopped = True
        if _HEARTS.get(self._loop) is self:
            del _HEARTS[self._loop]
        for timer in self._timers:
            timer.cancel()

    def _send(self, due: float) -> None:
        self._timers.append(self._loop.call_later(max(0.0, due - perf_counter()), self._wake, due))

    def _wake(self, due: float) -> None:
        if not self._stopped:
            self._timers.popleft()  # they fall due in the order in which they were sent
            self._loop.call_soon(self._arrive, due)

    def _arrive(self, due: float) -> None:
        if self._stopped:
            return
        self.last = now = perf_counter()
        self._send(due + AHEAD * EVERY_S)
        lag = max(0.0, now - due)
        for on_beat in self.listeners:
            on_beat(lag)


_HEARTS: dict[asyncio.AbstractEventLoop, _Heart] = {}

"""A beat in the event loop, 100 times a second: how late it comes is how long a ready callback waits for its turn.

A loop that is held for a second misses a hundred beats. They count as well, each with the lag that it would have
had; else the worst second would look like one late beat among many good ones (coordinated omission).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

EVERY_S = 0.01
MOST = 1_000
"""Missed beats that are told of after one stop, at most: ten seconds' worth."""


class Beat:
    """Call *on_beat* with the lag in seconds of each beat, in the loop's thread, until stopped.

    Attributes: ``last``, when the last beat came (`time.perf_counter`), which other threads may read.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_beat: Callable[[float], None], every: float = EVERY_S
    ) -> None:
        self._loop, self._on_beat, self._every = loop, on_beat, every
        self.last = perf_counter()
        self._due = self.last + every
        self._handle = loop.call_later(every, self._tick)

    def stop(self) -> None:
        self._handle.cancel()

    def _tick(self) -> None:
        self.last = now = perf_counter()
        lag = max(0.0, now - self._due)
        missed = int(lag / self._every)
        self._due += (missed + 1) * self._every
        self._handle = self._loop.call_later(max(0.0, self._due - now), self._tick)
        for number in range(min(missed, MOST) + 1):
            self._on_beat(lag - number * self._every)

"""The two clocks: one to measure with, one to date with. Tests pass a clock of their own."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where a part of the engine reads the time."""

    def monotonic(self) -> float:
        """Return seconds that only grow: for durations, leases and timeouts."""
        ...

    def now(self) -> float:
        """Return seconds since the epoch: for dates shown to people, never for leases."""
        ...


class SystemClock:
    """The machine's clocks; each job is dated by them, so nothing stands between."""

    monotonic = staticmethod(time.monotonic)
    now = staticmethod(time.time)


SYSTEM = SystemClock()

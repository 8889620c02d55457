"""A clock that stands still until a test moves it."""

from __future__ import annotations


class FrozenClock:
    """Satisfies `asyncworker.clock.Clock`; both times move together, but in `jump`."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0

    def monotonic(self) -> float:
        return self._monotonic

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Set the date alone, as an administrator does."""
        self._now += seconds

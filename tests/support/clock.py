"""A clock that stands still until a test moves it, or sets its date."""

from __future__ import annotations

import asyncio

from asyncworker import testing


class FrozenClock(testing.FrozenClock):
    """Satisfies `asyncworker.clock.Clock`; both times move together, but in `jump`."""

    def jump(self, seconds: float) -> None:
        """Set the date alone, as an administrator does."""
        self._now += seconds


class PassingTime:
    """A clock on which time passes when somebody sleeps, until ``end``."""

    def __init__(self, now: float) -> None:
        self.s = now
        self.end = float("inf")

    def monotonic(self) -> float:
        return self.s

    def now(self) -> float:
        return self.s

    async def sleep(self, seconds: float) -> None:
        while self.s >= self.end:
            await asyncio.sleep(0.001)
        self.s += seconds
        await asyncio.sleep(0)

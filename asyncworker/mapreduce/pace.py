"""Pace: how much of a job may be on its way before some of it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

A_ROUND_TRIP = 1000
LOOK_S = 2.0
"""How often it is looked how many workers there are."""


class Flow:
    """How much of a job may be on its way: *most* windows of *window* partitions, not yet over.

    Args:
        ahead: is asked again for *most*, each `LOOK_S`, where it can be.

    ``until``: when all bounds go, by the clock's monotonic time, or as soon as *hurry* is set; None: never.
    """

    def __init__(self, most: int, window: int, ahead: int | Callable[[], Awaitable[int]] | None = None) -> None:
        self.most, self.window = most, window
        self.until: float | None = None
        self.hurry = asyncio.Event()
        self._ahead = ahead if callable(ahead) else None
        self._look_at = 0.0

    def bounded(self, now: float) -> bool:
        """Return whether there are bounds; from here on there are none when their time is over."""
        if self.until is not None and (now >= self.until or self.hurry.is_set()):
            self.window = A_ROUND_TRIP
            return False
        return True

    async def look(self, now: float) -> int:
        """Return how many windows there may be."""
        if self._ahead is not None and now >= self._look_at:
            if self._look_at:
                self.most = await self._ahead()
            self._look_at = now + LOOK_S
        return max(self.most, 1)

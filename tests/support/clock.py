"""A clock that stands still until a test moves it, or sets its date."""

from __future__ import annotations

from asyncworker import testing


class FrozenClock(testing.FrozenClock):
    """Satisfies `asyncworker.clock.Clock`; both times move together, but in `jump`."""

    def jump(self, seconds: float) -> None:
        """Set the date alone, as an administrator does."""
        self._now += seconds

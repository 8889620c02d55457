"""Whether a batch that is not full should wait for more items. Pure: the caller brings the time.

While one batch is under way the next one fills by itself, so waiting pays only where several may run at once: each
call that is saved leaves a slot to others. It never pays for an item that would wait alone.
"""

from __future__ import annotations

SMOOTHING = 0.02
"""Weight of the newest gap between two items: the last fifty count."""
QUIET = 8.0
"""So many mean gaps without an item, and no more is expected now: those who add may be waiting for answers."""
SLO_SHARE = 0.7
"""Of the SLO, wait and expected time together; beyond it a batch goes at once."""


class Linger:
    """Estimate when the next items come, and say how long to wait for them.

    Args:
        linger: seconds that an item may wait for others, 0 or more.
        slo: seconds from adding an item to its answer, or None.
    """

    def __init__(self, linger: float, *, slo: float | None = None) -> None:
        self.linger, self.slo = linger, slo
        self._gap: float | None = None
        self._last: float | None = None

    @property
    def rate(self) -> float:
        """Items a second that are expected; 0 while nothing is known."""
        return 1 / self._gap if self._gap else 0.0

    def on_item(self, now: float) -> None:
        """Note that an item came at *now*."""
        if self._last is not None:
            gap = now - self._last
            self._gap = gap if self._gap is None else self._gap + SMOOTHING * (gap - self._gap)
        self._last = now

    def wait(self, now: float, oldest: float, seconds: float) -> float:
        """Return for how many seconds a batch that is not full should wait; 0: it should go now.

        Args:
            oldest: when its oldest item came.
            seconds: how long it would take as it stands.
        """
        left = self.linger - (now - oldest)
        if self.slo is not None:
            left = min(left, SLO_SHARE * self.slo - (now - oldest) - seconds)
        if self._last is None or self._gap is None or left <= 2 * self._gap:
            return 0.0  # hardly anybody is expected in time
        return max(0.0, min(left, self._last + QUIET * self._gap - now))

"""How often each task ended, and how long that took, since somebody looked last. Counted, not sampled."""

from __future__ import annotations

from collections.abc import Sequence

from asyncworker.events import Bus, JobsEnded
from asyncworker.tune.histogram import LogHistogram
from asyncworker.tune.sensors.sensor import Reading

MOST = 200
"""Tasks that are told of; an event names only those that its worker knows, and ``other``."""


class Ended:
    """Attempts of one task that ended: how many of them failed, and how long each took."""

    __slots__ = ("failed", "walls")

    def __init__(self) -> None:
        self.failed = 0
        self.walls = LogHistogram()


class TasksSensor:
    """Listen to a bus from `start` until `close`. Cost: 0.7 us a job."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._ended: dict[str, Ended] = {}
        self._stop = _nothing

    def start(self) -> None:
        """Count from now on; harmless when it does already."""
        if self._stop is _nothing:
            self._stop = self._bus.listen(JobsEnded, self._on_ends)

    def close(self) -> None:
        self._stop()
        self._stop = _nothing
        self._ended = {}

    def take(self) -> dict[str, Ended]:
        """Return what ended since the last call, by task."""
        ended, self._ended = self._ended, {}
        return ended

    def read(self) -> Sequence[Reading]:
        """Return nothing: the broker's own counts are exact across processes."""
        return ()

    def _on_ends(self, event: JobsEnded) -> None:
        for end in event.ends:
            of = self._ended.get(end.task)
            if of is None:
                if len(self._ended) >= MOST:
                    continue
                of = self._ended[end.task] = Ended()
            of.failed += end.status == "failed"
            of.walls.add(end.duration_s)


def _nothing() -> None:
    """Stand for the end of what has not begun."""

"""How long jobs wait and run, and how they end, by task and queue; and how often the broker was away. Counted, not sampled."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container

from asyncworker.events import BrokerDisrupted, Bus, JobsEnded

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds of the buckets: from a quick call to a partition that takes ten minutes. Beyond it is one more."""

OTHER = "other"
"""Stands for each name that nobody registered, so that no message can make a new series."""


class Histogram:
    """Counts by bucket, and the sum. Written in the event loop; `read` may be called in another thread."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._sum += seconds

    def read(self) -> tuple[list[int], float]:
        """Return the count of each bucket (not of those below it) and the sum in seconds."""
        return self._counts.copy(), self._sum


class JobsSensor:
    """Listen to a bus until closed.

    Args:
        tasks, queues: the names that may be told of; looked at on each event, so they may still grow.

    Attributes: ``wait``, ``duration`` and, by status, ``attempts``, each by task and queue.
    """

    def __init__(self, bus: Bus, tasks: Container[str], queues: Container[str]) -> None:
        self._tasks, self._queues = tasks, queues
        self.wait: dict[tuple[str, str], Histogram] = {}
        self.duration: dict[tuple[str, str], Histogram] = {}
        self.attempts: dict[tuple[str, str], dict[str, int]] = {}
        self.disruptions = 0
        self._ends = (bus.listen(JobsEnded, self._on_ends), bus.listen(BrokerDisrupted, self._on_disrupted))

    def close(self) -> None:
        for end in self._ends:
            end()

    def _on_ends(self, event: JobsEnded) -> None:
        for end in event.ends:
            key = (end.task, end.queue)
            if key not in self.attempts:
                key = self._known(*key)
            if end.wait_s >= 0:
                self.wait[key].add(end.wait_s)
            self.duration[key].add(end.duration_s)
            attempts = self.attempts[key]
            attempts[end.status] = attempts.get(end.status, 0) + 1

    def _known(self, task: str, queue: str) -> tuple[str, str]:
        """Return under which names this is counted, with room for it."""
        key = (task if task in self._tasks else OTHER, queue if queue in self._queues else OTHER)
        if key not in self.attempts:
            self.wait[key], self.duration[key], self.attempts[key] = Histogram(), Histogram(), {}
        return key

    def _on_disrupted(self, event: BrokerDisrupted) -> None:
        self.disruptions += 1

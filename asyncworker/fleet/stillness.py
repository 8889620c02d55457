"""Stillness: for how long jobs have waited that workers with room for them do not take."""

from __future__ import annotations

from collections.abc import Mapping

from asyncworker.share.board import Gauges

IDLE = 0.5
"""Who waited for work for more than this share of the time between two looks had room."""


class Stillness:
    """Hold one look against the one before. A look at which anything moved begins the time anew."""

    def __init__(self) -> None:
        self._before: Mapping[str, Gauges] = {}
        self._since: float | None = None
        self.seconds = 0.0

    def look(self, t: float, waiting: int, workers: Mapping[str, Gauges]) -> None:
        """Take a look.

        Args:
            t: seconds of a monotonic clock. waiting: jobs that could start. workers: who works, by a name for each life.
        """
        before, self._before = self._before, dict(workers)
        both = [(before[name], of) for name, of in workers.items() if name in before]
        moved = any((was.running, was.ended) != (of.running, of.ended) for was, of in both)
        room = any(of.idle_us - was.idle_us > IDLE * (of.up_us - was.up_us) for was, of in both)
        if self._since is None or not waiting or moved or not room:
            self._since = t
        self.seconds = t - self._since

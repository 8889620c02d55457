"""Brisk: lets a queue's claims grow while its jobs are over almost as soon as they have begun.

A queue of partitions has few slots, for a partition may take seconds of a processor and others want some, too. But
where a partition takes less than the round trip that brings it, two at a time is a waste. So a queue of which all that
was claimed ended within `EACH_S` a job may have twice as much the next time, up to `WIDEST` times its slots; and what it
always may have as soon as they take longer, or one of them fails: a database that refuses everybody is quick, too, and is
not to be asked by more and more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from asyncworker.clock import SYSTEM, Clock
from asyncworker.queue.job import Op, Settled

EACH_S = 0.005
WIDEST = 16
_FAILURES = frozenset({Op.RETRY, Op.FAILED})


class Brisk:
    """Widen the room of some *queues*."""

    def __init__(self, queues: Collection[str], clock: Clock = SYSTEM) -> None:
        self._factor = dict.fromkeys(queues, 1)
        self._claimed: dict[str, tuple[int, float]] = {}
        self._clock = clock

    def widen(
        self, room: dict[str, int], want: int, most: int, running: Mapping[str, int]
    ) -> tuple[dict[str, int], int]:
        """Return what to claim of each queue, and in all but no more than *most*; see `Slots.ask`."""
        for name in self._factor.keys() & room.keys():
            if running.get(name, 0):
                continue
            count, since = self._claimed.pop(name, (0, 0.0))
            if self._clock.monotonic() - since > EACH_S * count:
                self._factor[name] = 1
            elif count >= room[name]:
                self._factor[name] = min(2 * self._factor[name], WIDEST)
            more = room[name] * (self._factor[name] - 1)
            room[name] += more
            want = min(want + more, most)
        return room, want

    def ended(self, settled: Iterable[Settled]) -> None:
        """Hear how jobs ended, before what comes next is claimed."""
        if self._claimed:
            for one in settled:
                if one.op in _FAILURES:
                    self._claimed.pop(one.queue, None)

    def took(self, running: Mapping[str, int]) -> None:
        """Hear what runs after a claim."""
        for name in self._factor:
            if count := running.get(name, 0):
                self._claimed.setdefault(name, (count, self._clock.monotonic()))

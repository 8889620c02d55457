"""History: the last ten minutes of what the broker counts, a sample a second, for charts and rates."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from itertools import pairwise

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.daemon.answers import Series
from asyncworker.errors import BrokerError, SettingsError
from asyncworker.queue.job import Depth, QueueDepth

log = logging.getLogger(__name__)

EVERY_S = 1.0
KEPT = 600
RATE_S = 10.0
FRESH_S = 1.5
PATIENCE_S = 3.0


class Sample(msgspec.Struct, frozen=True):
    """The broker at one moment: ``at_s`` is a date, ``mono_s`` the same by a clock that nobody sets."""

    at_s: float
    mono_s: float
    depth: Depth

    def total(self, *fields: str) -> int:
        """Return the sum of these fields over all queues."""
        return sum(getattr(of, field) for of in self.depth.queues.values() for field in fields)


class History:
    """Look each second, as long as `run` runs.

    Args:
        look: asks the broker about all queues.
    """

    def __init__(self, look: Callable[[], Awaitable[Depth]], clock: Clock = SYSTEM) -> None:
        self._look, self._clock = look, clock
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._looking = asyncio.Lock()
        self._away = False

    async def run(self) -> None:
        """Look until cancelled; while the broker is away there are no samples."""
        while True:
            try:
                await self.sample()
                self._away = False
            except (BrokerError, SettingsError, TimeoutError) as exc:
                if not self._away:
                    self._away = True
                    log.warning("no counts from the broker: %s", str(exc) or "no answer in time")
            await asyncio.sleep(EVERY_S)

    async def sample(self) -> Sample:
        """Look now, and return what was seen.

        Raises:
            BrokerError, TimeoutError: the broker cannot be reached.
        """
        async with asyncio.timeout(PATIENCE_S):
            depth = await self._look()
        sample = Sample(self._clock.now(), self._clock.monotonic(), depth)
        self._samples.append(sample)
        return sample

    async def fresh(self) -> Sample:
        """Return the last sample, or look, where that is old; many who ask at once cost one look."""
        async with self._looking:
            last = self._samples[-1] if self._samples else None
            if last is not None and self._clock.monotonic() - last.mono_s < FRESH_S:
                return last
            return await self.sample()

    def rates(self, queue: str, *fields: str) -> float:
        """Return how fast these counts of one queue rise a second, over the last ten seconds."""
        if len(self._samples) < 2:
            return 0.0
        last = self._samples[-1]
        before = next(one for one in self._samples if last.mono_s - one.mono_s <= RATE_S or one is self._samples[-2])
        of = last.depth.queues.get(queue, QueueDepth())
        was = before.depth.queues.get(queue, of)
        seconds = max(last.mono_s - before.mono_s, 1e-9)
        risen: float = sum(getattr(of, field) - getattr(was, field) for field in fields)
        return max(0.0, risen / seconds)

    def series(self, seconds: float = KEPT * EVERY_S) -> Series:
        """Return the last so many seconds. Counts that fall (the broker was emptied) are a rate of 0."""
        samples = list(self._samples)
        begin = self._clock.monotonic() - seconds
        pairs = [(was, now) for was, now in pairwise(samples) if now.mono_s >= begin]

        def rate(*fields: str) -> list[float]:
            return [
                max(0.0, (now.total(*fields) - was.total(*fields)) / max(now.mono_s - was.mono_s, 1e-9))
                for was, now in pairs
            ]

        def level(field: str) -> list[int]:
            return [now.total(field) for _, now in pairs]

        return Series(
            [now.at_s for _, now in pairs],
            rate("enqueued"),
            rate("succeeded"),
            rate("failed"),
            rate("retried"),
            level("queued"),
            level("scheduled"),
            level("blocked"),
            [now.depth.running for _, now in pairs],
            [working(now.depth) for _, now in pairs],
            [oldest(now.depth.queues) for _, now in pairs],
        )


def working(depth: Depth) -> int:
    return sum(card.role == "worker" for card in depth.workers.values())


def oldest(queues: Mapping[str, QueueDepth]) -> float:
    return max((of.oldest_s for of in queues.values()), default=0.0)

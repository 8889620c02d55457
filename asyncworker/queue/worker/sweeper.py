"""Sweeper: finds workers whose beat stands still, and gives their jobs back.

Two workers of a fleet are elected to sweep (`Broker.beat` hands them everybody's beats). A beat that this
process, by its own monotonic clock, saw unchanged for that worker's lease is a death; the broker reaps it only
if the beat is still the one seen. So nobody needs to look once more before that, and a death is known a lease and at
most one beat after the last sign of life. An outage clears what was seen: it is nobody's death.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BrokerDown
from asyncworker.events import Bus, WorkerReaped
from asyncworker.queue.brokers.broker import Broker

LEAP_S = 1.0
"""How long it waits at most where time is told by another clock than the machine's, which may leap."""


class Sweeper:
    """Reap the dead; one a worker."""

    def __init__(self, broker: Broker, epoch: str, *, bus: Bus, clock: Clock = SYSTEM) -> None:
        self._broker = broker
        self._epoch = epoch
        self._bus = bus
        self._clock = clock
        self._seen: dict[str, tuple[str, float]] = {}  # by epoch: its beat, and when it is a death
        self._looked = asyncio.Event()

    def look(self, beats: Mapping[str, str] | None) -> None:
        """Take in everybody's beats, as of now; None after an error, which makes everything seen stale."""
        now, before, self._seen = self._clock.monotonic(), self._seen, {}
        for epoch, beat in (beats or {}).items():
            if epoch != self._epoch:
                was = before.get(epoch)
                lease_s = int(beat.rpartition(":")[2]) / 1000
                self._seen[epoch] = was if was is not None and was[0] == beat else (beat, now + lease_s)
        self._looked.set()

    def dead(self) -> list[tuple[str, str]]:
        """Return (epoch, beat) of those that stood still for their lease."""
        now = self._clock.monotonic()
        return [(epoch, beat) for epoch, (beat, until) in self._seen.items() if now >= until]

    @property
    def wait_s(self) -> float | None:
        """How long until the next may be dead; None: until somebody looks."""
        if not self._seen:
            return None
        left = min(until for _, until in self._seen.values()) - self._clock.monotonic()
        return max(0.0, left if self._clock is SYSTEM else min(left, LEAP_S))

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            self._looked.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.wait_s):
                    await self._looked.wait()
            for epoch, beat in self.dead():
                try:
                    jobs = await self._broker.reap(epoch, beat, crashed=True)
                except BrokerDown:
                    self._seen.clear()
                    break
                self._seen.pop(epoch, None)
                if jobs >= 0:
                    self._bus.emit(WorkerReaped(epoch=epoch, jobs=jobs))

"""Sweeper: finds workers whose beat stands still, and gives their jobs back.

Two workers of a fleet are elected to sweep (`Broker.beat` hands them everybody's beats). A beat that this
process, by its own monotonic clock, saw unchanged for that worker's lease is a death; the broker reaps it only
if the beat is still the one seen. An outage clears what was seen: it is nobody's death.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BrokerDown
from asyncworker.events import Bus, WorkerReaped
from asyncworker.queue.brokers.broker import Broker


class Sweeper:
    """Reap the dead; one a worker."""

    def __init__(self, broker: Broker, epoch: str, *, bus: Bus, clock: Clock = SYSTEM) -> None:
        self._broker = broker
        self._epoch = epoch
        self._bus = bus
        self._clock = clock
        self._seen: dict[str, tuple[str, float]] = {}
        self._beats: asyncio.Queue[Mapping[str, str]] = asyncio.Queue(maxsize=1)

    def look(self, beats: Mapping[str, str] | None) -> None:
        """Take in everybody's beats, as of now; None after an error, which makes everything seen stale."""
        if beats is None:
            self._seen.clear()
        elif self._beats.empty():
            self._beats.put_nowait(beats)

    def dead(self, beats: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return (epoch, beat) of those that stood still for their lease. Pure but for what it remembers."""
        now = self._clock.monotonic()
        found = []
        for epoch, beat in beats.items():
            if epoch == self._epoch:
                continue
            was, since = self._seen.get(epoch, ("", now))
            if was != beat:
                self._seen[epoch] = (beat, now)
            elif now - since >= int(beat.rpartition(":")[2]) / 1000:
                found.append((epoch, beat))
        for gone in self._seen.keys() - beats.keys():
            del self._seen[gone]
        return found

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            for epoch, beat in self.dead(await self._beats.get()):
                try:
                    jobs = await self._broker.reap(epoch, beat, crashed=True)
                except BrokerDown:
                    self._seen.clear()
                    break
                self._seen.pop(epoch, None)
                if jobs >= 0:
                    self._bus.emit(WorkerReaped(epoch=epoch, jobs=jobs))

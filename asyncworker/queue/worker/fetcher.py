"""Fetcher: in one round trip, settles what has ended and claims as much as there is room for; then again.

A worker claims no more than it has free slots, so nothing is hoarded. With nothing to do it sleeps until the
broker notices it, a delayed job is due, a job ends, or a second has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from asyncworker.clock import SYSTEM, Clock
from asyncworker.events import Bus, JobsClaimed, JobsEnded
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.job import Claimed, Settled
from asyncworker.queue.worker.runner import Runner

MOST = 200
"""Jobs a step settles or claims: longer scripts stall everybody else (`bench/bound.py`)."""
NAP_S = 1.0


class Fetcher:
    """Feed one runner from one epoch.

    *queues* gives each queue's slots: how many of its jobs may run here at once, *concurrency* how many in all.
    ``drain()`` makes it claim no more; `run` then returns once all that runs has ended and is settled. With
    *burst* it drains by itself when there is nothing to claim, nothing running and nothing delayed.
    """

    def __init__(
        self,
        broker: Broker,
        epoch: str,
        runner: Runner,
        wake: asyncio.Event,
        *,
        queues: Mapping[str, int],
        concurrency: int,
        bus: Bus,
        burst: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        self._broker = broker
        self._epoch = epoch
        self._runner = runner
        self._wake = wake
        self._queues = list(queues.items())
        self._concurrency = concurrency
        self._bus = bus
        self._burst = burst
        self._clock = clock
        self._draining = False

    def drain(self) -> None:
        """Claim no more."""
        self._draining = True
        self._wake.set()

    async def run(self) -> None:
        """Step until drained.

        Raises:
            LeaseLost: the epoch was reaped.
        """
        runner, wake = self._runner, self._wake
        while True:
            wake.clear()
            settled = runner.take(MOST)
            want = 0 if self._draining else min(self._concurrency - len(runner.live), MOST)
            if not settled and want <= 0:
                if self._draining and not runner.live:
                    return
                await wake.wait()
                continue
            claimed = await self.step(settled, max(0, want))
            fresh = claimed.deliveries
            if claimed.held is not None:
                fresh = [delivery for delivery in fresh if not runner.knows(delivery.id)]
            runner.start(fresh, claimed.now_ms)
            if claimed.deliveries or runner.settling:
                await asyncio.sleep(0)
            elif want > 0:
                if self._burst and claimed.next_due_ms < 0 and not runner.live:
                    return
                await self._nap(claimed)

    async def step(self, settled: list[Settled], want: int) -> Claimed:
        """Make one round trip and tell what came of it."""
        runner, bus = self._runner, self._bus
        ends, runner.ends = runner.ends, []
        queues = self._queues
        room = {name: min(want, slots - runner.running.get(name, 0)) for name, slots in queues}
        room = {name: slots for name, slots in room.items() if slots > 0}
        try:
            claimed = await self._broker.step(self._epoch, settled, room, want, idle=want > 0)
        except BaseException:
            runner.untake(settled)
            raise
        if len(queues) > 1:
            self._queues = [*queues[1:], queues[0]]
        if settled:
            runner.applied()
        if ends:
            bus.emit(JobsEnded(epoch=self._epoch, ends=ends))
        if claimed.deliveries and bus.wants(JobsClaimed):
            again = sum(1 for delivery in claimed.deliveries if delivery.deliveries)
            bus.emit(JobsClaimed(epoch=self._epoch, count=len(claimed.deliveries), redelivered=again))
        return claimed

    async def _nap(self, claimed: Claimed) -> None:
        seconds = NAP_S
        if claimed.next_due_ms >= 0:
            seconds = min(seconds, max(0.001, (claimed.next_due_ms - claimed.now_ms) / 1000))
        alarm = asyncio.get_running_loop().call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()

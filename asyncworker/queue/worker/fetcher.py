"""Fetcher: in one round trip, settles what has ended and claims as much as there is room for; then again.

A worker claims no more than it has free slots, so nothing is hoarded. With nothing to do it sleeps until the
broker notices it, a delayed job is due, or a job ends; it looks by itself only each `NAP_S`, in case that all of
this failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Mapping
from contextvars import copy_context
from typing import Any, NamedTuple, cast

from asyncworker.clock import SYSTEM, Clock
from asyncworker.events import Bus, JobsClaimed, JobsEnded, JobsFailed, WorkerIdled
from asyncworker.queue.brokers.broker import Broker, Handing
from asyncworker.queue.job import Claimed, Settled
from asyncworker.queue.worker.brisk import Brisk
from asyncworker.queue.worker.runner import Runner
from asyncworker.queue.worker.slots import Slots
from asyncworker.queue.worker.turns import Turns

MOST = 200
"""Jobs a step settles or claims: longer scripts stall everybody else (`bench/bound.py`)."""
NAP_S = 60.0
LEAP_S = 1.0
"""How long a nap takes at most where time is told by another clock than the machine's, which may leap."""


class _Ask(NamedTuple):
    """What may be claimed: of each queue, and in all."""

    room: Mapping[str, int]
    want: int


_NOTHING = _Ask({}, 0)


class Fetcher:
    """Feed one runner from one epoch.

    *slots* say how many may run here at once, *turns* in which order queues are asked. ``drain()`` makes it claim no more; `run` then returns once all that runs has ended and is settled. With
    *burst* it drains by itself when there is nothing to claim, nothing running and nothing delayed.
    """

    def __init__(
        self,
        broker: Broker,
        epoch: str,
        runner: Runner,
        wake: asyncio.Event,
        *,
        slots: Slots,
        turns: Turns,
        bus: Bus,
        burst: bool = False,
        brisk: Brisk | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._broker = broker
        self._epoch = epoch
        self._runner = runner
        self._wake = wake
        self._slots = slots
        self._turns = turns
        self._bus = bus
        self._burst = burst
        self._brisk = brisk
        self._clock = clock
        self._draining = False
        self._widest = 0
        self._handing = cast("Handing", broker) if hasattr(broker, "handed") else None
        self._napping = self._lone = _NOTHING
        self._begun: tuple[list[Settled], _Ask, Coroutine[Any, Any, Claimed]] | None = None
        self._context = copy_context()

    def hand(self) -> bool:
        """Start a job that was handed to this worker, in the very call that brought it; returns whether there was one.

        That is half of the way from the message to the job's first line. It is for a worker that sleeps and has nothing
        in hand: there is room then, and no turn to keep. Else the next step brings the job.
        """
        if self._handing is None or not self._napping.room or self._draining:
            return False
        claimed = self._handing.handed(self._epoch, self._napping.room)
        if claimed is None:
            return False
        self._lone, self._napping = self._napping, _NOTHING
        self._runner.idle = self.settle
        self._claimed(claimed)
        self._context.run(self._runner.start, claimed.deliveries, claimed.now_ms)
        if self._brisk is not None:
            self._brisk.took(self._runner.running)
        return True

    def settle(self) -> None:
        """Send off how a job ended that was handed to this worker, in the call in which it did, if nothing came between.

        What may be claimed is what might when the worker fell asleep: nothing else runs. Else the next step tells it.
        """
        self._runner.idle = None
        ask, self._lone = self._lone, _NOTHING
        if self._handing is not None and ask.room and not self._draining:
            settled = self._runner.take(MOST)
            self._wake.clear()  # what wakes it from here on is for the step after this one
            sent = self._handing.begin(self._epoch, settled, ask.room, ask.want, idle=True)
            self._begun = settled, ask, sent

    def drain(self) -> None:
        """Claim no more."""
        self._draining = True
        self._wake.set()

    async def run(self) -> None:
        """Step until drained.

        Raises:
            LeaseLost: the epoch was reaped.
        """
        try:
            await self._run()
        finally:
            self._runner.idle = None
            if self._begun is not None:  # perhaps it was applied; to settle twice is harmless
                settled, _, sent = self._begun
                sent.close()
                self._runner.untake(settled)

    async def _run(self) -> None:
        runner, wake, slots, brisk, turns = self._runner, self._wake, self._slots, self._brisk, self._turns
        while True:
            if self._begun is not None:
                (settled, (room, want), sent), self._begun = self._begun, None
                if brisk is not None:
                    brisk.ended(settled)
            else:
                wake.clear()
                settled, sent = runner.take(MOST), None
                room, want = ({}, 0) if self._draining else slots.ask(runner.running, runner.live, MOST, runner.lent)
                if brisk is not None:
                    brisk.ended(settled)
                    room, want = brisk.widen(room, want, MOST, runner.running)
                room = turns.order(room)
            if not settled and not want:
                if self._draining and not runner.live:
                    return
                await wake.wait()
                continue
            claimed = await self.step(settled, room, want, sent)
            fresh = claimed.deliveries
            if claimed.held is not None:
                fresh = [delivery for delivery in fresh if not runner.knows(delivery.id)]
            before = runner.running.copy()
            runner.start(fresh, claimed.now_ms)
            slots.took(room, want, before, runner.running)
            turns.took(room, want, before, runner.running)
            if brisk is not None:
                brisk.took(runner.running)
            if len(claimed.deliveries) == MOST:
                continue  # these run while the next step, for which there may be room, is under way
            if claimed.deliveries or runner.settling:
                await asyncio.sleep(0)
            if len(claimed.deliveries) < want and claimed.held is None and not (runner.settling or wake.is_set()):
                if self._burst and claimed.next_due_ms < 0 and not runner.live:
                    return
                if not runner.live:
                    self._napping = _Ask(room, want)
                await self._nap(claimed, idle=self._has_room(room, before))
                self._napping = self._lone = _NOTHING
                runner.idle = None

    def _has_room(self, room: Mapping[str, int], before: Mapping[str, int]) -> bool:
        """Return whether there is room for jobs of any queue: one that is at its bound is not asked, or just got there."""
        running = self._runner.running
        self._widest = max(self._widest, len(room))
        return len(room) == self._widest and all(
            running.get(name, 0) - before.get(name, 0) < most for name, most in room.items()
        )

    async def step(
        self, settled: list[Settled], room: Mapping[str, int], want: int, sent: Awaitable[Claimed] | None = None
    ) -> Claimed:
        """Make one round trip, or wait for one that was *sent*, and tell what came of it."""
        runner, bus = self._runner, self._bus
        ends, runner.ends = runner.ends, []
        runner.tell = bus.wants(JobsEnded)
        try:
            claimed = await (sent or self._broker.step(self._epoch, settled, room, want, idle=want > 0))
        except BaseException:
            runner.untake(settled)
            raise
        if settled:
            runner.applied()
        if ends:
            bus.emit(JobsEnded(epoch=self._epoch, ends=ends))
            if failed := [end for end in ends if end.status == "failed"]:
                bus.emit(JobsFailed(epoch=self._epoch, ends=failed))
        self._claimed(claimed)
        return claimed

    def _claimed(self, claimed: Claimed) -> None:
        if claimed.deliveries and self._bus.wants(JobsClaimed):
            again = sum(1 for delivery in claimed.deliveries if delivery.deliveries)
            self._bus.emit(JobsClaimed(epoch=self._epoch, count=len(claimed.deliveries), redelivered=again))

    async def _nap(self, claimed: Claimed, *, idle: bool) -> None:
        seconds = NAP_S if self._clock is SYSTEM else LEAP_S
        if claimed.next_due_ms >= 0:
            seconds = min(seconds, max(0.001, (claimed.next_due_ms - claimed.now_ms) / 1000))
        alarm = asyncio.get_running_loop().call_later(seconds, self._wake.set)
        if idle:
            self._bus.emit(WorkerIdled(epoch=self._epoch, idle=True))
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()
            if idle:
                self._bus.emit(WorkerIdled(epoch=self._epoch, idle=False))

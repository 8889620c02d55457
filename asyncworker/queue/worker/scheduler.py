"""Scheduler: enqueues what is due by the calendar. Every worker has one; each tick fires once in the fleet.

The broker knows the last tick of each schedule, and takes a job only together with a later one: so it does not matter
how many schedulers there are, nor which of them dies, and what was missed while there was none is known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BrokerDown, BrokerError, DecodeError
from asyncworker.queue.admin import Admin
from asyncworker.queue.job import Receipt
from asyncworker.queue.schedule import Schedule, unpack_schedule

log = logging.getLogger(__name__)

LOOK_S = 10.0
"""How soon a schedule that was added or changed is known everywhere; and a stepped clock is noticed."""
LATE_S = 60.0
"""A tick that is no later than this was not missed: the worker was busy, or the broker away for a moment."""
AGAIN_S = 1.0


class _Dial:
    """A schedule, the last tick that is done with, and the next one."""

    def __init__(self, schedule: Schedule, done_s: float) -> None:
        self.schedule = schedule
        self.turn(done_s)

    def turn(self, done_s: float) -> None:
        """Go on from any tick."""
        self._ticks = self.schedule.ticks(done_s)
        self.done_s, self.next_s = done_s, next(self._ticks)

    def tick(self) -> None:
        """Go on by one."""
        self.done_s, self.next_s = self.next_s, next(self._ticks)


class Scheduler:
    """Fire schedules; one a worker. *fixed* ones are the engine's own; the others lie in the broker.

    Whenever it looks for these, *strike* is told what else people have set meanwhile.
    """

    def __init__(
        self,
        broker: Admin,
        fixed: Iterable[Schedule],
        *,
        strike: Callable[[Mapping[str, bytes]], None] | None = None,
        clock: Clock = SYSTEM,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._broker = broker
        self._fixed = {schedule.name: schedule for schedule in fixed}
        self._strike = strike
        self._clock = clock
        self._sleep = sleep
        self._dials: dict[str, _Dial] = {}
        self._unread: set[str] = set()

    async def run(self) -> None:
        """Enqueue each tick when it is due, until cancelled. What an outage delays is enqueued when it ends."""
        looked = -LOOK_S
        while True:
            try:
                if self._clock.monotonic() - looked >= LOOK_S:
                    await self._look()
                    looked = self._clock.monotonic()
                for dial in self._dials.values():
                    while dial.next_s <= self._clock.now():
                        await self._fire(dial)
            except (BrokerError, BrokerDown):
                await self._sleep(AGAIN_S)
                continue
            soonest = min((dial.next_s for dial in self._dials.values()), default=float("inf"))
            await self._sleep(max(0.0, min(soonest - self._clock.now(), LOOK_S)))

    async def _look(self) -> None:
        """Learn what is to be fired, and which ticks are done with."""
        texts, ticks, strikes = await self._broker.plans()
        if self._strike is not None:
            self._strike(strikes)
        known = dict(self._fixed)
        for name, text in texts.items():
            try:
                known[name] = unpack_schedule(text)
            except DecodeError as exc:
                if name not in self._unread:
                    log.warning("schedule %r cannot be read here, and is left to others: %s", name, exc)
                    self._unread.add(name)
        now = self._clock.now()
        dials = {}
        for name, schedule in known.items():
            done_s = ticks.get(name, 0) / 1000
            dial = self._dials.get(name)
            if dial is None or dial.schedule != schedule:
                dial = _Dial(schedule, done_s or now)
            elif done_s > dial.done_s:
                dial.turn(done_s)
            dials[name] = dial
        self._dials = dials

    async def _fire(self, dial: _Dial) -> None:
        """Fire the tick that is due, unless it was missed and is not wanted any more."""
        schedule, now = dial.schedule, self._clock.now()
        tick = dial.next_s
        if now - tick > LATE_S and schedule.missed != "all":
            tick = schedule.latest(now)
        if schedule.missed != "skip" or now - tick <= LATE_S:
            receipt = await self._broker.fire(schedule.name, round(tick * 1000), schedule.job(tick))
            if receipt is Receipt.FULL:
                raise BrokerError(f"the queue {schedule.queue!r} is full")  # tried again until there is room
        if tick == dial.next_s:
            dial.tick()
        else:
            dial.turn(tick)

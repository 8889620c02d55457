"""Scheduler: enqueues what is due by the calendar. Every worker has one; each tick fires once in the fleet.

The id of a tick's job is made from the schedule's name and the tick, so that however many schedulers enqueue
it, the broker takes one. Daylight saving: a tick in the gap fires at the next valid time, a repeated one once
(Debian's cron does the same; the calendar is `cronsim`'s).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BrokerError, SettingsError
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import base32
from asyncworker.queue.job import Job, Receipt

LONGEST_NAP_S = 30.0
"""A nap is cut short so that a stepped clock or a resumed laptop is noticed."""


class Schedule(msgspec.Struct, frozen=True):
    """Enqueue one call at each tick of a crontab expression (five fields; six with seconds first) in a time zone."""

    name: str
    expression: str
    tz: str
    queue: str
    priority: int
    payload: bytes

    def ticks(self, after_s: float) -> Iterator[float]:
        """Yield the ticks after a date, in seconds since the epoch.

        Raises:
            SettingsError: the expression or the time zone cannot be read.
        """
        try:
            start = datetime.fromtimestamp(after_s, ZoneInfo(self.tz))
            for tick in CronSim(self.expression, start):
                yield tick.timestamp()
        except (CronSimError, ZoneInfoNotFoundError, ValueError) as exc:
            raise SettingsError(f"schedule {self.name!r}: {self.expression!r} in {self.tz!r}: {exc}") from exc

    def job(self, tick_s: float) -> Job:
        """Return the job of one tick: the same id wherever it is made."""
        digest = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:9], "big")
        id = base32(int(tick_s * 1000), 9) + base32(0, 3) + base32(digest, 14)
        return Job(id=id, queue=self.queue, payload=self.payload, priority=self.priority)


class Scheduler:
    """Fire schedules; one a worker."""

    def __init__(
        self,
        broker: Broker,
        schedules: Sequence[Schedule],
        *,
        clock: Clock = SYSTEM,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._broker = broker
        self._schedules = schedules
        self._clock = clock
        self._sleep = sleep

    async def run(self) -> None:
        """Enqueue each tick when it is due, until cancelled. What an outage delays is enqueued when it ends."""
        now = self._clock.now()
        calendars = {schedule: schedule.ticks(now) for schedule in self._schedules}
        due = {schedule: next(ticks) for schedule, ticks in calendars.items()}
        while True:
            wait = min(due.values()) - self._clock.now()
            if wait > 0:
                await self._sleep(min(wait, LONGEST_NAP_S))
                continue
            for schedule, tick in due.items():
                if tick > self._clock.now():
                    continue
                try:
                    (receipt,) = await self._broker.enqueue([schedule.job(tick)])
                except BrokerError:
                    receipt = Receipt.FULL
                if receipt is Receipt.FULL:  # or the broker is away: tried again until it is taken
                    await self._sleep(1.0)
                    break
                due[schedule] = next(calendars[schedule])

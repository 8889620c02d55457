"""Schedule: which call is enqueued when, by the calendar or at intervals.

Daylight saving: a tick in the gap fires at the next valid time, a repeated one once (Debian's cron does the same; the
calendar is `cronsim`'s). Intervals count from the epoch, so that everybody has the same ticks.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from asyncworker.errors import BadParameters, DecodeError, SettingsError
from asyncworker.queue.codec import base32
from asyncworker.queue.job import DEFAULT_PRIORITY, Job

SHORTEST_S = 0.1
"""An interval that is shorter is work for a loop, not for a schedule."""
Missed = Literal["last", "all", "skip"]


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Enqueue one call at each tick of a crontab expression in a time zone, or *every* so many seconds.

    Attributes:
        name: of the schedule; one each. task: what is called.
        cron: five fields; six with seconds first. "": none, but *every*.
        missed: which ticks fire late, of those in which no worker was there: the last one, all, or none.
        options: task options that travel with the jobs.
    """

    name: str
    task: str
    cron: str = ""
    every: float = 0.0
    tz: str = "UTC"
    missed: Missed = "last"
    queue: str = "scheduled"
    priority: int = DEFAULT_PRIORITY
    payload: bytes = b""
    options: dict[str, Any] = {}

    def check(self) -> None:
        """Raise what is wrong with this.

        Raises:
            SettingsError: the expression, the interval or the time zone cannot be read. BadParameters: no such word.
        """
        if bool(self.cron) == bool(self.every):
            raise SettingsError(f"schedule {self.name!r} needs a crontab expression or an interval, and not both")
        if self.every and not SHORTEST_S <= self.every < float("inf"):
            raise SettingsError(
                f"schedule {self.name!r}: an interval is {SHORTEST_S} seconds or more, not {self.every}"
            )
        if self.missed not in ("last", "all", "skip"):
            raise BadParameters(f"missed must be one of last, all, skip, not {self.missed!r}")
        next(self.ticks(0))

    def __str__(self) -> str:
        return f"every {self.every:g} s" if self.every else f"{self.cron} {self.tz}"

    def ticks(self, after_s: float) -> Iterator[float]:
        """Yield the ticks after a date, in seconds since the epoch.

        Raises:
            SettingsError: the expression or the time zone cannot be read.
        """
        if self.every:
            return (number * self._every_ms / 1000 for number in itertools.count(self._passed(after_s) + 1))
        return self._calendar(after_s)

    def latest(self, until_s: float) -> float:
        """Return the last tick that is not after a date.

        Raises:
            SettingsError: as of `ticks`.
        """
        if self.every:
            return self._passed(until_s) * self._every_ms / 1000
        return next(self._calendar(int(until_s) + 1, reverse=True))

    def job(self, tick_s: float) -> Job:
        """Return the job of one tick: the same id wherever it is made."""
        digest = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:9], "big")
        id = base32(int(tick_s * 1000), 9) + base32(0, 3) + base32(digest, 14)
        return Job(id=id, queue=self.queue, payload=self.payload, priority=self.priority, options=self.options)

    @property
    def _every_ms(self) -> int:
        return round(self.every * 1000)

    def _passed(self, until_s: float) -> int:
        """Return how many intervals have passed since the epoch."""
        return round(until_s * 1000) // self._every_ms

    def _calendar(self, start_s: float, *, reverse: bool = False) -> Iterator[float]:
        try:
            start = datetime.fromtimestamp(start_s, ZoneInfo(self.tz))
            for tick in CronSim(self.cron, start, reverse=reverse):
                yield tick.timestamp()
        except (CronSimError, ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise SettingsError(f"schedule {self.name!r}: {self.cron!r} in {self.tz!r}: {exc}") from exc


_decode = msgspec.msgpack.Decoder(Schedule).decode


def pack_schedule(schedule: Schedule) -> bytes:
    return msgspec.msgpack.encode(schedule)


def unpack_schedule(data: bytes) -> Schedule:
    """Return a schedule that can be used.

    Raises:
        DecodeError: these bytes are none.
    """
    try:
        schedule = _decode(data)
        schedule.check()
    except (msgspec.DecodeError, SettingsError, BadParameters) as exc:
        raise DecodeError(f"these bytes are no schedule: {exc}") from exc
    return schedule

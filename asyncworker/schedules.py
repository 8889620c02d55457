"""What is enqueued by the calendar: the engine's own schedules, and those that are set while workers run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Protocol

import msgspec

from asyncworker.clock import Clock
from asyncworker.errors import DecodeError, SettingsError, UnknownName
from asyncworker.queue.admin import Admin
from asyncworker.queue.schedule import Missed, Schedule, pack_schedule, unpack_schedule


class Planned(msgspec.Struct, frozen=True):
    """A schedule as `Schedules.ls` shows it. Dates in seconds since the epoch; ``last``: None where none has fired.

    ``fixed`` ones are in the code of the engine, the others in the broker.
    """

    schedule: Schedule
    fixed: bool
    last: float | None
    next: float


class Caller(Protocol):
    """What makes jobs of schedules."""

    def plan(
        self, schedule: Schedule, args: Sequence[Any], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> Schedule:
        """Return a schedule with its call and options filled in, both checked."""
        ...

    async def call(self, schedule: Schedule) -> Any:
        """Enqueue a schedule's call now and return its handle."""
        ...


class Planner(Protocol):
    """What schedules need of their engine."""

    clock: Clock

    @property
    def admin(self) -> Admin: ...
    @property
    def calls(self) -> Caller: ...


class Schedules:
    """The schedules of one engine. Its length and its items are those that are in the engine's code."""

    def __init__(self, engine: Planner) -> None:
        self._engine = engine
        self._fixed: dict[str, Schedule] = {}

    def __len__(self) -> int:
        return len(self._fixed)

    def __iter__(self) -> Iterator[Schedule]:
        return iter(self._fixed.values())

    def fix(self, schedule: Schedule) -> None:
        """Add a schedule that workers of this engine bring along.

        Raises:
            SettingsError: it cannot be read, or there is one of this name.
        """
        schedule.check()
        if schedule.name in self._fixed:
            raise SettingsError(f"there are two schedules of the name {schedule.name!r}")
        self._fixed[schedule.name] = schedule

    async def add(
        self,
        name: str,
        task: str,
        *args: Any,
        cron: str = "",
        every: float | timedelta = 0.0,
        tz: str = "UTC",
        missed: Missed = "last",
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> bool:
        """Set a schedule for all workers, or change it; they know it after ten seconds at most.

        Args:
            task: a task's name; its code need not be imported here. args, kwargs: of each call.
            cron: a crontab expression; or *every*: seconds, or a `timedelta`. tz: a time zone's name.
            missed: which ticks fire late, of those in which no worker was there: the last one, all, or none ("skip").
            options: as for `Task.with_options`, but ``delay`` and ``at``.

        Returns:
            whether it is new.

        Raises:
            SettingsError: the expression, the interval or the time zone cannot be read, or the name is that of a
                schedule in the engine's code. BadParameters, UnknownName: arguments or options that do not fit. BrokerDown.
        """
        return await self.set(name, task, args, kwargs, cron=cron, every=every, tz=tz, missed=missed, options=options)

    async def set(
        self,
        name: str,
        task: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        cron: str = "",
        every: float | timedelta = 0.0,
        tz: str = "UTC",
        missed: Missed = "last",
        options: dict[str, Any] | None = None,
    ) -> bool:
        """Do as `add`, with arguments of any name."""
        self._refuse_fixed(name)
        seconds = every.total_seconds() if isinstance(every, timedelta) else every
        bare = Schedule(name=name, task=task, cron=cron, every=seconds, tz=tz, missed=missed)
        bare.check()
        schedule = self._engine.calls.plan(bare, args, kwargs, options or {})
        return await self._engine.admin.schedule(name, pack_schedule(schedule))

    async def rm(self, name: str) -> None:
        """Remove a schedule that was added; what it has enqueued stays.

        Raises:
            UnknownName: there is none. SettingsError: it is in the engine's code. BrokerDown.
        """
        self._refuse_fixed(name)
        if not await self._engine.admin.schedule(name, None):
            raise UnknownName("schedule", name, (await self._engine.admin.schedules())[0])

    async def ls(self) -> list[Planned]:
        """Return all schedules by name: those in this engine's code, and those that were added."""
        texts, ticks = await self._engine.admin.schedules()
        known = {name: (schedule, True) for name, schedule in self._fixed.items()}
        for name, text in texts.items():
            try:
                known.setdefault(name, (unpack_schedule(text), False))
            except DecodeError:
                continue  # another version's: its workers know it
        now = self._engine.clock.now()
        return [
            Planned(schedule, fixed, ticks[name] / 1000 if name in ticks else None, next(schedule.ticks(now)))
            for name, (schedule, fixed) in sorted(known.items())
        ]

    async def run(self, name: str) -> Any:
        """Enqueue a schedule's call now, beside its ticks, and return the job's handle.

        Raises:
            UnknownName: there is none. BrokerDown, QueueFull.
        """
        planned = {one.schedule.name: one.schedule for one in await self.ls()}
        if name not in planned:
            raise UnknownName("schedule", name, planned)
        return await self._engine.calls.call(planned[name])

    def _refuse_fixed(self, name: str) -> None:
        if name in self._fixed:
            raise SettingsError(f"the schedule {name!r} is in the code of this engine; change it there")

"""Each tick of a schedule fires once, however many schedulers there are; daylight saving has a rule."""

from __future__ import annotations

import asyncio
import itertools
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from asyncworker.errors import SettingsError
from asyncworker.queue.brokers import memory
from asyncworker.queue.codec import born_ms, is_id, pack_call
from asyncworker.queue.worker.scheduler import Schedule, Scheduler

BERLIN = ZoneInfo("Europe/Berlin")


def schedule(expression: str, tz: str = "UTC", name: str = "tick") -> Schedule:
    return Schedule(name, expression, tz, "scheduled", 5, pack_call(name, (), {}))


def ticks(it: Schedule, after: datetime, count: int) -> list[datetime]:
    zone = ZoneInfo(it.tz)
    return [datetime.fromtimestamp(tick, zone) for tick in itertools.islice(it.ticks(after.timestamp()), count)]


def test_a_tick_in_the_gap_fires_at_the_next_valid_time() -> None:
    night = datetime(2026, 3, 28, 12, tzinfo=BERLIN)
    first, second = ticks(schedule("30 2 * * *", "Europe/Berlin"), night, 2)
    assert (first.day, first.hour, first.minute) == (29, 3, 0)
    assert (second.day, second.hour, second.minute) == (30, 2, 30)


def test_a_repeated_hour_fires_once() -> None:
    night = datetime(2026, 10, 24, 12, tzinfo=BERLIN)
    days = [tick.day for tick in ticks(schedule("30 2 * * *", "Europe/Berlin"), night, 3)]
    assert days == [25, 26, 27]


@pytest.mark.parametrize(("expression", "tz"), [("61 * * * *", "UTC"), ("", "UTC"), ("* * * * *", "Mars/Base")])
def test_a_schedule_that_cannot_be_read_says_so(expression: str, tz: str) -> None:
    with pytest.raises(SettingsError, match="schedule 'tick'"):
        next(schedule(expression, tz).ticks(0))


def test_a_ticks_job_has_the_same_id_wherever_it_is_made() -> None:
    it = schedule("* * * * *")
    job = it.job(1_800_000_000.0)
    assert is_id(job.id)
    assert job.id == schedule("* * * * *").job(1_800_000_000.0).id
    assert job.id != it.job(1_800_000_060.0).id
    assert job.id != schedule("* * * * *", name="other").job(1_800_000_000.0).id
    assert born_ms(job.id) == 1_800_000_000_000


async def test_s36_many_schedulers_fire_each_tick_once() -> None:
    class Quick:
        """A clock on which an hour takes a few turns of the loop."""

        s = 1_800_000_030.0

        def monotonic(self) -> float:
            return self.s

        def now(self) -> float:
            Quick.s += 7
            return self.s

    broker = memory.open("memory://")
    try:
        schedulers = [
            Scheduler(broker, [schedule("* * * * *")], clock=Quick(), sleep=lambda _: asyncio.sleep(0))
            for _ in range(5)
        ]
        runs = [asyncio.create_task(scheduler.run()) for scheduler in schedulers]
        async with asyncio.timeout(20):
            while (await broker.depth(["scheduled"])).queues["scheduled"].enqueued < 20:
                await asyncio.sleep(0)
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        jobs = (await broker.depth(["scheduled"])).queues["scheduled"].enqueued
        passed = int((Quick.s - 1_800_000_030.0) // 60)
        assert jobs <= passed + 1, "a tick fired twice"
        assert jobs >= 20
    finally:
        await broker.close()

"""What happens to those who fire schedules: they are killed, and the clock does what clocks do twice a year."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from asyncworker.queue.brokers.memory import MemoryBroker
from asyncworker.queue.job import Receipt
from asyncworker.queue.schedule import Schedule
from asyncworker.queue.worker.scheduler import Scheduler
from tests.support.clock import PassingTime

DAY = 86_400


class Fires(MemoryBroker):
    """Notes which ticks fired, and keeps no job."""

    def __init__(self, time: PassingTime) -> None:
        super().__init__(time)
        self.ticks: dict[str, list[int]] = {}

    async def fire(self, name: str, tick_ms: int, job: Any) -> Any:
        await asyncio.sleep(0)
        if tick_ms <= self._ticks.get(name, 0):
            return None
        self._ticks[name] = tick_ms
        self.ticks.setdefault(name, []).append(tick_ms)
        return Receipt.ACCEPTED


@pytest.mark.parametrize(
    ("change", "zone"),
    [
        (1_774_746_000, "Europe/Berlin"),  # 2026-03-29, an hour forward
        (1_792_890_000, "Europe/Berlin"),  # 2026-10-25, and back
        (1_772_953_200, "America/New_York"),
        (1_793_512_800, "America/New_York"),
        (1_775_314_800, "Australia/Lord_Howe"),  # half an hour back
        (1_791_041_400, "Australia/Lord_Howe"),
    ],
)
async def test_f16_each_tick_once_on_the_nights_of_daylight_saving(change: int, zone: str, seed: int) -> None:
    await fires(change - 2400, change + 2400, zone, seed)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_f16_each_tick_of_a_day_once(seed: int) -> None:
    await fires(1_800_000_000, 1_800_000_000 + DAY, "UTC", seed)


async def fires(start: float, end: float, zone: str, seed: int) -> None:
    """Five schedulers, one of them killed and replaced now and then: what fires is what the calendar says."""
    time, random = PassingTime(start), Random(seed)
    time.end = end
    broker = Fires(time)
    schedules = [
        Schedule(name="second", task="task", cron="* * * * * *", tz=zone),
        Schedule(name="tens", task="task", cron="*/10 * * * *", tz=zone),
    ]
    runs: list[asyncio.Task[None]] = []

    def another() -> None:
        scheduler = Scheduler(broker, schedules, clock=time, sleep=time.sleep)
        runs.append(asyncio.create_task(scheduler.run()))

    for _ in range(5):
        another()
    while time.s < time.end:
        await asyncio.sleep(0)
        if random.random() < 0.001:
            runs.pop(random.randrange(len(runs))).cancel()
            another()
    for run in runs:
        run.cancel()
    await asyncio.gather(*runs, return_exceptions=True)
    await broker.close()
    for it in schedules:
        expected = [round(tick * 1000) for tick in ticks_until(it, start, time.end)]
        assert broker.ticks[it.name][: len(expected)] == expected, "a tick was missed, doubled or out of order"


def ticks_until(it: Schedule, start: float, end: float) -> list[float]:
    found = []
    for tick in it.ticks(start):
        if tick >= end:
            return found
        found.append(tick)
    return found

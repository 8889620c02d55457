"""Each tick of a schedule fires once, however many schedulers there are and whichever of them dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncworker.queue.brokers.memory import MemoryBroker
from asyncworker.queue.schedule import Missed, Schedule, pack_schedule
from asyncworker.queue.worker.scheduler import LATE_S, LOOK_S, Scheduler
from tests.support.brokers import until
from tests.support.clock import PassingTime as Time

START = 1_800_000_030.0


@pytest.fixture
def time() -> Time:
    return Time(START)


@pytest.fixture
async def broker(time: Time) -> AsyncIterator[MemoryBroker]:
    made = MemoryBroker(time)
    yield made
    await made.close()


def schedule(cron: str = "* * * * *", name: str = "tick", **more: Any) -> Schedule:
    return Schedule(name=name, task="task", cron=cron, **more)


async def fired(broker: MemoryBroker) -> int:
    return (await broker.depth(["scheduled"])).queues["scheduled"].enqueued


async def test_s36_many_schedulers_fire_each_tick_once(time: Time, broker: MemoryBroker) -> None:
    time.end = START + 3600
    runs = [asyncio.create_task(Scheduler(broker, [schedule()], clock=time, sleep=time.sleep).run()) for _ in range(5)]
    await until(lambda: passed(time))
    for run in runs:
        run.cancel()
    await asyncio.gather(*runs, return_exceptions=True)
    assert await fired(broker) == 60


async def passed(time: Time) -> bool:
    return time.s >= time.end


@pytest.mark.parametrize(("missed", "late"), [("last", 1), ("all", 3), ("skip", 0)])
async def test_what_is_missed_while_no_worker_is_there(
    missed: Missed, late: int, time: Time, broker: MemoryBroker
) -> None:
    it = schedule("0 * * * *", missed=missed)
    await broker.fire(it.name, round(START - 30) * 1000, it.job(START - 30))
    time.s = START + 3.5 * 3600
    time.end = time.s + 1
    run = asyncio.create_task(Scheduler(broker, [it], clock=time, sleep=time.sleep).run())
    await until(lambda: passed(time))
    run.cancel()
    assert await fired(broker) - 1 == late


async def test_a_tick_that_is_a_little_late_was_not_missed(time: Time, broker: MemoryBroker) -> None:
    it = schedule(missed="skip")
    await broker.fire(it.name, round(START - 30) * 1000, it.job(START - 30))
    time.s = START + 30 + LATE_S / 2
    time.end = time.s + 1
    run = asyncio.create_task(Scheduler(broker, [it], clock=time, sleep=time.sleep).run())
    await until(lambda: passed(time))
    run.cancel()
    assert await fired(broker) == 2


async def test_schedules_come_change_and_go_at_run_time(time: Time, broker: MemoryBroker) -> None:
    run = asyncio.create_task(Scheduler(broker, [], clock=time, sleep=time.sleep).run())

    async def in_ten_minutes() -> int:
        before = await fired(broker)
        time.end = time.s + 600
        run_again = asyncio.create_task(Scheduler(broker, [], clock=time, sleep=time.sleep).run())
        await until(lambda: passed(time))
        run_again.cancel()
        return await fired(broker) - before

    try:
        assert await in_ten_minutes() == 0
        assert await broker.schedule("it", pack_schedule(schedule(name="it")))
        assert await in_ten_minutes() in {9, 10, 11}
        assert not await broker.schedule("it", pack_schedule(Schedule(name="it", task="task", every=300.0)))
        assert await in_ten_minutes() in {2, 3}
        await broker.schedule("bad", b"no schedule")
        assert await broker.schedule("it", None)
        time.end = time.s + LOOK_S
        await until(lambda: passed(time))
        assert await in_ten_minutes() == 0
    finally:
        run.cancel()


async def test_a_full_queue_is_waited_for(time: Time, broker: MemoryBroker) -> None:
    await broker.bound("scheduled", 1)
    time.end = START + 300
    run = asyncio.create_task(Scheduler(broker, [schedule()], clock=time, sleep=time.sleep).run())
    await until(lambda: passed(time))
    assert await fired(broker) == 1
    await broker.bound("scheduled", None)
    time.end = time.s + 120
    await until(lambda: passed(time))
    run.cancel()
    assert await fired(broker) >= 3

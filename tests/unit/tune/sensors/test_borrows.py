from __future__ import annotations

import asyncio
from typing import Any

from asyncworker.tune.sensors.borrows import DEPTH, ENOUGH, Borrow, BorrowsSensor, Leak
from bench.control import virtual_loop


def told(story: Any) -> None:
    virtual_loop.run(story())


def borrow(sensor: BorrowsSensor) -> object:
    thing = object()
    sensor.begin(Borrow(skip=0), thing)
    return thing


def test_late_is_measured_by_what_is_usual_and_never_below_the_floor() -> None:
    async def story() -> None:
        sensor = BorrowsSensor("pool", late_s=2.0)
        assert sensor.late_s == 2.0
        for seconds in (0.01, 4.0):
            for _ in range(ENOUGH - 1):
                thing = borrow(sensor)
                await asyncio.sleep(seconds)
                assert sensor.end(thing) is not None
            assert sensor.late_s == 2.0 if seconds < 1 else 10 < sensor.late_s < 14

    told(story)


def test_what_was_not_lent_cannot_come_back() -> None:
    async def story() -> None:
        sensor = BorrowsSensor("pool")
        thing = borrow(sensor)
        assert sensor.end(object()) is None
        assert sensor.end(thing) is not None
        assert sensor.end(thing) is None

    told(story)


def test_a_leak_is_told_once_and_counted() -> None:
    async def story() -> None:
        found: list[Leak] = []
        back: list[Leak] = []
        sensor = BorrowsSensor("pool", late_s=1.0, on_leak=found.append, on_return=back.append)
        thing = borrow(sensor)
        await asyncio.sleep(1.5)
        for _ in range(3):
            assert len(sensor.look()) == 1
        assert (len(found), len(back), sensor.suspects, sensor.leaks, sensor.out) == (1, 0, 1, 1, 1)
        readings = {reading.name: (reading.value, reading.labels) for reading in sensor.read()}
        assert readings["pool_leaks_total"] == (1, (("pool", "pool"),))
        assert readings["pool_borrows"] == (1, (("pool", "pool"),))
        sensor.end(thing)
        assert (len(found), len(back), sensor.suspects, sensor.leaks, sensor.out) == (1, 1, 0, 1, 0)
        assert back[0].place == found[0].place

    told(story)


def test_the_line_is_that_of_the_borrower_then_come_its_callers() -> None:
    async def story() -> None:
        sensor = BorrowsSensor("pool", late_s=0.5)

        async def deeper(levels: int) -> object:
            return await deeper(levels - 1) if levels else borrow(sensor)

        await deeper(20)
        await asyncio.sleep(1)
        (leak,) = sensor.look()
        assert [place.function for place in leak.places] == ["borrow"] + ["deeper"] * (DEPTH - 1)
        assert str(leak).startswith(f"borrowed at {__file__}:{leak.place.line} in borrow, 1.0 s ago; ")

    told(story)


def test_nothing_is_told_of_a_pool_that_is_closed() -> None:
    async def story() -> None:
        found: list[Leak] = []
        sensor = BorrowsSensor("pool", on_leak=found.append)

        async def careless() -> None:
            borrow(sensor)
            sensor.close()

        await asyncio.create_task(careless())
        await asyncio.sleep(0)
        assert found == sensor.look() == []

    told(story)

from __future__ import annotations

import asyncio

import pytest

from asyncworker.tune import utilisation
from asyncworker.tune.utilisation import LoopLoad, Utilisation


class Clocks:
    """A wall clock and the CPU clock of a thread, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = self.cpu = 100.0
        monkeypatch.setattr(utilisation, "perf_counter", lambda: self.wall)
        monkeypatch.setattr(utilisation, "thread_time", lambda: self.cpu)

    def second(self, sensor: Utilisation, *, cpu: float, late: int) -> float:
        """Let a second go by in which so many of 100 beats came late."""
        for beat in range(100):
            self.wall += 0.010001
            self.cpu += cpu / 100
            sensor.beat(0.005 if beat < late else 0.001)
        return sensor.ratio


def test_a_full_loop_is_on_the_cpu_or_late(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch)
    sensor = Utilisation()
    assert sensor.ratio == 0.0
    assert clocks.second(sensor, cpu=0.3, late=10) == pytest.approx(0.3, abs=0.01)
    assert clocks.second(sensor, cpu=0.98, late=90) == pytest.approx(0.98, abs=0.01)
    assert clocks.second(sensor, cpu=0.5, late=95) == pytest.approx(0.95, abs=0.01), "others want the processor, too"
    assert clocks.second(sensor, cpu=0.0, late=0) == pytest.approx(0.0, abs=0.01)


async def test_a_loop_is_watched_only_when_that_is_wanted() -> None:
    load = LoopLoad(0.02)
    assert load.ratio == 0.0
    load.rest()
    load.watch()
    load.watch()
    async with asyncio.timeout(20):
        while not load.ratio:
            sum(range(20_000))
            await asyncio.sleep(0)
    load.rest()
    assert load.ratio == 0.0

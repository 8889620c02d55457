from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from asyncworker.tune import beat as module
from asyncworker.tune.beat import AHEAD, EVERY_S, Beat


class Timer:
    def __init__(self, due: float, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.due, self.call, self.args, self.cancelled = due, call, args, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A loop on a clock that moves when it is told to; each round runs what was ready when it began."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, int, Timer]] = []
        self.ready: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._number = itertools.count()

    def is_closed(self) -> bool:
        return False

    def call_later(self, delay: float, call: Callable[..., None], *args: Any) -> Timer:
        timer = Timer(self.now + delay, call, args)
        heapq.heappush(self.timers, (timer.due, next(self._number), timer))
        return timer

    def call_soon(self, call: Callable[..., None], *args: Any) -> None:
        self.ready.append((call, args))

    def round(self) -> None:
        while self.timers and self.timers[0][0] <= self.now + 1e-9:
            timer = heapq.heappop(self.timers)[2]
            if not timer.cancelled:
                self.ready.append((timer.call, timer.args))
        ready, self.ready = self.ready, []
        for call, args in ready:
            call(*args)

    def idle(self, seconds: float) -> None:
        end = self.now + seconds
        while self.timers and self.timers[0][0] <= end:
            self.now = max(self.now, self.timers[0][0])
            self.round()
            self.round()
        self.now = end


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(module, "perf_counter", lambda: loop.now)
    monkeypatch.setattr(module, "_HEARTS", {})
    return loop


def test_an_idle_loop_has_no_lag(loop: Loop) -> None:
    lags: list[float] = []
    beat = Beat(loop, lags.append)  # type: ignore[arg-type]
    loop.idle(1.005)
    assert len(lags) == 100
    assert max(lags) == pytest.approx(0, abs=1e-6)
    assert beat.last == pytest.approx(1.0)


def test_a_hold_is_answered_for_by_each_beat_that_fell_into_it(loop: Loop) -> None:
    lags: list[float] = []
    Beat(loop, lags.append)  # type: ignore[arg-type]
    loop.idle(0.105)
    lags.clear()
    loop.now += 0.2  # held
    loop.round()
    loop.round()
    assert len(lags) == 20
    assert max(lags) == pytest.approx(0.195)
    assert sum(lags) / len(lags) == pytest.approx(0.1)  # as if somebody had come at a random moment of the hold


def test_a_beat_waits_behind_what_is_ready_as_a_task_does(loop: Loop) -> None:
    lags: list[float] = []
    Beat(loop, lags.append)  # type: ignore[arg-type]

    def hold() -> None:
        loop.now += 0.05

    loop.now = EVERY_S
    loop.round()  # the timer fell due ...
    loop.ready.insert(0, (hold, ()))
    loop.round()  # ... but a step comes before what it woke
    assert lags[0] == pytest.approx(0.05)


def test_a_stopped_beat_is_silent_also_when_it_was_under_way(loop: Loop) -> None:
    lags: list[float] = []
    beat = Beat(loop, lags.append)  # type: ignore[arg-type]
    loop.now = EVERY_S
    loop.round()
    beat.stop()
    loop.idle(1)
    loop.round()
    assert lags == []
    assert not loop.timers


async def test_it_beats_in_a_real_loop_and_leaves_nothing() -> None:
    loop, beats = asyncio.get_running_loop(), asyncio.Event()
    lags: list[float] = []

    def on_beat(lag: float) -> None:
        lags.append(lag)
        if len(lags) > AHEAD:
            beats.set()

    beat = Beat(loop, on_beat)
    await asyncio.wait_for(beats.wait(), 20)
    beat.stop()
    assert min(lags) >= 0


def test_all_who_listen_in_a_loop_share_its_beats(loop: Loop) -> None:
    one: list[float] = []
    other: list[float] = []
    first = Beat(loop, one.append)  # type: ignore[arg-type]
    second = Beat(loop, other.append)  # type: ignore[arg-type]
    assert len(loop.timers) == AHEAD
    loop.idle(0.105)
    first.stop()
    first.stop()
    loop.idle(0.1)
    assert (len(one), len(other)) == (10, 20)
    second.stop()
    loop.idle(1)
    assert not loop.timers
    Beat(loop, one.append)  # type: ignore[arg-type]
    loop.idle(0.055)
    assert (len(one), len(other)) == (15, 20)


async def test_loops_are_apart() -> None:
    beats = asyncio.Event()
    beat = Beat(asyncio.get_running_loop(), lambda _: beats.set())

    async def elsewhere() -> None:
        there = asyncio.Event()
        own = Beat(asyncio.get_running_loop(), lambda _: there.set())
        await asyncio.wait_for(there.wait(), 20)
        own.stop()

    async def abandoned() -> None:
        Beat(asyncio.get_running_loop(), lambda _: None)

    await asyncio.to_thread(asyncio.run, abandoned())
    await asyncio.to_thread(asyncio.run, elsewhere())
    assert not any(loop.is_closed() for loop in module._HEARTS)
    beats.clear()
    await asyncio.wait_for(beats.wait(), 20)
    beat.stop()

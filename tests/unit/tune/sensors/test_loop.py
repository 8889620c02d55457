from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import threading
import time
from collections.abc import Callable

import pytest
import uvloop

from asyncworker.errors import AsyncWorkerError
from asyncworker.tune.sensors import loop as module
from asyncworker.tune.sensors.loop import Block, LoopSensor
from bench.control import bench_profiler


def hold(sensor: LoopSensor) -> None:
    """Hold the loop until the watchdog has seen it."""
    deadline = time.monotonic() + 20
    while sensor._caught is None and time.monotonic() < deadline:
        pass


def parse(sensor: LoopSensor) -> None:
    """Do so inside the standard library, most of the time."""
    text, deadline = json.dumps(list(range(20_000))), time.monotonic() + 20
    while sensor._caught is None and time.monotonic() < deadline:
        json.loads(text, parse_int=int)


async def held(how: Callable[[LoopSensor], None] = hold) -> Block:
    """Return how a hold of this loop was told of."""
    told: asyncio.Future[Block] = asyncio.get_running_loop().create_future()
    with LoopSensor(0.2, lambda block: None if told.done() else told.set_result(block)) as sensor:
        await asyncio.sleep(0)
        how(sensor)
        block = await asyncio.wait_for(told, 20)
        assert sensor.held == len(sensor.blocks) == 1
    assert sensor._watchdog is None
    return block


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
async def test_the_line_that_held_the_loop_is_named(
    make: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    def run() -> Block:
        with asyncio.Runner(loop_factory=make) as runner:
            return runner.run(held())

    with caplog.at_level(logging.WARNING):
        block = await asyncio.to_thread(run)
    file, line, function = block.line
    first = hold.__code__.co_firstlineno
    assert file == __file__
    assert first < line < first + 6
    assert function == "hold"
    assert block.seconds >= 0.2
    assert any(name == "held" for _, _, name in block.stack)
    assert f"{__file__}:{line}" in caplog.text


async def test_a_hold_inside_the_standard_library_is_laid_on_who_called_it() -> None:
    block = await held(parse)
    assert (block.line[0], block.line[2]) == (__file__, "parse")


def test_the_innermost_own_line_is_the_one_told() -> None:
    library, own = (json.__file__, 10, "loads"), ("shop.py", 7, "charge")
    block = Block(0.25, (own, library))
    assert block.line == own
    assert str(block) == "the event loop was held for 0.250 s by shop.py:7, in charge, inside loads"
    assert Block(0.25, (library,)).line == library
    assert "inside" not in str(Block(0.25, (own,)))


def test_an_idle_loop_is_not_to_blame() -> None:
    assert module._idle(())
    assert module._idle([("lib/python3.11/selectors.py", 468, "EpollSelector.select")])
    assert module._idle([("lib/python3.11/asyncio/runners.py", 118, "Runner.run")])
    assert not module._idle([("shop.py", 7, "charge")])


async def test_the_stack_ends_where_the_loop_begins() -> None:
    frame = sys._getframe()
    assert module._stack(frame)[-1][2] == "test_the_stack_ends_where_the_loop_begins"
    assert not any(name.endswith("_run_once") for _, _, name in module._stack(frame))
    assert module._stack(None) == ()


async def test_lag_and_utilisation_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncworker.tune.utilisation.WINDOW_S", 0.0)
    with LoopSensor() as sensor:
        while sensor.lag.count < 3:
            await asyncio.sleep(0.01)
        told = {reading.name: reading.value for reading in sensor.read()}
        with pytest.raises(AsyncWorkerError, match="already"):
            sensor.start()
    assert told.keys() == {"loop_lag_seconds", "loop_utilisation_ratio", "loop_held_total"}
    assert 0 <= told["loop_utilisation_ratio"] <= 1
    assert "busy" in repr(sensor)
    sensor.close()


async def test_it_can_be_started_again_and_leaves_no_thread() -> None:
    sensor = LoopSensor()
    for _ in range(2):
        with sensor:
            assert any(thread.name == "asyncworker-watchdog" for thread in threading.enumerate())
        assert not any(thread.name == "asyncworker-watchdog" for thread in threading.enumerate())


@pytest.mark.long
async def test_holds_at_random_are_each_laid_on_their_own_line() -> None:
    figures = await bench_profiler.holds(random.Random(7), number=10, idle_s=1.0)
    assert figures["named"] == figures["found"]


def test_a_line_that_holds_the_loop_all_the_time_is_logged_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(module, "perf_counter", lambda: now)
    sensor = LoopSensor()
    charge, send = (Block(0.1, (("shop.py", 7, "charge"),)), Block(0.1, (("mail.py", 3, "send"),)))
    with caplog.at_level(logging.WARNING):
        for block in (charge, charge, send, charge):
            sensor._tell(block)
        now += module.QUIET_S
        sensor._tell(charge)
    assert [record.getMessage().partition(" by ")[2] for record in caplog.records] == [
        "shop.py:7, in charge",
        "mail.py:3, in send",
        "shop.py:7, in charge",
    ]
    assert sensor.held == len(sensor.blocks) == 5
    for number in range(2 * module.KEPT):
        sensor._tell(Block(0.1, (("shop.py", number, "charge"),)))
    assert len(sensor._said) <= module.KEPT

from __future__ import annotations

import asyncio

import msgspec
import pytest

from asyncworker import MemoryOptimizer, PerformanceProfiler
from asyncworker.tune.sensors.loop import Block, LoopSensor
from asyncworker.tune.top import Snapshot, Top


async def turns(number: int) -> int:
    for _ in range(number):
        await asyncio.sleep(0)
    return number


async def test_a_snapshot_tells_what_was_since_the_one_before() -> None:
    profiler = PerformanceProfiler(1.0)
    with LoopSensor() as loop, profiler:
        top = Top(loop, profiler, MemoryOptimizer())
        await asyncio.gather(*[asyncio.create_task(turns(5)) for _ in range(3)])
        first = top.snapshot()
        assert [(of.name, of.calls, of.share) for of in first.functions] == [("turns", 3, 1.0)]
        assert top.snapshot().functions == []
        await asyncio.create_task(turns(1))
        loop.blocks.append(Block(0.25, (("shop.py", 7, "charge"),)))
        last = top.snapshot()
    (of,) = last.functions
    assert of.calls == 1
    assert of.wall_s >= of.cpu_s > 0
    assert first.last_hold == ""
    assert "shop.py:7" in last.last_hold
    assert last.memory["memory_rss_bytes"] > 1e6
    assert first.tasks >= 1
    assert first.cpu_ratio > 0
    assert msgspec.json.decode(msgspec.json.encode(last), type=Snapshot) == last


async def test_a_profiler_that_starts_afresh_is_read_afresh() -> None:
    profiler = PerformanceProfiler(1.0)
    top = Top(LoopSensor(), profiler, MemoryOptimizer())
    for calls in (3, 1):
        with profiler:
            for _ in range(calls):
                await asyncio.create_task(turns(1))
        (of,) = top.snapshot().functions
        assert of.calls == calls
        assert of.share == pytest.approx(1.0)

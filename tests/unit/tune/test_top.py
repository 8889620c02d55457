from __future__ import annotations

import asyncio

import msgspec
import pytest

from asyncworker import MemoryOptimizer, PerformanceProfiler
from asyncworker.events import Bus, JobEnd, JobsEnded
from asyncworker.tune.sensors.loop import Block, LoopSensor
from asyncworker.tune.sensors.tasks import MOST, TasksSensor
from asyncworker.tune.top import Snapshot, Top, walls_of


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
    assert last.holds == [last.last_hold]
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


async def test_jobs_are_told_by_task_and_put_together_over_workers() -> None:
    bus = Bus()
    ended = TasksSensor(bus)
    ended.start()
    ended.start()
    assert bus.wants(JobsEnded)
    top = Top(LoopSensor(), PerformanceProfiler(), MemoryOptimizer(), ended, lambda: {"mail": 3, "wait": 1})
    ends = [JobEnd("mail", "default", status, 0.0, 0.1) for status in ("succeeded", "failed", "succeeded")]
    bus.emit(JobsEnded(epoch="e", ends=[*ends, JobEnd("shop", "default", "succeeded", 0.0, 2.0)]))
    first = top.snapshot()
    assert [(of.name, of.running, of.ended, of.failed) for of in first.jobs] == [
        ("mail", 3, 3, 1),
        ("shop", 0, 1, 0),
        ("wait", 1, 0, 0),
    ]
    there = msgspec.json.decode(msgspec.json.encode(first), type=Snapshot)
    walls = walls_of([there.jobs[0], first.jobs[0], there.jobs[1]])
    assert walls.count == 7
    assert walls.quantile(0.5) == pytest.approx(0.1, rel=0.1)
    assert walls.quantile(0.95) == pytest.approx(2.0, rel=0.1)
    assert [(of.name, of.ended) for of in top.snapshot().jobs] == [("mail", 0), ("wait", 0)]
    ended.close()
    ended.close()
    assert not bus.wants(JobsEnded)


async def test_names_without_end_are_bounded() -> None:
    bus = Bus()
    ended = TasksSensor(bus)
    ended.start()
    bus.emit(JobsEnded(epoch="e", ends=[JobEnd(str(n), "q", "succeeded", 0.0, 0.1) for n in range(2 * MOST)]))
    assert len(ended.take()) == MOST
    assert ended.take() == {}
    ended.close()

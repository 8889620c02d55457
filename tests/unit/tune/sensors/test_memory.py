from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
from collections import Counter

import pytest

from asyncworker import MemoryOptimizer
from asyncworker.errors import AsyncWorkerError, BadParameters
from asyncworker.tune.census import type_name
from asyncworker.tune.layout import FEWEST
from asyncworker.tune.sensors import memory as module
from asyncworker.tune.sensors.memory import RSS
from asyncworker.tune.trend import MIN_SAMPLES
from bench.control import bench_memory_leaks

WINDOW = 0.03


class Entry:
    __slots__ = ("number",)


class Clean:
    __slots__ = ("number",)


class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y


def make() -> Entry:
    return Entry()


async def leaking(memory: MemoryOptimizer, kept: list[Entry], monkeypatch: pytest.MonkeyPatch, most: int = 0) -> None:
    """Take as many samples as are needed, while entries become more and clean objects saw."""
    passing: list[Clean] = []

    async def count() -> tuple[Counter[str], float]:
        return Counter({type_name(Entry): len(kept), type_name(Clean): 200 + len(passing)}), most

    monkeypatch.setattr(module, "count", count)
    for number in range(2 * MIN_SAMPLES):
        kept.extend(make() for _ in range(5))
        passing = [Clean() for _ in range(number % 10)]
        await memory.sample()


async def test_a_leak_is_told_with_its_type_line_and_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, kept = MemoryOptimizer(window=WINDOW), [make() for _ in range(100)]
    assert await memory.detect_leaks() == []
    await leaking(memory, kept, monkeypatch)

    async def go_on() -> None:
        while True:
            kept.append(make())
            await asyncio.sleep(0)

    going = asyncio.create_task(go_on())
    (leak,) = await memory.detect_leaks()
    going.cancel()
    await asyncio.wait({going})
    assert leak.type == type_name(Entry)
    assert (leak.file, leak.line) == (__file__, make.__code__.co_firstlineno + 1)
    assert leak.share == 1.0
    assert leak.per_s > 0
    assert leak.z > 3
    assert {"memory_leaks_suspected": 1.0}.items() <= {of.name: of.value for of in memory.read()}.items()


async def test_a_leak_that_has_stopped_has_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryOptimizer(window=0.001)
    await leaking(memory, [make() for _ in range(100)], monkeypatch)
    (leak,) = await memory.detect_leaks()
    assert (leak.type, leak.file, leak.line, leak.holders) == (type_name(Entry), "", 0, ())


async def test_s42_too_few_samples_are_no_verdict_and_nothing_is_collected_by_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forced: list[int] = []
    monkeypatch.setattr(gc, "collect", forced.append)
    memory = MemoryOptimizer()
    for _ in range(3):
        await memory.sample()
    assert await memory.detect_leaks() == []
    assert not forced
    assert not tracemalloc.is_tracing()


async def test_memory_of_no_type_is_laid_on_the_lines_that_keep_it() -> None:
    memory, kept = MemoryOptimizer(window=WINDOW), list[bytes]()
    for number in range(MIN_SAMPLES):
        memory._bytes.add(number, {RSS: 1e8 + 1e6 * number})

    async def fill() -> None:
        while True:
            kept.append(bytes(10_000))
            await asyncio.sleep(0)

    filling = asyncio.create_task(fill())
    leaks = await memory.detect_leaks()
    filling.cancel()
    await asyncio.wait({filling})
    assert leaks[0].type is None
    assert (leaks[0].file, leaks[0].line) == (__file__, fill.__code__.co_firstlineno + 2)
    assert leaks[0].per_s == pytest.approx(1e6)


def test_times_that_cannot_be_are_refused() -> None:
    for times in ({"every": 0}, {"window": -1}):
        with pytest.raises(BadParameters, match="above 0"):
            MemoryOptimizer(**times)


async def test_a_census_that_holds_the_loop_is_taken_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, kept = MemoryOptimizer(), list[Entry]()
    await leaking(memory, kept, monkeypatch, most=1)
    assert len(memory._types.times) == 1
    assert len(memory._bytes.times) == 2 * MIN_SAMPLES


async def test_a_profile_tells_what_there_is() -> None:
    async with MemoryOptimizer() as memory:
        gc.collect()
        profile = await memory.profile_memory()
        assert profile.rss_bytes > 10_000_000
        assert profile.uss_bytes is None or profile.uss_bytes > 0
        assert profile.traced_bytes is None
        assert profile.objects >= sum(number for _, number in profile.types) > 1_000
        assert [of.collections > 0 for of in profile.generations][2]
        assert profile.generations[2].longest_s > 0
        told = {of.name for of in memory.read()}
    assert told == {"memory_rss_bytes", "memory_objects", "memory_leaks_suspected", "gc_pause_seconds_total"}


async def test_it_samples_until_it_is_stopped_and_leaves_nothing() -> None:
    callbacks = list(gc.callbacks)
    memory = MemoryOptimizer(every=0.001)
    memory.close()
    async with memory:
        with pytest.raises(AsyncWorkerError, match="already"):
            memory.start()
        while len(memory._bytes.times) < 2:
            await asyncio.sleep(0.001)
    assert gc.callbacks == callbacks
    taken = len(memory._bytes.times)
    await memory.stop()
    await asyncio.sleep(0)
    assert len(memory._bytes.times) == taken
    assert "stopped" in repr(memory)
    async with memory:  # again
        assert "sampling" in repr(memory)


async def test_lighter_forms_are_suggested_for_what_there_is_most_of() -> None:
    points = [Point(at, at) for at in range(20_000)]
    (given,) = await MemoryOptimizer().optimize_data_structures(points[: 2 * FEWEST])
    found = await MemoryOptimizer().optimize_data_structures()
    assert type_name(Point) in {of.type for of in found}
    assert given.type == type_name(Point)
    assert found == sorted(found, key=lambda of: of.saved, reverse=True)


@pytest.mark.long
async def test_in_a_service_at_work_the_leak_alone_is_named() -> None:
    gc.collect()
    gc.freeze()  # the tests' own heap is so large that objects would not be counted
    try:
        found = await bench_memory_leaks.leaks(random.Random(7))
    finally:
        gc.unfreeze()
    assert {kind for kind, *_ in found["told"]} == {found["type"]}
    assert all(here and line == found["line"] for _, here, line, _ in found["told"])

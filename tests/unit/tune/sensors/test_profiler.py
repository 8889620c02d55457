from __future__ import annotations

import asyncio
import contextvars
import inspect
import random
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from asyncworker import PerformanceProfiler
from asyncworker.errors import AsyncWorkerError, BadParameters
from asyncworker.tune.metered import MAX_CHILDREN
from asyncworker.tune.sensors import profiler as module
from asyncworker.tune.sensors.profiler import CALLS_A_BEAT
from bench.control import bench_profiler
from bench.control.speedscope_format import complaints, weight

Loop = Callable[[], asyncio.AbstractEventLoop]


async def on(make: Loop, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine on a loop of another kind, in a thread of its own."""

    def run() -> Any:
        with asyncio.Runner(loop_factory=make) as runner:
            return runner.run(main())

    return await asyncio.to_thread(run)


LOOPS = [pytest.param(asyncio.new_event_loop, id="asyncio"), pytest.param(uvloop.new_event_loop, id="uvloop")]


async def leaf(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def fails() -> None:
    await asyncio.sleep(0)
    raise ValueError("no")


async def tree() -> int:
    values = await asyncio.gather(*[asyncio.create_task(leaf(number)) for number in range(3)])
    return sum(values)


def task(coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(coro)


@pytest.mark.parametrize("make", LOOPS)
async def test_tasks_are_measured_on_each_loop(make: Loop) -> None:
    profiler = PerformanceProfiler(1.0)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with profiler:
            assert await task(tree()) == 3
            with pytest.raises(ValueError, match="no"):
                await task(fails())
            assert profiler.profiling
        assert loop.get_task_factory() is None

    await on(make, main)
    report = profiler.get_profile_report()
    told = {of.name: of for of in report.functions}
    assert {name: (of.calls, of.failed, of.steps) for name, of in told.items() if name != "tree"} == {
        "leaf": (3, 0, 6),
        "fails": (1, 1, 2),
    }
    assert told["leaf"].file == __file__
    assert told["leaf"].line == leaf.__code__.co_firstlineno
    assert (report.tasks, report.sampled, report.roots) == (5, 5, 2)
    for of in report.functions:
        assert of.wall_s == pytest.approx(of.on_loop_s + of.await_s + of.ready_s)
        assert of.cpu_s <= of.on_loop_s
    assert report.critical_s <= report.seconds
    assert not complaints_of(profiler)
    assert weight(profiler.speedscope()) == pytest.approx(report.critical_s)


def complaints_of(profiler: PerformanceProfiler) -> list[str]:
    return list(complaints(profiler.speedscope()))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
async def test_eager_tasks_are_measured() -> None:
    profiler = PerformanceProfiler(1.0)

    async def at_once() -> int:
        return 1

    async def main() -> None:
        loop = asyncio.get_running_loop()
        eager: Any = vars(asyncio)["eager_task_factory"]
        loop.set_task_factory(eager)
        with profiler:
            assert await task(at_once()) == 1
            assert await task(tree()) == 3
        assert loop.get_task_factory() is eager

    await on(asyncio.new_event_loop, main)
    told = {of.name.rpartition(".")[2]: of.calls for of in profiler.get_profile_report().functions}
    assert told == {"at_once": 1, "tree": 1, "leaf": 3}


@asynccontextmanager
async def own_factory(factory: Any) -> AsyncIterator[asyncio.AbstractEventLoop]:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(factory)
    try:
        yield loop
    finally:
        loop.set_task_factory(before)


async def test_another_task_factory_stays_in_use_and_comes_back() -> None:
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coro.__qualname__)
        return asyncio.Task(coro, loop=loop, **options)

    async with own_factory(factory) as loop:
        with PerformanceProfiler(1.0) as profiler:
            assert await task(leaf(1)) == 1
        assert loop.get_task_factory() is factory
    assert made == ["leaf"]
    assert profiler.get_profile_report().sampled == 1


async def test_nested_profilers_both_measure_and_restore() -> None:
    async with own_factory(None) as loop:
        with PerformanceProfiler(1.0) as one:
            with PerformanceProfiler(1.0) as other:
                await task(leaf(1))
            await task(leaf(1))
        assert loop.get_task_factory() is None
    assert [of.get_profile_report().sampled for of in (one, other)] == [2, 1]


async def test_a_profiler_stopped_below_another_factory_lets_everything_pass() -> None:
    async with own_factory(None) as loop:
        below, above = PerformanceProfiler(1.0), PerformanceProfiler(1.0)
        below.start_profiling()
        above.start_profiling()
        below.stop()
        await task(leaf(1))
        assert below.get_profile_report().tasks == 0
        assert above.get_profile_report().tasks == 1
        above.stop()
        await task(leaf(1))
        assert above.get_profile_report().tasks == 1
        assert below.get_profile_report().functions == []
        loop.set_task_factory(None)


async def test_a_second_start_measures_afresh() -> None:
    profiler = PerformanceProfiler(1.0)
    with profiler:
        await task(leaf(1))
        with pytest.raises(AsyncWorkerError, match="already"):
            profiler.start_profiling()
    profiler.stop()
    profiler.close()
    assert profiler.get_profile_report().tasks == 1
    with profiler:
        assert profiler.get_profile_report().tasks == 0


async def test_decorated_calls_are_measured_within_their_task() -> None:
    profiler = PerformanceProfiler(1.0)
    fetch = profiler.profile_async(leaf)

    async def twice() -> int:
        return await fetch(1) + await fetch(2)

    assert inspect.iscoroutinefunction(fetch)
    assert fetch.__name__ == "leaf"
    assert await fetch(5) == 5  # not profiling
    with profiler:
        assert await task(twice()) == 3
    told = {of.name.rpartition(".")[2]: of for of in profiler.get_profile_report().functions}
    assert (told["leaf"].calls, told["twice"].calls) == (2, 1)
    stacks = [line.rpartition(" ")[0] for line in profiler.collapsed().splitlines()]
    assert any(";leaf (test_profiler.py" in stack and "twice" in stack.partition(";")[0] for stack in stacks)


async def test_a_task_of_a_decorated_function_is_counted_once_under_its_own_name() -> None:
    profiler = PerformanceProfiler(1.0)
    fetch = profiler.profile_async(leaf)
    with profiler:
        assert await task(fetch(1)) == 1
    (of,) = profiler.get_profile_report().functions
    assert (of.name, of.calls, of.line) == ("leaf", 1, leaf.__code__.co_firstlineno)


async def test_a_decorated_call_outside_a_measured_task_is_a_root() -> None:
    profiler = PerformanceProfiler(0.001)
    fetch = profiler.profile_async(leaf)
    with profiler:
        await fetch(1)
        assert await asyncio.to_thread(asyncio.run, fetch(2)) == 2  # another loop's, which is not profiled
    report = profiler.get_profile_report()
    assert (report.roots, [of.calls for of in report.functions]) == (1, [1])


def test_what_is_no_coroutine_function_is_refused() -> None:
    with pytest.raises(BadParameters, match="no coroutine function"):
        PerformanceProfiler().profile_async(len)  # type: ignore[arg-type]
    with pytest.raises(BadParameters, match="sample_rate"):
        PerformanceProfiler(0)


async def test_one_in_eight_trees_is_measured_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    profiler = PerformanceProfiler()
    monkeypatch.setattr(profiler, "_random", random.Random(1))
    with profiler:
        for _ in range(400):
            await task(tree())
    told = {of.name: of.calls for of in profiler.get_profile_report().functions}
    assert 25 <= told["tree"] <= 80
    assert told["leaf"] >= 3 * told["tree"]


async def test_a_loop_that_starts_tasks_for_ever_does_not_measure_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    profiler = PerformanceProfiler(0.5)
    monkeypatch.setattr(profiler, "_random", random.Random(1))

    async def forever() -> None:
        for number in range(10 * MAX_CHILDREN):
            await task(leaf(number))

    with profiler:
        while not profiler.get_profile_report().sampled:
            await task(forever())
    calls = {of.name.rpartition(".")[2]: of.calls for of in profiler.get_profile_report().functions}
    assert calls["leaf"] < 8 * MAX_CHILDREN


async def test_a_measured_task_looks_and_cancels_like_any_other() -> None:
    started, variable = asyncio.Event(), contextvars.ContextVar("variable", default=0)

    async def waits() -> None:
        variable.set(1)
        started.set()
        await asyncio.Event().wait()

    with PerformanceProfiler(1.0) as profiler:
        waiting = asyncio.create_task(waits(), name="my task")
        await started.wait()
        assert "waits" in repr(waiting)
        assert waiting.get_name() == "my task"
        (frame,) = waiting.get_stack()
        assert frame.f_code is waits.__code__
        assert variable.get() == 0
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    (of,) = profiler.get_profile_report().functions
    assert (of.calls, of.failed) == (1, 1)


async def test_what_is_measured_as_a_sensor_is_told_by_kind() -> None:
    with PerformanceProfiler(1.0) as profiler:
        await task(leaf(1))
        assert {reading.labels for reading in profiler.read()} == {
            (("kind", kind),) for kind in ("cpu", "on_loop", "await", "ready")
        }
    assert sum(reading.value for reading in profiler.read()) > 0
    assert "stopped" in repr(profiler)


async def test_the_experiments_truth_and_export_in_small() -> None:
    figures = await bench_profiler.kinds(random.Random(5), tasks=2, steps=2)
    assert all(of["cpu_s"] > 0 and 0 < of["cpu_told"] <= of["on_loop_s"] for of in figures.values())
    export = await bench_profiler.export(random.Random(5), tasks=3)
    assert export["wrong"] == []
    assert 0.5 < export["weights_to_wall"] < 1.5


async def test_calls_are_measured_by_a_name_of_their_own_and_tasks_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALLS_A_BEAT", 100)
    before = asyncio.get_running_loop().get_task_factory()
    with PerformanceProfiler(1.0, tasks=False) as profiler:
        assert profiler.profiling
        assert asyncio.get_running_loop().get_task_factory() is before
        assert await profiler.measure("mail", leaf(3)) == 3
        assert await profiler.measure("shop", leaf(4)) == 4
        with pytest.raises(ValueError, match="no"):
            await profiler.measure("mail", fails())
        await task(leaf(5))
    found = {of.name: (of.calls, of.failed) for of in profiler.get_profile_report().functions}
    assert found == {"mail": (2, 1), "shop": (1, 0)}
    later = leaf(6)
    assert profiler.measure("mail", later) is later
    assert await later == 6


async def test_many_calls_are_measured_no_more_often_than_a_few_a_beat() -> None:
    with PerformanceProfiler(tasks=False) as profiler:
        coats = 0
        for _ in range(2000):  # at one stretch: no beat comes between
            call = leaf(1)
            measured = profiler.measure("mail", call)
            coats += measured is not call
            measured.close()
        assert coats == CALLS_A_BEAT
        assert not profiler.open
        while not profiler.open:
            await asyncio.sleep(0.001)


async def test_what_is_no_coroutine_is_let_through() -> None:
    with PerformanceProfiler(1.0, tasks=False) as profiler:
        future = asyncio.get_running_loop().create_future()
        assert profiler.measure("mail", future) is future


async def test_one_in_eight_calls_is_measured() -> None:
    with PerformanceProfiler(tasks=False) as profiler:
        for _ in range(4000):
            profiler._on_beat(0.0)
            profiler.measure("mail", leaf(1)).close()
        report = profiler.get_profile_report()
    assert report.tasks == 4000
    assert 350 <= report.sampled <= 650

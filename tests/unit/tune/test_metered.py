"""Coroutines are stepped by hand here, on a clock that moves when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Generator
from types import coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncworker.tune import metered
from asyncworker.tune.metered import AWAIT, MAX_RECORDS, MAX_STACKS, ON_LOOP, OTHER, READY, Meter, Metered, Record


class Clock:
    def __init__(self) -> None:
        self.now, self.cpu = 1.0, 0.0

    def run(self, seconds: float, cpu: float | None = None) -> None:
        self.now += seconds
        self.cpu += seconds if cpu is None else cpu


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(metered, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(metered, "thread_time", lambda: clock.cpu)
    return clock


@coroutine
def future() -> Generator[object, None, None]:
    yield object()


@coroutine
def bare() -> Generator[None, None, None]:
    yield


def coat(meter: Meter, coro: Any, parent: Metered | None = None, *, nested: bool = False) -> Metered:
    return Metered(coro, meter, meter.record(coro, coro.cr_code), parent, nested=nested)


def step(task: Metered) -> bool:
    """Return whether it goes on."""
    try:
        task.send(None)
    except StopIteration:
        return False
    return True


def named(meter: Meter) -> dict[tuple[str, ...], float]:
    """Return the critical paths with bare function names, without what took no time."""
    return {
        tuple(label.partition(" (")[0].rpartition(".")[2] for label in stack): seconds
        for stack, seconds in meter.stacks.items()
        if seconds
    }


def test_a_step_a_wait_and_a_delay_are_told_apart(clock: Clock) -> None:
    async def leaf() -> None:
        clock.run(2)
        await future()
        clock.run(1)
        await bare()

    meter = Meter()
    meter.lag = 0.5
    task = coat(meter, leaf())
    clock.now += 10  # until it is its turn
    assert step(task)
    clock.now += 5  # of which half a second after the future was done, as the beat says
    assert step(task)
    clock.now += 3  # a bare yield only waits for its turn
    assert not step(task)
    (record,) = meter.records.values()
    assert (record.calls, record.failed, record.steps, record.longest) == (1, 0, 3, 2)
    assert (record.on_loop, record.ready, record.await_s, record.walls.sum) == (3, 13.5, 4.5, 21)
    assert named(meter) == {("leaf", ON_LOOP): 3, ("leaf", AWAIT): 4.5, ("leaf", READY): 13.5}


def test_what_is_awaited_in_place_lies_on_its_own_part_of_the_path(clock: Clock) -> None:
    meter = Meter()

    async def inner() -> None:
        clock.run(1)
        await future()
        clock.run(1)

    async def outer() -> None:
        clock.run(2)
        await coat(meter, inner(), meter.active, nested=True)
        clock.run(4)
        await future()

    task = coat(meter, outer())
    assert step(task)
    clock.now += 10
    assert step(task)
    clock.now += 20
    assert not step(task)
    assert named(meter) == {
        ("outer", ON_LOOP): 6,
        ("outer", AWAIT): 20,
        ("outer", "inner", ON_LOOP): 2,
        ("outer", "inner", AWAIT): 10,
    }
    told = {record.frame[0].rpartition(".")[2]: record for record in meter.records.values()}
    assert (told["outer"].on_loop, told["outer"].own_loop, told["outer"].await_s) == (8, 6, 30)
    assert (told["inner"].on_loop, told["inner"].walls.sum, told["inner"].nested) == (2, 12, 1)
    assert meter.roots == 1


def test_of_several_tasks_the_path_leads_through_the_one_that_ended_last(clock: Clock) -> None:
    meter = Meter()

    async def quick() -> None:
        clock.run(1)

    async def slow() -> None:
        clock.run(1)
        await future()
        clock.run(2)

    async def root() -> None:
        clock.run(1)
        await future()

    parent = coat(meter, root())
    step(parent)
    one, other = coat(meter, quick(), parent), coat(meter, slow(), parent)
    step(other)
    step(one)
    clock.now += 5
    step(other)
    step(parent)
    # root 1 s; then slow, for 1 + 6 + 2 s.
    assert named(meter) == {
        ("root", ON_LOOP): 1,
        ("root", "slow", ON_LOOP): 3,
        ("root", "slow", AWAIT): 6,
    }
    assert meter.roots == 1


def test_a_task_that_ended_long_before_is_not_what_was_waited_for(clock: Clock) -> None:
    meter = Meter()

    async def child() -> None:
        clock.run(1)

    async def root() -> None:
        await future()

    parent = coat(meter, root())
    step(parent)
    step(coat(meter, child(), parent))
    clock.now += 3
    step(parent)
    assert named(meter) == {("root", AWAIT): 4}


def test_a_task_that_outlives_its_parent_is_a_root_of_its_own(clock: Clock) -> None:
    meter = Meter()

    async def root() -> None:
        clock.run(1)

    async def child() -> None:
        clock.run(2)

    parent = coat(meter, root())
    late = coat(meter, child(), parent)
    step(parent)
    step(late)
    assert meter.roots == 2
    assert named(meter)["child", ON_LOOP] == 2


PROGRAM = st.recursive(
    st.lists(st.tuples(st.sampled_from(["run", "wait", "yield"]), st.integers(0, 9)), max_size=4),
    lambda inner: st.lists(st.one_of(st.tuples(st.sampled_from(["run", "wait", "yield"]), st.integers(0, 9)), inner)),
    max_leaves=12,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(PROGRAM, st.integers(0, 3))
def test_a_path_is_as_long_as_the_wall_time(clock: Clock, program: list[Any], lag: int) -> None:
    meter = Meter()
    meter.lag = float(lag)

    async def play(lines: list[Any]) -> None:
        for line in lines:
            if isinstance(line, list):
                await coat(meter, play(line), meter.active, nested=True)
            elif line[0] == "run":
                clock.run(line[1])
            else:
                await (future() if line[0] == "wait" else bare())

    began = clock.now
    root = coat(meter, play(program))
    while step(root):
        clock.now += 2
    assert sum(meter.stacks.values()) == pytest.approx(clock.now - began)
    assert meter.current() is None
    (record,) = meter.records.values()
    assert record.failed == 0


def test_cpu_time_is_told_apart_from_time_on_the_loop(clock: Clock) -> None:
    async def preempted() -> None:
        for _ in range(200):
            clock.run(0.002, cpu=0.001)
            await bare()

    meter = Meter()
    task = coat(meter, preempted())
    while step(task):
        pass
    (record,) = meter.records.values()
    assert record.clocked == record.steps == 201  # long steps: each is clocked
    assert record.cpu_s == pytest.approx(record.on_loop / 2)


def test_short_steps_are_clocked_now_and_then(clock: Clock) -> None:
    async def short() -> None:
        for _ in range(999):
            clock.run(1e-5, cpu=0.5e-5)
            await bare()

    meter = Meter()
    task = coat(meter, short())
    while step(task):
        pass
    (record,) = meter.records.values()
    assert 8 < record.clocked < 40
    assert record.cpu_s == pytest.approx(record.on_loop / 2)


def test_errors_and_returns_pass_through(clock: Clock) -> None:
    meter = Meter()

    async def returns() -> int:
        await bare()
        return 7

    async def raises() -> None:
        await bare()
        raise ValueError("no")

    async def both() -> int:
        with pytest.raises(ValueError, match="no"):
            await coat(meter, raises(), meter.active, nested=True)
        return await coat(meter, returns(), meter.active, nested=True)

    root = coat(meter, both())
    assert step(root)
    assert step(root)
    with pytest.raises(StopIteration) as ended:
        root.send(None)
    assert ended.value.value == 7
    told = {record.frame[0].rpartition(".")[2]: record.failed for record in meter.records.values()}
    assert told == {"both": 0, "raises": 1, "returns": 0}


def test_a_coroutine_that_is_thrown_at_or_closed_counts_as_failed(clock: Clock) -> None:
    meter, cleaned = Meter(), []

    async def waits() -> None:
        try:
            await future()
        finally:
            cleaned.append(1)

    for end in (lambda of: of.throw(asyncio.CancelledError()), lambda of: of.close()):
        task = coat(meter, waits())
        assert step(task)
        with contextlib.suppress(asyncio.CancelledError):
            end(task)
        task.close()
    (record,) = meter.records.values()
    assert (record.calls, record.failed, len(cleaned)) == (2, 2, 2)


def test_a_throw_may_be_survived(clock: Clock) -> None:
    async def stubborn() -> str:
        try:
            await future()
        except ValueError:
            await bare()
        return "alive"

    meter = Meter()
    task = coat(meter, stubborn())
    assert step(task)
    task.throw(ValueError())
    with pytest.raises(StopIteration, match="alive"):
        task.send(None)


def test_it_looks_like_what_it_wraps() -> None:
    async def plain() -> None:
        await future()

    coro = plain()
    task = coat(Meter(), coro)
    assert task.__qualname__ == coro.__qualname__
    assert task.__name__ == "plain"
    assert (task.cr_code, task.cr_frame, task.cr_running, task.cr_origin) == (coro.cr_code, coro.cr_frame, False, None)
    assert task.cr_await is None
    assert not task.cr_suspended
    step(task)
    assert task.cr_await is coro.cr_await is not None
    assert asyncio.iscoroutine(task)
    assert isinstance(task, Awaitable)
    assert "plain" in repr(task)
    task.close()


def test_the_number_of_stacks_is_bounded() -> None:
    meter = Meter()
    for number in range(MAX_STACKS + 100):
        meter.settle({(f"f{number}", AWAIT): 1.0})
    assert len(meter.stacks) == MAX_STACKS + 1
    assert meter.stacks[OTHER, AWAIT] == 100


def test_the_number_of_functions_is_bounded() -> None:
    meter = Meter()
    meter.records = {number + 1: Record(None, (str(number), "", 0)) for number in range(MAX_RECORDS)}

    async def late() -> None:
        return None

    coro = late()
    assert meter.record(coro, coro.cr_code).frame == (OTHER, "", 0)
    assert meter.record(coro, coro.cr_code) is meter.records[0]
    coro.close()

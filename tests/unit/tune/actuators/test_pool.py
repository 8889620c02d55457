"""Worker coroutines in virtual time."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.errors import BadParameters, PoolClosed, UnknownName
from asyncworker.tune.actuators.pool import ResourcePool
from asyncworker.tune.decisions import Decisions
from asyncworker.tune.policies.backlog import BacklogPolicy
from asyncworker.tune.policies.levels import Level
from bench.control import virtual_loop


def told(story: Callable[[ResourcePool], Awaitable[Any]], *arguments: Any, **options: Any) -> Any:
    """Tell a story of an open pool in virtual time."""

    async def main() -> Any:
        async with ResourcePool(*arguments, **options) as pool:
            return await story(pool)

    return virtual_loop.run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


async def nap(seconds: float, value: Any = None) -> Any:
    await asyncio.sleep(seconds)
    return value


async def fail(seconds: float) -> None:
    await asyncio.sleep(seconds)
    raise ValueError("mine")


def test_work_is_done_in_order_and_its_result_comes_back() -> None:
    async def story(pool: ResourcePool) -> None:
        begun: list[int] = []

        async def work(number: int, *, factor: int) -> int:
            begun.append(number)
            await asyncio.sleep(0.1)
            return number * factor

        assert await asyncio.gather(*(pool.run(work, n, factor=3) for n in range(20))) == [3 * n for n in range(20)]
        assert begun == list(range(20))
        assert now() == pytest.approx(1.0)

    told(story, 2, 2)


def test_no_more_work_at_once_than_workers_while_they_grow_and_shrink() -> None:
    async def story(pool: ResourcePool) -> None:
        at_once = most = 0

        async def work() -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.1)
            at_once -= 1

        tasks = [pool.submit(work) for _ in range(100)]
        for size in (1, 7, 3, 10, 2):
            pool.resize(size)
            await asyncio.sleep(0.15)  # who is too many has finished
            most = at_once
            await asyncio.sleep(0.25)
            assert most == size == pool.in_use == pool.get_active_workers()
        await asyncio.gather(*tasks)
        assert pool.get_active_workers() == 2
        pool.resize(99)
        assert pool.size == pool.get_active_workers() == 10
        pool.resize(-1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert pool.size == pool.get_active_workers() == 1

    told(story, 1, 10, None)


def test_nobody_is_interrupted_by_a_shrink() -> None:
    async def story(pool: ResourcePool) -> None:
        pool.resize(4)
        tasks = [pool.submit(nap, 1, number) for number in range(6)]
        await asyncio.sleep(0.5)
        pool.resize(1)
        assert (pool.in_use, pool.get_active_workers(), pool.waiting) == (4, 4, 2)
        assert await asyncio.gather(*tasks) == list(range(6))
        assert now() == pytest.approx(3)

    told(story, 1, 4, None)


def test_an_error_is_its_callers_alone() -> None:
    async def story(pool: ResourcePool) -> None:
        results = await asyncio.gather(
            pool.run(fail, 0.1), pool.run(nap, 0.2, "fine"), pool.run(fail, 0), return_exceptions=True
        )
        assert [str(result) for result in results] == ["mine", "fine", "mine"]
        assert pool.get_active_workers() == 1

        async def bows_out() -> None:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await pool.submit(bows_out)
        assert await pool.run(nap, 0, 1) == 1

    told(story, 1, 1)


def test_cancelling_the_caller_cancels_the_work() -> None:
    async def story(pool: ResourcePool) -> None:
        ended: list[str] = []

        async def work(name: str) -> None:
            try:
                await asyncio.sleep(10)
            finally:
                ended.append(name)

        running, waiting = (
            asyncio.create_task(pool.run(work, "running")),
            asyncio.create_task(pool.run(work, "waiting")),
        )
        await asyncio.sleep(1)
        waiting.cancel()
        running.cancel()
        await asyncio.wait([running, waiting])
        assert running.cancelled()
        assert waiting.cancelled()
        assert await pool.run(nap, 1, "next") == "next"
        assert ended == ["running"]
        assert now() == pytest.approx(2)

    told(story, 1, 1)


def test_work_has_the_context_of_its_caller() -> None:
    name = contextvars.ContextVar("name", default="nobody")

    async def story(pool: ResourcePool) -> None:
        async def who() -> str:
            await asyncio.sleep(0)
            return name.get()

        async def caller(own: str) -> str:
            name.set(own)
            return await pool.run(who)

        assert await asyncio.gather(*map(asyncio.create_task, (caller("a"), caller("b")))) == ["a", "b"]

    told(story)


def test_s41_leaving_in_peace_finishes_the_line_and_leaving_by_an_error_cancels_it() -> None:
    async def main() -> None:
        async with ResourcePool(2, 2) as pool:
            tasks = [pool.submit(nap, 1, number) for number in range(6)]
        assert [task.result() for task in tasks] == list(range(6))
        assert now() == pytest.approx(3)
        with pytest.raises(PoolClosed):
            pool.submit(nap, 1)
        tasks = []

        async def breaks_off() -> None:
            async with pool:
                tasks.extend(pool.submit(nap, 1, number) for number in range(6))
                await asyncio.sleep(0.5)
                raise KeyError

        with pytest.raises(KeyError):
            await breaks_off()
        assert [task.cancelled() for task in tasks] == [True] * 6
        assert now() == pytest.approx(3.5)
        assert pool.get_active_workers() == pool.in_use == 0

    virtual_loop.run(main())


def test_utilization_is_measured_time() -> None:
    async def story(pool: ResourcePool) -> None:
        pool.resize(4)
        assert pool.get_utilization() == 0.0
        pool.submit(nap, 10)
        await asyncio.sleep(2)
        assert pool.get_utilization() == pytest.approx(0.25)
        pool.submit(nap, 10)
        await asyncio.sleep(2)
        assert pool.get_utilization() == pytest.approx(0.375)

    told(story, 1, 10, None)


def test_a_level_that_lasts_makes_it_grow_and_peace_makes_it_shrink() -> None:
    decisions = Decisions()

    async def story(pool: ResourcePool) -> None:
        assert pool.level is Level.LOW
        tasks = [pool.submit(nap, 0.1) for _ in range(1000)]
        await asyncio.sleep(3)
        assert pool.level is Level.CRITICAL
        assert pool.size >= 4
        await asyncio.gather(*tasks)
        assert pool.get_utilization() > 0.9
        await asyncio.sleep(20)
        assert (pool.size, pool.get_active_workers(), pool.level) == (1, 1, Level.LOW)

    told(story, 1, 16, decisions=decisions, name="crew")
    sizes = [1, *(decision.new for decision in decisions)]
    top = sizes.index(16)
    assert sizes[: top + 1] == sorted(sizes[: top + 1])
    assert sizes[top:] == sorted(sizes[top:], reverse=True)
    assert {decision.name for decision in decisions} == {"crew"}
    assert {decision.because for decision in decisions} <= {f"level {level}" for level in Level}


@pytest.mark.parametrize(
    ("load", "least", "most"), [("LOW", 1, 5), ("medium", 6, 12), (Level.HIGH, 12, 20), (0.5, 6, 12)]
)
def test_simulate_load_shows_how_it_would_scale(load: Any, least: int, most: int) -> None:
    async def story(pool: ResourcePool) -> None:
        rehearsal = await pool.simulate_load(load, 12)
        assert least <= rehearsal.workers <= most
        assert 0.5 < rehearsal.utilization <= 1
        await asyncio.sleep(0.1)
        assert pool.waiting == pool.in_use == 0

    told(story, 1, 20)


def test_a_load_that_makes_no_sense_is_refused() -> None:
    async def story(pool: ResourcePool) -> None:
        for load in ("heavy", "", -1, float("nan"), 11):
            with pytest.raises(BadParameters):
                await pool.simulate_load(load)

    told(story)


def test_any_policy_may_be_plugged_in() -> None:
    async def story(pool: ResourcePool) -> None:
        await pool.simulate_load(0.5, 10)
        assert pool.level is None
        assert 6 <= pool.size <= 16

    told(story, 1, 20, BacklogPolicy(low=1, high=20))
    told(story, 1, 20, "backlog")
    with pytest.raises(UnknownName):
        ResourcePool(1, 2, "backlgo")
    with pytest.raises(BadParameters):
        ResourcePool(3, 2)


@settings(max_examples=25, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.3), st.none() | st.floats(0, 0.5)), max_size=30),
    sizes=st.lists(st.tuples(st.floats(0, 1.5), st.integers(1, 6)), max_size=6),
)
def test_no_work_is_lost_and_no_worker_is_too_many(pieces: list[Any], sizes: list[Any]) -> None:
    async def story(pool: ResourcePool) -> None:
        loop = asyncio.get_running_loop()

        async def caller(comes: float, takes: float) -> str:
            await asyncio.sleep(comes)
            return await pool.run(nap, takes, "done")

        tasks = [asyncio.create_task(caller(comes, takes)) for comes, takes, _ in pieces]
        for task, (comes, _, cancelled) in zip(tasks, pieces, strict=True):
            if cancelled is not None:
                loop.call_later(comes + cancelled, task.cancel)
        for at, size in sizes:
            loop.call_later(at, pool.resize, size)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result, (_, _, cancelled) in zip(results, pieces, strict=True):
            assert result == "done" or (cancelled is not None and isinstance(result, asyncio.CancelledError))
        await asyncio.sleep(2)
        assert pool.waiting == pool.in_use == 0
        assert pool.get_active_workers() == pool.size

    told(story, 1, 6, None)

"""Pipelines: nothing is lost on the way, nobody runs ahead, and slots go to the slowest stage."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.errors import BadParameters
from asyncworker.work.pipeline import AHEAD, Pipeline, Stage, allot
from asyncworker.work.stream import Outcome
from bench.control import virtual_loop


class Work:
    """A stage that takes its time, adds its number to the item, and counts how many it has at once."""

    def __init__(self, seconds: Callable[[int], float] = lambda item: 0.0, fails: set[int] | None = None) -> None:
        self.seconds, self.fails = seconds, fails or set()
        self.seen: list[int] = []
        self.running = self.most = 0

    async def __call__(self, item: int) -> int:
        self.seen.append(item)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.seconds(item))
        finally:
            self.running -= 1
        if item in self.fails:
            raise ValueError(item)
        return item


async def test_each_stage_gets_what_the_one_before_returned() -> None:
    async def double(item: int) -> int:
        return 2 * item

    async def text(item: int) -> str:
        return f"<{item}>"

    assert await Pipeline(double, double, text).process(range(4)) == ["<0>", "<4>", "<8>", "<12>"]


async def test_a_plain_function_runs_in_a_thread() -> None:
    def where(item: int) -> bool:
        return threading.current_thread() is threading.main_thread()

    assert await Pipeline(where).process([1]) == [False]


async def test_nothing_in_nothing_out() -> None:
    assert await Pipeline(Work()).process([]) == []


async def test_the_source_may_be_asynchronous() -> None:
    closed = []

    async def source() -> AsyncIterator[int]:
        try:
            for item in range(10):
                await asyncio.sleep(0)
                yield item
        finally:
            closed.append(True)

    assert await Pipeline(Work(), Work()).process(source()) == list(range(10))
    assert closed == [True]


@pytest.mark.parametrize(
    ("stages", "options"),
    [
        ((), {}),
        ((Work(), Work()), {"workers": 1}),
        ((Work(),), {"on_error": "shrug"}),
        ((Stage(Work(), concurrency=0),), {}),
        (("work",), {}),
    ],
)
def test_options_out_of_range_are_refused(stages: Any, options: Any) -> None:
    with pytest.raises(BadParameters):
        Pipeline(*stages, **options)


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(0, 120),
    stages=st.lists(
        st.tuples(st.sampled_from(["auto", 1, 3]), st.sampled_from([0.0, 0.001, 0.01]), st.sets(st.integers(0, 119))),
        min_size=1,
        max_size=4,
    ),
    workers=st.integers(4, 12),
    on_error=st.sampled_from(["skip", "collect"]),
    seed=st.integers(0, 9),
)
def test_no_item_is_lost_and_order_is_kept(
    count: int, stages: list[tuple[Any, float, set[int]]], workers: int, on_error: Any, seed: int
) -> None:
    works = [Work(lambda item, s=seconds: s * (1 + (item * 7919 + seed) % 5), fails) for _, seconds, fails in stages]
    pipeline = Pipeline(
        *(Stage(work, concurrency=fixed) for work, (fixed, _, _) in zip(works, stages, strict=True)),
        workers=workers,
        on_error=on_error,
    )
    results = virtual_loop.run(pipeline.process(range(count)))
    failed = set().union(*(work.fails for work in works))
    if on_error == "skip":
        assert results == [item for item in range(count) if item not in failed]
    else:
        assert [result.index for result in results] == list(range(count))
        for item, result in enumerate(results):
            assert isinstance(result, Outcome)
            assert isinstance(result.error, ValueError) if item in failed else result.value == item
    gone: set[int] = set()
    for work, (fixed, _, _), metrics in zip(works, stages, pipeline.get_metrics(), strict=True):
        assert sorted(work.seen) == [item for item in range(count) if item not in gone], (
            "each once, failed ones no more"
        )
        assert work.most <= (workers if fixed == "auto" else fixed), "the maximum is a promise"
        assert (metrics.done, metrics.running, metrics.queued) == (len(work.seen), 0, 0)
        assert metrics.failed == len(work.fails.intersection(work.seen))
        gone |= work.fails


def test_all_slots_together_are_a_promise_while_they_move() -> None:
    running = most = 0

    def stage(seconds: float) -> Callable[[int], Any]:
        async def work(item: int) -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(seconds if item < 300 else 0.011 - seconds)
            running -= 1
            return item

        return work

    pipeline = Pipeline(stage(0.001), stage(0.01), workers=12)
    assert virtual_loop.run(pipeline.process(range(900))) == list(range(900))
    assert most == 12
    first, second = pipeline.get_metrics()
    assert first.concurrency > second.concurrency, "the slots have followed the work"


def test_a_slow_stage_holds_the_source_back() -> None:
    pulled = 0

    def source() -> Iterator[int]:
        nonlocal pulled
        for item in range(10_000):
            pulled = item + 1
            yield item

    async def story() -> None:
        slow = Work(lambda item: 1.0)
        pipeline = Pipeline(Stage(Work(), concurrency=2), Stage(slow, concurrency=1))
        async with aclosing(pipeline.stream(source())) as results:
            async for _ in results:
                assert pulled - len(slow.seen) <= AHEAD * 1 + 2 + AHEAD * 2 + 1, "slots, queues, and one in hand"
                if len(slow.seen) >= 20:
                    break
        assert pulled < 40

    virtual_loop.run(story())


def test_a_slow_consumer_holds_the_source_back() -> None:
    work = Work()

    async def story() -> None:
        async with aclosing(Pipeline(work, workers=4).stream(itertools.count())) as results:
            async for item in results:
                await asyncio.sleep(1)
                assert len(work.seen) - item <= 3 * 4 + 1
                if item == 50:
                    break

    virtual_loop.run(story())


async def test_the_first_error_ends_the_run() -> None:
    async def forever(item: int) -> int:
        if item == 3:
            raise ValueError(item)
        await asyncio.Event().wait()
        return item

    pipeline = Pipeline(Work(), forever)
    with pytest.raises(ValueError, match="3"):
        await pipeline.process(itertools.count())
    assert [metrics.running for metrics in pipeline.get_metrics()] == [0, 0]


@pytest.mark.parametrize("on_error", ["raise", "skip", "collect"])
async def test_an_error_of_the_source_ends_the_run(on_error: Any) -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await Pipeline(Work(), on_error=on_error).process(source())


async def test_a_stage_whose_own_wait_is_cancelled_fails_its_item() -> None:
    async def cancelled(item: int) -> None:
        raise asyncio.CancelledError

    (outcome,) = await Pipeline(cancelled, on_error="collect").process([1])
    assert isinstance(outcome.error, asyncio.CancelledError)


async def test_cancelling_the_run_ends_its_tasks() -> None:
    work = Work(lambda item: 1000.0)
    task = asyncio.create_task(Pipeline(work).process(range(10)))
    while not work.running:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.running == 0


async def test_one_run_at_a_time_and_another_after_it() -> None:
    pipeline = Pipeline(Work())
    async with aclosing(pipeline.stream(range(3))) as results:
        await anext(results)
        with pytest.raises(BadParameters, match="already running"):
            await pipeline.process([1])
    assert await pipeline.process([1, 2]) == [1, 2]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=4), st.integers(4, 14))
def test_shares_are_the_best_of_all(service_s: list[float], workers: int) -> None:
    def pace(shares: tuple[int, ...] | list[int]) -> float:
        return min(share / max(seconds, 1e-9) for share, seconds in zip(shares, service_s, strict=True))

    shares = allot(service_s, workers)
    assert sum(shares) == workers
    splits = itertools.product(range(1, workers + 1), repeat=len(service_s))
    assert pace(shares) == max(pace(split) for split in splits if sum(split) == workers)


def test_metrics_tell_names_and_times() -> None:
    async def fetch(item: int) -> int:
        await asyncio.sleep(0.5)
        return item

    pipeline = Pipeline(fetch, Stage(Work(), name="store", concurrency=2), workers=5)
    virtual_loop.run(pipeline.process(range(20)))
    first, second = pipeline.get_metrics()
    assert (first.name, first.concurrency, second.name, second.concurrency) == ("fetch", 5, "store", 2)
    assert first.service_s == pytest.approx(0.5)
    assert first.busy_s == pytest.approx(10)

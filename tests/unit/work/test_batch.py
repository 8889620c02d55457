"""Batches: each item gets its own answer, once, whatever happens to its neighbours."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.errors import AsyncWorkerError, BadParameters
from asyncworker.work.batch import AsyncBatchProcessor
from bench.control import virtual_loop


class Handler:
    """Doubles numbers, raises for poisoned ones, and remembers its batches."""

    def __init__(self, poison: set[int] | None = None, seconds: Callable[[int], float] = lambda items: 0.0) -> None:
        self.poison, self.seconds = poison or set(), seconds
        self.batches: list[list[int]] = []
        self.running = self.most = 0

    async def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.seconds(len(items)))
        finally:
            self.running -= 1
        if bad := self.poison.intersection(items):
            raise ValueError(f"bad: {sorted(bad)}")
        return [2 * item for item in items]

    def calls(self, item: int) -> int:
        return sum(item in batch for batch in self.batches)


async def test_each_item_gets_its_own_answer() -> None:
    async with AsyncBatchProcessor(Handler()) as processor:
        assert await asyncio.gather(*(processor.add_item(number) for number in range(50))) == [
            2 * number for number in range(50)
        ]


async def test_items_added_in_one_go_share_a_batch() -> None:
    handler = Handler()
    async with AsyncBatchProcessor(handler, size=100) as processor:
        await asyncio.gather(*(processor.add_item(number) for number in range(100)))
    assert handler.batches == [list(range(100))]


async def test_submit_returns_before_the_answer() -> None:
    gate = asyncio.Event()

    async def handler(items: list[int]) -> None:
        await gate.wait()

    async with AsyncBatchProcessor(handler) as processor:
        answers = [await processor.submit(number) for number in range(3)]
        assert not any(answer.done() for answer in answers)
        gate.set()
        assert await asyncio.gather(*answers) == [None, None, None]


async def test_a_plain_function_runs_in_a_thread() -> None:
    def handler(items: list[int]) -> list[bool]:
        return [threading.current_thread() is threading.main_thread()] * len(items)

    async with AsyncBatchProcessor[int, bool]() as processor:
        processor.set_handler(handler)
        assert await processor.add_item(1) is False


async def test_the_handler_may_be_set_and_changed() -> None:
    async with AsyncBatchProcessor[int, Any]() as processor:
        with pytest.raises(AsyncWorkerError, match="set_handler"):
            await processor.add_item(1)
        processor.set_handler(Handler())
        assert await processor.add_item(1) == 2

        async def texts(items: list[int]) -> list[str]:
            return [str(item) for item in items]

        processor.set_handler(texts)
        assert await processor.add_item(1) == "1"
        with pytest.raises(BadParameters):
            processor.set_handler("texts")


@pytest.mark.parametrize(
    "options",
    [
        {"max_batch_size": 0},
        {"max_concurrent_batches": 0},
        {"max_queue": 0},
        {"linger": -1.0},
        {"slo": 0.0},
        {"size": 0},
        {"size": 11, "max_batch_size": 10},
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadParameters):
        AsyncBatchProcessor(Handler(), **options)


# --- failures -------------------------------------------------------------------------------------------------


async def test_an_exception_among_the_values_fails_its_item_alone() -> None:
    async def handler(items: list[int]) -> list[int | Exception]:
        return [KeyError(item) if item == 1 else item for item in items]

    async with AsyncBatchProcessor(handler, size=3, max_batch_size=3) as processor:
        answers = await asyncio.gather(*(processor.add_item(item) for item in range(3)), return_exceptions=True)
    assert (answers[0], answers[2]) == (0, 2)
    assert isinstance(answers[1], KeyError)
    assert (processor.get_metrics().items, processor.get_metrics().failed) == (3, 1)


@pytest.mark.parametrize(
    "answer", [[1], [1, 2, 3], "ab", 7, {1: 2, 3: 4}], ids=["short", "long", "text", "number", "mapping"]
)
async def test_a_handler_that_answers_amiss_is_told_so(answer: Any) -> None:
    async def handler(items: list[int]) -> Any:
        return answer

    async with AsyncBatchProcessor(handler, size=2) as processor:
        answers = await asyncio.gather(processor.add_item(1), processor.add_item(2), return_exceptions=True)
    assert all(isinstance(error, BadParameters) and "2 items" in str(error) for error in answers)


async def test_odd_errors_reach_their_item() -> None:
    async def handler(items: list[str]) -> list[BaseException]:
        return [{"stop": StopIteration(1), "cancel": asyncio.CancelledError()}[item] for item in items]

    async with AsyncBatchProcessor(handler, size=2) as processor:
        stop, cancel = await asyncio.gather(
            processor.add_item("stop"), processor.add_item("cancel"), return_exceptions=True
        )
    assert isinstance(stop, RuntimeError)
    assert isinstance(cancel, asyncio.CancelledError)


async def test_a_handler_whose_own_wait_is_cancelled_fails_its_items() -> None:
    async def handler(items: list[int]) -> None:
        raise asyncio.CancelledError

    async with AsyncBatchProcessor(handler) as processor:
        assert isinstance(
            (await asyncio.gather(processor.add_item(1), return_exceptions=True))[0], asyncio.CancelledError
        )


async def test_without_bisection_a_batch_fails_whole() -> None:
    handler = Handler({2})
    async with AsyncBatchProcessor(handler, size=4, bisect=False) as processor:
        answers = await asyncio.gather(*(processor.add_item(item) for item in range(4)), return_exceptions=True)
    assert all(isinstance(answer, ValueError) for answer in answers)
    assert handler.batches == [[0, 1, 2, 3]]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 60),
    poison=st.sets(st.integers(0, 59), max_size=8),
    most=st.integers(1, 33),
    slots=st.integers(1, 4),
    room=st.integers(1, 40),
    pace=st.sampled_from([0.0, 0.0003, 0.002]),
)
def test_no_item_is_lost_or_answered_twice(
    count: int, poison: set[int], most: int, slots: int, room: int, pace: float
) -> None:
    handler = Handler(poison, lambda items: 0.001 + 0.0001 * items)

    async def story() -> list[Any]:
        async with (
            AsyncBatchProcessor(
                handler, max_batch_size=most, max_concurrent_batches=slots, max_queue=room
            ) as processor,
            asyncio.TaskGroup() as group,
        ):
            tasks = []
            for item in range(count):
                tasks.append(group.create_task(_outcome(processor, item)))
                await asyncio.sleep(pace)
        metrics = processor.get_metrics()
        assert (metrics.items, metrics.queued, metrics.running) == (count, 0, 0)
        assert metrics.failed == len(poison & set(range(count)))
        assert metrics.batches == len(handler.batches)
        return [task.result() for task in tasks]

    answers = virtual_loop.run(story())
    for item, answer in enumerate(answers):
        if item in poison:
            assert isinstance(answer, ValueError)
            assert str(answer) == f"bad: [{item}]", "the error is that of the item alone"
        else:
            assert answer == 2 * item
            assert handler.calls(item) <= 1 + math.ceil(math.log2(most)), "once more a halving, at most"
            assert sum(item in batch for batch in handler.batches if not poison.intersection(batch)) == 1
    assert max(map(len, handler.batches)) <= most, "the maximum is a promise"
    assert handler.most <= slots
    firsts = [batch for batch in handler.batches if batch[0] == min(batch)]
    assert all(batch == sorted(batch) for batch in firsts), "items keep the order in which they came"


async def _outcome(processor: AsyncBatchProcessor[int, int], item: int) -> Any:
    try:
        return await processor.add_item(item)
    except ValueError as error:
        return error


@pytest.mark.parametrize("place", range(16))
async def test_one_poisoned_item_costs_two_calls_a_halving(place: int) -> None:
    handler = Handler({place})
    async with AsyncBatchProcessor(handler, size=16) as processor:
        answers = await asyncio.gather(*(processor.add_item(item) for item in range(16)), return_exceptions=True)
    assert [type(answer) for answer in answers].count(ValueError) == 1
    assert len(handler.batches) == 1 + 2 * 4
    assert processor.get_metrics().retried == 8


# --- callers that go ------------------------------------------------------------------------------------------


async def test_a_caller_that_goes_takes_its_item_along() -> None:
    handler = Handler(seconds=lambda items: 0.01)
    async with AsyncBatchProcessor(handler, size=2) as processor:
        first = asyncio.create_task(processor.add_item(0))
        while not handler.batches:
            await asyncio.sleep(0)
        waiting = [asyncio.create_task(processor.add_item(item)) for item in (1, 2, 3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        assert await asyncio.gather(first, waiting[0], waiting[2]) == [0, 2, 6]
        assert waiting[1].cancelled()
    assert handler.calls(2) == 0


async def test_a_caller_that_goes_during_its_batch_disturbs_nobody() -> None:
    handler = Handler(seconds=lambda items: 0.01)
    async with AsyncBatchProcessor(handler, size=2) as processor:
        tasks = [asyncio.create_task(processor.add_item(item)) for item in (0, 1)]
        while not handler.batches:
            await asyncio.sleep(0)
        tasks[0].cancel()
        assert await tasks[1] == 2
    assert processor.get_metrics().items == 1


async def test_a_caller_may_go_while_it_waits_for_room() -> None:
    handler = Handler(seconds=lambda items: 0.01)
    async with AsyncBatchProcessor(handler, max_batch_size=1, max_queue=1) as processor:
        tasks = [asyncio.create_task(processor.add_item(item)) for item in range(6)]
        while not handler.batches:
            await asyncio.sleep(0)
        tasks[3].cancel()
        tasks[4].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, int)] == [0, 2, 4, 10]
    assert [batch[0] for batch in handler.batches] == [0, 1, 2, 5]


# --- bounds and ends ------------------------------------------------------------------------------------------


def test_the_queue_is_bounded() -> None:
    handler = Handler(seconds=lambda items: 1.0)

    async def story() -> None:
        async with AsyncBatchProcessor(handler, max_batch_size=5, max_queue=10) as processor:
            tasks = [asyncio.create_task(processor.add_item(item)) for item in range(100)]
            most = 0
            while not all(task.done() for task in tasks):
                most = max(most, processor.get_metrics().queued)
                await asyncio.sleep(0.25)
            assert most == 10

    virtual_loop.run(story())


def test_closing_answers_what_was_added() -> None:
    handler = Handler(seconds=lambda items: 1.0)

    async def story() -> None:
        async with AsyncBatchProcessor(handler, max_batch_size=4, max_queue=4) as processor:
            tasks = [asyncio.create_task(processor.add_item(item)) for item in range(30)]
            await asyncio.sleep(0)
        assert [task.result() for task in tasks] == [2 * item for item in range(30)]
        with pytest.raises(AsyncWorkerError, match="closed"):
            await processor.add_item(1)
        await processor.close()

    virtual_loop.run(story())


def test_closing_does_not_linger() -> None:
    async def story() -> float:
        loop = asyncio.get_running_loop()
        processor = AsyncBatchProcessor(Handler(), size=100, linger=60.0, max_concurrent_batches=2)
        for item in range(10):
            await processor.submit(item)
            await asyncio.sleep(0.1)
        assert processor.get_metrics().queued > 1
        await processor.close()
        return loop.time()

    assert virtual_loop.run(story()) == pytest.approx(1.0)


def test_a_cancelled_close_ends_at_once() -> None:
    handler = Handler(seconds=lambda items: 1000.0)

    async def story() -> None:
        processor = AsyncBatchProcessor(handler, max_batch_size=1, max_queue=1)
        tasks = [asyncio.create_task(processor.add_item(item)) for item in range(4)]
        await asyncio.sleep(1)
        closing = asyncio.create_task(processor.close())
        await asyncio.sleep(1)
        closing.cancel()
        await asyncio.wait([closing, *tasks], timeout=1)
        assert closing.cancelled()
        assert tasks[0].cancelled()
        assert tasks[1].cancelled()
        for late in tasks[2:]:
            with pytest.raises(AsyncWorkerError):
                late.result()
        assert handler.running == 0

    virtual_loop.run(story())


def test_drain_waits_for_all_and_stays_open() -> None:
    async def story() -> None:
        async with AsyncBatchProcessor(Handler(seconds=lambda items: 1.0), max_batch_size=2) as processor:
            answers = [await processor.submit(item) for item in range(7)]
            await processor.drain()
            assert [answer.result() for answer in answers] == [2 * item for item in range(7)]
            assert await processor.add_item(9) == 18

    virtual_loop.run(story())


# --- size and linger ------------------------------------------------------------------------------------------


def test_the_size_grows_where_calls_are_dear() -> None:
    handler = Handler(seconds=lambda items: 0.1 + 0.0001 * items)

    async def story() -> int:
        async with AsyncBatchProcessor(handler, max_batch_size=64) as processor:
            await asyncio.gather(*(processor.add_item(item) for item in range(2000)))
        return processor.size

    assert virtual_loop.run(story()) >= 40
    assert max(map(len, handler.batches)) <= 64


def test_alone_an_item_does_not_wait() -> None:
    async def story() -> float:
        loop = asyncio.get_running_loop()
        async with AsyncBatchProcessor(Handler(), linger=5.0, max_concurrent_batches=4) as processor:
            for item in range(20):
                await processor.add_item(item)
                await asyncio.sleep(10)
        return loop.time()

    assert virtual_loop.run(story()) == pytest.approx(200)


def test_lingering_saves_calls() -> None:
    def calls(linger: float) -> int:
        handler = Handler(seconds=lambda items: 0.01)

        async def story() -> None:
            async with (
                AsyncBatchProcessor(handler, size=50, linger=linger, max_concurrent_batches=4) as processor,
                asyncio.TaskGroup() as group,
            ):
                for item in range(1000):
                    group.create_task(processor.add_item(item))
                    await asyncio.sleep(0.001)

        virtual_loop.run(story())
        return len(handler.batches)

    assert calls(0.02) < 0.5 * calls(0.0)


def test_metrics_tell_what_was_measured() -> None:
    async def story() -> None:
        async with AsyncBatchProcessor(Handler(seconds=lambda items: 0.5), size=10) as processor:
            await asyncio.gather(*(processor.add_item(item) for item in range(20)))
        metrics = processor.get_metrics()
        assert (metrics.batches, metrics.mean_size, metrics.size, metrics.retried) == (2, 10, 10, 0)
        assert metrics.mean_batch_s == pytest.approx(0.5)
        assert metrics.mean_wait_s == pytest.approx(0.25)

    virtual_loop.run(story())

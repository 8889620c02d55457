"""`stream`: bounded tasks and memory, laziness, order, errors, cancellation, and what it does with its source."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.errors import BadParameters
from asyncworker.tune.actuators.limiter import Limiter
from asyncworker.work.crew import WINDOW
from asyncworker.work.stream import Outcome, gathered, stream


async def double(item: int) -> int:
    return 2 * item


async def double_later(item: int) -> int:
    await asyncio.sleep(0)
    return 2 * item


async def fail_on_odd(item: int) -> int:
    await asyncio.sleep(0)
    if item % 2:
        raise ValueError(item)
    return item


async def keep(outs: list[int], source: AsyncIterator[int]) -> None:
    async for out in source:
        outs.append(out)  # noqa: PERF401 - a comprehension would lose what came before an error


class Gate:
    """A function whose calls stay inside until they are let out; counts how many are."""

    def __init__(self) -> None:
        self.inside: dict[int, asyncio.Event] = {}
        self.cancelled: list[int] = []
        self.changed = asyncio.Condition()

    async def __call__(self, item: int) -> int:
        door = self.inside[item] = asyncio.Event()
        async with self.changed:
            self.changed.notify_all()
        try:
            await door.wait()
        except asyncio.CancelledError:
            self.cancelled.append(item)
            raise
        finally:
            del self.inside[item]
        return item

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(lambda: len(self.inside) >= count)


class Source:
    """An asynchronous source that says how far it was pulled and whether it was closed."""

    def __init__(self, count: int, *, error_at: int = -1) -> None:
        self.pulled, self.closed = 0, False
        self._count, self._error_at = count, error_at

    async def __aiter__(self) -> AsyncIterator[int]:
        try:
            for item in range(self._count):
                if item == self._error_at:
                    raise OSError("the source is gone")
                await asyncio.sleep(0)
                self.pulled += 1
                yield item
        finally:
            self.closed = True


async def test_s41_many_items_take_few_tasks_and_are_pulled_as_they_are_consumed() -> None:
    pulled = most_tasks = most_ahead = taken = 0
    before = len(asyncio.all_tasks())

    def source() -> Iterator[int]:
        nonlocal pulled
        for item in range(100_000):
            pulled += 1
            yield item

    async for _ in stream(double_later, source(), concurrency=20):
        taken += 1
        most_ahead = max(most_ahead, pulled - taken)
        if taken % 1_000 == 0:
            most_tasks = max(most_tasks, len(asyncio.all_tasks()) - before)
    assert taken == 100_000
    assert most_tasks == 20
    assert most_ahead <= WINDOW * 20


async def test_s41_one_bad_item_fails_alone() -> None:
    async def bad_seven(item: int) -> int:
        await asyncio.sleep(0)
        return 10 // (item - 7)

    outs = [out async for out in stream(bad_seven, range(100), concurrency=10, on_error="collect")]
    assert sorted(out.index for out in outs) == list(range(100))
    assert [(out.index, type(out.error), out.value) for out in outs if out.error] == [(7, ZeroDivisionError, None)]
    assert all(out.attempts == 1 and out.seconds >= 0 for out in outs)


async def test_s41_an_error_stops_and_awaits_the_rest() -> None:
    gate = Gate()

    async def last_fails(item: int) -> int:
        if item == 4:
            await gate.until(4)
            raise ValueError(item)
        return await gate(item)

    with pytest.raises(ValueError, match="4"):
        async for _ in stream(last_fails, range(1_000), concurrency=5):
            pass
    assert sorted(gate.cancelled) == [0, 1, 2, 3]
    assert not gate.inside


async def test_nothing_is_pulled_before_the_first_result_is_asked_for() -> None:
    source = Source(10)
    outs = stream(double, source)
    await asyncio.sleep(0)
    assert source.pulled == 0
    assert sorted([out async for out in outs]) == [2 * item for item in range(10)]
    assert source.closed


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("func", [double, double_later])
@pytest.mark.parametrize("concurrency", [1, 2, 7, 300])
@pytest.mark.parametrize("count", [0, 1, 5, 250])
async def test_every_item_gives_its_result_once(asynchronous: bool, func, concurrency: int, count: int) -> None:
    source = Source(count) if asynchronous else range(count)
    outs = [out async for out in stream(func, source, concurrency=concurrency)]
    assert sorted(outs) == [2 * item for item in range(count)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 12), st.sampled_from(["raise", "collect", "skip"]))
def test_order_is_kept_whatever_takes_how_long(turns: list[int], concurrency: int, on_error: str) -> None:
    async def work(pair: tuple[int, int]) -> int:
        for _ in range(pair[1]):
            await asyncio.sleep(0)
        if on_error != "raise" and pair[1] == 3:
            raise ValueError(pair)
        return pair[0]

    async def run() -> list[object]:
        pairs = list(enumerate(turns))
        return [out async for out in stream(work, pairs, concurrency=concurrency, ordered=True, on_error=on_error)]

    outs = asyncio.run(run())
    if on_error == "raise":
        assert outs == list(range(len(turns)))
    elif on_error == "skip":
        assert outs == [index for index, turn in enumerate(turns) if turn != 3]
    else:
        assert [(out.index, out.error is None) for out in outs] == [(i, turn != 3) for i, turn in enumerate(turns)]


async def test_a_slow_head_holds_the_source_back() -> None:
    door, pulled = asyncio.Event(), 0

    def source() -> Iterator[int]:
        nonlocal pulled
        for item in range(1_000):
            pulled += 1
            yield item

    async def slow_first(item: int) -> int:
        await (door.wait() if item == 0 else asyncio.sleep(0))
        return item

    outs = stream(slow_first, source(), concurrency=10, ordered=True)
    first = asyncio.ensure_future(anext(outs))
    for _ in range(200):
        await asyncio.sleep(0)
    assert pulled == WINDOW * 10
    door.set()
    assert await first == 0
    assert [out async for out in outs] == list(range(1, 1_000))


async def test_where_all_results_are_kept_a_slow_head_holds_nothing_back() -> None:
    door, done = asyncio.Event(), 0

    async def slow_first(item: int) -> int:
        nonlocal done
        await (door.wait() if item == 0 else asyncio.sleep(0))
        done += 1
        if done == 99:
            door.set()
        return item

    async with asyncio.timeout(20):
        assert await gathered(slow_first, range(100), concurrency=2) == list(range(100))
    with pytest.raises(ValueError, match="1"):
        await gathered(fail_on_odd, range(100), concurrency=2)
    with pytest.raises(BadParameters):
        await gathered(slow_first, range(100), concurrency=0)


async def test_a_slow_consumer_holds_the_source_back_and_keeps_the_workers_busy() -> None:
    gate = Gate()
    taken = 0
    async with aclosing(stream(gate, range(40), concurrency=4)) as outs:
        following = asyncio.ensure_future(anext(outs))
        while taken < 40:
            await gate.until(min(4, 40 - taken))
            gate.inside[min(gate.inside)].set()
            assert await following == taken
            taken += 1
            following = asyncio.ensure_future(anext(outs))
        with pytest.raises(StopAsyncIteration):
            await following


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_as_many_are_under_way_as_a_limiter_lets_in_now(asynchronous: bool, ordered: bool) -> None:
    gate, limiter = Gate(), Limiter(3, high=8)
    items = Source(60) if asynchronous else range(60)
    outs: list[int] = []
    following = asyncio.create_task(keep(outs, stream(gate, items, concurrency=limiter, ordered=ordered)))
    for size in (3, 8, 2, 5, 1):
        limiter.resize(size)
        for _ in range(10):
            while len(gate.inside) > size:
                gate.inside[min(gate.inside)].set()
                await asyncio.sleep(0)
            await gate.until(size)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(gate.inside) == limiter.in_use == size
            gate.inside[min(gate.inside)].set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    while not following.done():
        for door in gate.inside.values():
            door.set()
        await asyncio.sleep(0)
    assert sorted(outs) == list(range(60))
    assert outs == sorted(outs) or not ordered
    assert limiter.in_use == limiter.waiting == 0


@pytest.mark.parametrize("ordered", [False, True])
async def test_workers_that_wait_for_a_slow_consumer_hold_no_permit(ordered: bool) -> None:
    limiter = Limiter(4, high=4)
    async with aclosing(stream(double_later, range(100), concurrency=limiter, ordered=ordered)) as outs:
        await anext(outs)
        for _ in range(100):
            await asyncio.sleep(0)
        assert limiter.in_use == 0
        assert len([out async for out in outs]) == 99
    assert limiter.in_use == 0


@pytest.mark.parametrize("ordered", [False, True])
async def test_an_error_gives_the_permits_back(ordered: bool) -> None:
    limiter = Limiter(5, high=9)
    with pytest.raises(ValueError, match="1"):
        await keep([], stream(fail_on_odd, range(100), concurrency=limiter, ordered=ordered))
    assert limiter.in_use == limiter.waiting == 0


async def test_failed_items_are_left_out() -> None:
    outs = [out async for out in stream(fail_on_odd, range(20), concurrency=3, on_error="skip")]
    assert sorted(outs) == list(range(0, 20, 2))


async def test_what_was_done_before_an_error_is_given_before_it() -> None:
    outs: list[int] = []
    with pytest.raises(ValueError, match="1"):
        await keep(outs, stream(fail_on_odd, range(100), concurrency=1))
    assert outs == [0]


@pytest.mark.parametrize("on_error", ["raise", "collect", "skip"])
async def test_the_source_s_own_error_is_raised_whatever_on_error_says(on_error: str) -> None:
    source = Source(100, error_at=30)
    outs: list[int] = []
    with pytest.raises(OSError, match="the source is gone"):
        await keep(outs, stream(double_later, source, concurrency=4, on_error=on_error))
    assert len(outs) <= 30
    assert source.closed


async def test_leaving_the_loop_ends_the_workers_and_closes_the_source() -> None:
    source, before = Source(1_000), asyncio.all_tasks()
    async with aclosing(stream(double_later, source, concurrency=10)) as outs:
        async for _ in outs:
            break
    assert source.closed
    assert source.pulled < 100
    assert asyncio.all_tasks() == before


async def test_a_plain_break_ends_the_workers_too() -> None:
    source, before = Source(1_000), asyncio.all_tasks()
    async for _ in stream(double_later, source, concurrency=10):
        break
    async with asyncio.timeout(5):
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0)
    assert source.closed


async def test_cancelling_the_consumer_cancels_and_awaits_the_workers() -> None:
    gate = Gate()

    async def consume() -> None:
        async for _ in stream(gate, range(100), concurrency=5):
            pass

    consumer = asyncio.create_task(consume())
    await gate.until(5)
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    assert sorted(gate.cancelled) == [0, 1, 2, 3, 4]


async def test_an_item_that_awaits_something_cancelled_fails_alone() -> None:
    lost = asyncio.get_running_loop().create_future()
    lost.cancel()

    async def await_lost(item: int) -> int:
        return await lost if item == 3 else item

    outs = [out async for out in stream(await_lost, range(6), on_error="collect", ordered=True)]
    assert [out.index for out in outs if isinstance(out.error, asyncio.CancelledError)] == [3]
    with pytest.raises(asyncio.CancelledError):
        async for _ in stream(await_lost, range(6), ordered=True):
            pass


async def test_a_function_that_swallows_its_cancellation_stops_after_its_item() -> None:
    done: list[int] = []

    async def stubborn(item: int) -> int:
        try:
            await asyncio.sleep(0 if item == 0 else 60)
        except asyncio.CancelledError:
            done.append(item)
        return item

    async with aclosing(stream(stubborn, range(100), concurrency=3)) as outs:
        assert await anext(outs) == 0
        while len(asyncio.all_tasks()) < 4:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert len(done) <= 3


async def test_few_items_start_few_tasks() -> None:
    gate, before = Gate(), len(asyncio.all_tasks())
    consumer = asyncio.ensure_future(anext(outs := stream(gate, range(3), concurrency=10_000)))
    await gate.until(3)
    assert len(asyncio.all_tasks()) - before < 10
    for door in list(gate.inside.values()):
        door.set()
    await consumer
    await outs.aclose()


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"on_error": "ignore"}])
async def test_wrong_arguments_are_refused_at_the_call(wrong: dict[str, object]) -> None:
    with pytest.raises(BadParameters):
        stream(double, [], **wrong)


async def test_two_streams_share_an_iterator() -> None:
    source = iter(range(200))
    first, second = (stream(double_later, source, concurrency=random.randint(1, 9)) for _ in range(2))

    async def drain(outs: AsyncIterator[int]) -> list[int]:
        return [out async for out in outs]

    outs = await asyncio.gather(drain(first), drain(second))
    assert sorted(outs[0] + outs[1]) == [2 * item for item in range(200)]


def test_an_outcome_says_where_it_belongs() -> None:
    assert Outcome(3, value=6) == Outcome(index=3, value=6, error=None, attempts=1, seconds=0.0)

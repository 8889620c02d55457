"""The lane: order, sharing, errors that stay with their call, and callers who give up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from asyncworker.errors import BrokerDown, QueueFull
from asyncworker.queue.lane import Lane


class Line:
    """Answers each call when it is told to."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.open = asyncio.Semaphore(0)
        self.fails: set[int] = set()
        self.lane: Lane[int, int] = Lane(self, most=5)

    def begin(self, batch: list[int], arrived: Callable[[list[int] | None], None]) -> bool:
        self.calls.append(batch)
        return False

    async def finish(self) -> list[int]:
        batch = self.calls[-1]
        await self.open.acquire()
        if self.fails & set(batch):
            raise QueueFull
        return [10 * item for item in batch]

    async def put(self, *batches: list[int]) -> list[asyncio.Task[list[int]]]:
        tasks = [asyncio.create_task(self.lane(batch)) for batch in batches]
        await asyncio.sleep(0)
        return tasks

    def answer(self, calls: int = 99) -> None:
        for _ in range(calls):
            self.open.release()


@pytest.fixture
async def line() -> Line:
    return Line()


async def test_a_lone_caller_waits_for_nobody(line: Line):
    line.answer()
    assert await line.lane([1, 2]) == [10, 20]
    assert await line.lane([3]) == [30]
    assert line.calls == [[1, 2], [3]]


async def test_what_comes_meanwhile_goes_together(line: Line):
    tasks = await line.put([1], [2, 3], [4], [5, 6], [7])
    assert line.calls == [[1]]
    line.answer()
    assert await asyncio.gather(*tasks) == [[10], [20, 30], [40], [50, 60], [70]]
    assert line.calls == [[1], [2, 3, 4, 5, 6], [7]]


async def test_a_batch_larger_than_a_call_goes_alone(line: Line):
    tasks = await line.put([0], [1, 2, 3, 4, 5, 6, 7], [8])
    line.answer()
    assert await asyncio.gather(*tasks) == [[0], [10, 20, 30, 40, 50, 60, 70], [80]]
    assert line.calls == [[0], [1, 2, 3, 4, 5, 6, 7], [8]]


async def test_one_call_at_a_time(line: Line):
    tasks = await line.put([1], [2], [3])
    line.answer(1)
    await tasks[0]
    await asyncio.sleep(0)
    assert line.calls == [[1], [2, 3]]
    (late,) = await line.put([4])
    assert line.calls == [[1], [2, 3]]
    line.answer()
    assert await asyncio.gather(*tasks[1:], late) == [[20], [30], [40]]
    assert line.calls == [[1], [2, 3], [4]]


async def test_an_error_is_that_of_its_call(line: Line):
    line.fails = {1, 3}
    tasks = await line.put([1], [2], [3], [4, 5, 6, 7], [8])
    line.answer()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [QueueFull, QueueFull, QueueFull, list, list]
    line.fails = set()
    assert await line.lane([3]) == [30]


async def test_who_gives_up_is_not_sent(line: Line):
    first, second, third, fourth = await line.put([1], [2], [3], [4])
    second.cancel()
    await asyncio.sleep(0)
    line.answer()
    assert await asyncio.gather(first, third, fourth) == [[10], [30], [40]]
    assert line.calls == [[1], [3, 4]]


async def test_who_gives_up_on_the_way_does_not_stop_the_others(line: Line):
    tasks = await line.put([1], [2], [3])
    tasks[0].cancel()
    line.answer(1)
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    await asyncio.sleep(0)
    tasks[1].cancel()
    line.answer()
    assert await tasks[2] == [30]
    assert line.calls == [[1], [2, 3]]
    assert await line.lane([4]) == [40]


async def test_all_who_wait_give_up(line: Line):
    tasks = await line.put([1], [2])
    tasks[1].cancel()
    line.answer()
    assert await tasks[0] == [10]
    assert await line.lane([3]) == [30]
    assert line.calls == [[1], [3]]


async def test_closing_gives_up_what_waits(line: Line):
    tasks = await line.put([1], [2], [3])
    line.answer(1)
    await tasks[0]
    late = await line.put([4])
    closing = asyncio.create_task(line.lane.close())
    await asyncio.sleep(0)
    line.answer()
    await closing
    assert await tasks[1] == [20]
    with pytest.raises(BrokerDown, match="closed"):
        await late[0]

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asyncworker.errors import BadParameters
from asyncworker.tune.actuators.limiter import Limiter


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def line(limiter: Limiter, count: int) -> tuple[list[int], list[asyncio.Task[None]]]:
    """Let tasks come one after the other; returns the list in which they note their coming in."""
    entered: list[int] = []

    async def come(number: int) -> None:
        await limiter.acquire()
        entered.append(number)

    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(come(number)))
        await turns(1)
    return entered, tasks


async def test_no_more_than_its_size_are_inside() -> None:
    limiter, inside, most = Limiter(7), 0, 0

    async def work() -> None:
        nonlocal inside, most
        async with limiter:
            inside += 1
            most = max(most, inside)
            await turns(2)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(100)))
    assert most == 7
    assert limiter.in_use == limiter.waiting == 0
    assert limiter.statistics().passed == 100
    assert limiter.statistics().queued == 93


async def test_growing_lets_in_at_once_and_in_order() -> None:
    limiter = Limiter(1)
    entered, tasks = await line(limiter, 6)
    assert entered == [0]
    limiter.resize(4)
    await turns()
    assert entered == [0, 1, 2, 3]
    for _ in range(6):
        limiter.release()
        await turns()
    assert entered == [0, 1, 2, 3, 4, 5]
    await asyncio.gather(*tasks)


async def test_shrinking_takes_nothing_and_lets_nobody_in_until_enough_have_left() -> None:
    limiter = Limiter(4)
    entered, tasks = await line(limiter, 6)
    limiter.resize(2)
    assert limiter.in_use == 4
    for left in (3, 2):
        limiter.release()
        await turns()
        assert (limiter.in_use, entered) == (left, [0, 1, 2, 3])
    limiter.release()
    await turns()
    assert (limiter.in_use, entered) == (2, [0, 1, 2, 3, 4])
    limiter.release()
    await asyncio.gather(*tasks)


async def test_nobody_overtakes() -> None:
    limiter = Limiter(1)
    entered, tasks = await line(limiter, 2)
    limiter.release()  # the permit goes to the one who waits, though he has not run yet
    assert not limiter.try_acquire()
    late = asyncio.create_task(limiter.acquire())
    await turns()
    assert entered == [0, 1]
    assert not late.done()
    limiter.release()
    await asyncio.gather(late, *tasks)


async def test_a_permit_is_not_lost_when_its_task_is_cancelled_in_that_moment() -> None:
    limiter = Limiter(1)
    entered, tasks = await line(limiter, 3)
    limiter.release()
    tasks[1].cancel()
    await turns()
    assert entered == [0, 2]
    assert limiter.in_use == 1
    assert limiter.statistics().gave_up == 1


async def test_one_who_comes_behind_a_dead_place_is_let_in() -> None:
    limiter = Limiter(1)
    entered, tasks = await line(limiter, 2)
    tasks[1].cancel()  # the place is dead now, its task has not run
    late = asyncio.create_task(limiter.acquire())
    limiter.release()
    await asyncio.wait_for(late, 5)
    assert entered == [0]


async def test_a_closed_coroutine_leaves_the_line() -> None:
    limiter = Limiter(1)
    await limiter.acquire()
    waiter = limiter.acquire()
    waiter.send(None)
    assert limiter.waiting == 1
    waiter.close()
    assert limiter.waiting == 0
    limiter.release()
    assert limiter.in_use == 0


async def test_errors_and_cancellations_give_the_permit_back() -> None:
    limiter = Limiter(1)
    with pytest.raises(ZeroDivisionError):
        async with limiter:
            _ = 1 / 0

    async def hold() -> None:
        async with limiter:
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await turns()
    task.cancel()
    await turns()
    assert limiter.in_use == 0


async def test_sizes_are_clamped() -> None:
    limiter = Limiter(5, low=2, high=9)
    limiter.resize(100)
    assert limiter.size == 9
    limiter.resize(0)
    assert limiter.size == 2


@pytest.mark.parametrize("bounds", [(0, 0, 5), (6, 1, 5), (1, 2, 5)])
def test_bounds_that_cannot_be_are_refused(bounds: tuple[int, int, int]) -> None:
    with pytest.raises(BadParameters):
        Limiter(bounds[0], low=bounds[1], high=bounds[2])


def test_a_permit_that_nobody_had_is_not_taken_back() -> None:
    with pytest.raises(RuntimeError):
        Limiter(1).release()


async def test_who_came_another_way_counts_as_inside() -> None:
    limiter = Limiter(2)
    limiter.admit(3)
    assert not limiter.try_acquire()
    waiting = asyncio.ensure_future(limiter.acquire())
    for _ in range(2):
        limiter.release()
        await asyncio.sleep(0)
    assert (limiter.in_use, waiting.done()) == (2, True)


async def test_waits_are_measured_and_the_repr_tells_the_state() -> None:
    limiter = Limiter(1, name="backend")
    _, tasks = await line(limiter, 2)
    assert repr(limiter) == "<Limiter backend: 1 of 1 in use, 1 waiting>"
    await asyncio.sleep(0.002)
    limiter.release()
    await asyncio.gather(*tasks)
    seen = limiter.statistics()
    assert 0.002 <= seen.longest_s == seen.wait_s < 5


class AnyOrder(RuleBasedStateMachine):
    """Any order of coming, leaving, giving up and resizing, against a list that knows what is right."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.loop = self.runner.get_loop()
        self.limiter = Limiter(2, high=6)
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.inside: list[int] = []
        self.line: list[int] = []  # who should be waiting, in order
        self.dying: set[int] = set()
        self.count = 0
        self.settled = True

    async def _come(self, number: int) -> None:
        await self.limiter.acquire()
        self.inside.append(number)

    def _turn(self) -> None:
        self.loop.run_until_complete(turns())

    def teardown(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        self._turn()
        self.runner.close()

    @rule()
    def come(self) -> None:
        self.tasks[self.count] = self.loop.create_task(self._come(self.count))
        self.count += 1
        self._turn()  # else who has a permit already, and was not yet called, would tell of it after a newcomer

    @rule()
    def run(self) -> None:
        self._turn()

    @precondition(lambda self: self.inside)
    @rule(pick=st.randoms(use_true_random=False))
    def leave(self, pick: random.Random) -> None:
        self.inside.remove(pick.choice(self.inside))
        self.limiter.release()

    @precondition(lambda self: any(not task.done() for task in self.tasks.values()))
    @rule(pick=st.randoms(use_true_random=False))
    def give_up(self, pick: random.Random) -> None:
        waiting = [number for number, task in self.tasks.items() if not task.done()]
        number = pick.choice(waiting)
        self.tasks[number].cancel()
        self.dying.add(number)

    @rule(size=st.integers(0, 8))
    def resize(self, size: int) -> None:
        self._turn()  # who comes to new room in the moment in which others are called into it may be inside before them
        self.limiter.resize(size)

    @invariant()
    def permits_are_counted(self) -> None:
        assert self.limiter.in_use >= len(self.inside)
        assert self.limiter.size == min(max(self.limiter.size, 1), 6)

    @rule()
    def settle(self) -> None:
        """Once everything has run: no permit lost, nobody asleep who could be inside, and first come, first served."""
        self._turn()
        waiting = [number for number, task in self.tasks.items() if not task.done()]
        assert self.limiter.in_use == len(self.inside)
        assert self.limiter.waiting == len(waiting)
        assert not waiting or self.limiter.in_use >= self.limiter.size
        entered = [number for number in self.inside if number not in self.dying]
        assert entered == sorted(entered)
        assert not waiting or max(entered, default=-1) < min(waiting)

    @rule(size=st.integers(1, 2))
    def shrink_and_drain(self, size: int) -> None:
        self._turn()
        self.limiter.resize(size)
        while len(self.inside) > size:
            self.inside.pop(0)
            self.limiter.release()
        self._turn()
        assert self.limiter.in_use <= size


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase

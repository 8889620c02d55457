"""Of calls with one key that come in a row only the last is made, whatever the broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncworker import Engine
from asyncworker.errors import BadParameters
from asyncworker.queue.job import Job, Op, Receipt, State, Twin
from tests.support.brokers import World, makes
from tests.support.clock import FrozenClock


@pytest.fixture(params=makes())
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    clock = FrozenClock() if request.param.frozen else None
    world = World(request.param.open(request, clock), clock)
    yield world
    await world.close()


def call(world: World, payload: bytes = b"call", delay_s: float = 60.0, **more: Any) -> Job:
    return world.job(payload, options={"unique": "k", "debounce": delay_s}, delay_s=delay_s, **more)


async def test_the_last_call_takes_the_place_of_the_first(world: World):
    worker = await world.join()
    first, last = call(world, b"first"), call(world, b"last", 0.05)
    assert await world.broker.enqueue([first, last]) == [Receipt.ACCEPTED, Twin(first.id)]
    assert await world.state(first.id) is State.SCHEDULED
    assert await world.broker.find([last.id]) == [None]
    assert (await world.counts()).scheduled == 1
    assert (await world.counts()).enqueued == 1
    await world.pass_time(0.06)
    delivery = await worker.claim_one()
    assert (delivery.id, delivery.payload) == (first.id, b"last")


async def test_each_call_puts_it_off(world: World):
    first = call(world, b"first", 0.05)
    await world.put(first)
    await world.broker.enqueue([call(world)])
    await world.pass_time(0.06)
    assert await (await world.join()).claim(9) == []


async def test_a_call_that_comes_while_one_runs_is_made_after_it(world: World):
    worker = await world.join()
    first = call(world, delay_s=0.01)
    await world.put(first)
    await world.pass_time(0.02)
    await worker.claim_one()
    second, third = call(world), call(world)
    assert await world.broker.enqueue([second, third]) == [Receipt.ACCEPTED, Twin(second.id)]
    await worker.step(0, world.done(first.id))
    assert await world.broker.enqueue([world.job(options={"unique": "k"})]) == [Twin(second.id)], "the key is its own"
    await world.broker.cancel(second.id)
    assert await world.put(call(world))


async def test_what_is_tried_again_is_not_taken_over(world: World):
    worker = await world.join()
    first = call(world, b"first", 0.01)
    await world.put(first)
    await world.pass_time(0.02)
    await worker.step(0, world.done((await worker.claim_one()).id, Op.RETRY, 60_000))
    assert await world.state(first.id) is State.RETRYING
    assert await world.put(call(world))
    assert (await world.counts()).scheduled == 2


async def test_an_engine_makes_the_last_of_its_calls():
    seen: list[int] = []
    async with Engine(queues={"default": 9}) as engine:

        @engine.task(debounce=0.05, unique="reindex")
        async def reindex(number: int) -> int:
            seen.append(number)
            return number

        jobs = [await reindex.enqueue(number) for number in range(5)]
        assert {job.id for job in jobs} == {jobs[0].id}
        assert await jobs[0].result(timeout=20) == 4
        other = await reindex.with_options(unique="other").enqueue(7)
        assert await other.result(timeout=20) == 7
        now = await reindex.with_options(debounce=None).enqueue(8)
        assert await now.result(timeout=20) == 8
    assert seen == [4, 7, 8]


async def test_what_does_not_fit_together():
    engine = Engine()
    with pytest.raises(BadParameters, match="unique"):
        engine.task(debounce=5)(_call)
    task = engine.task()(_call)
    with pytest.raises(BadParameters, match="unique"):
        task.with_options(debounce=5)
    with pytest.raises(BadParameters, match="delay"):
        task.with_options(debounce=5, unique="k", delay=3)
    with pytest.raises(BadParameters, match="delay"):
        task.with_options(debounce=5, unique="k").with_options(delay=3)
    with pytest.raises(BadParameters, match="debounce"):
        task.with_options(debounce=-1, unique="k")


async def _call() -> None: ...

"""What only the broker of this process promises; the rest is in tests/contracts/test_broker.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from asyncworker.errors import BrokerDown, LeaseLost
from asyncworker.queue.admin import Admin
from asyncworker.queue.brokers import memory
from asyncworker.queue.job import APART, Op, Receipt, State, child_id
from tests.support.brokers import World
from tests.support.clock import FrozenClock


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = FrozenClock()
    world = World(memory.open(clock=clock), clock)
    yield world
    await world.close()


async def test_each_is_a_world_of_its_own(world: World):
    other = World(memory.open("memory://", namespace="asyncworker"), None)
    job = world.job()
    await world.put(job)
    member = await other.join()
    assert await member.claim(5, queues=[world.queue]) == []
    assert await other.broker.find([job.id]) == [None]
    with pytest.raises(LeaseLost):
        await world.broker.step(member.epoch, [], {}, 0)
    await other.close()


async def test_all_ends_with_it(world: World):
    job_id = await world.put_one()
    member = await world.join()
    await member.claim_one()
    waiting = asyncio.create_task(world.broker.wait([job_id], None))
    await asyncio.sleep(0)
    await world.broker.close()
    with pytest.raises(BrokerDown):
        await waiting
    with pytest.raises(LeaseLost):
        await member.step(1)


async def test_results_go_as_time_passes(world: World):
    member = await world.join()
    ids = await world.put(count=500)
    for some in (ids[n : n + 10] for n in range(0, 500, 10)):
        await member.claim(10)
        await member.step(0, *(world.done(job_id, number=5) for job_id in some))
        world.clock.advance(1)
    broker = world.broker
    assert len(broker._over) == len(broker._expiry) == 50
    world.clock.advance(5)
    assert await broker.find(ids) == [None] * 500
    assert not any((broker._over, broker._expiry, broker._jobs))


async def test_nothing_is_left_of_what_is_over(world: World):
    member = await world.join()
    parent, children = await world.parent(member, 3)
    await member.claim(2)
    await member.step(0, world.done(children[0], Op.CHUNK, 0), world.done(children[0]))
    delayed = await world.put(count=20, delay_s=60)
    await world.broker.wait([parent], 0)
    for job_id in (parent, *delayed):
        await world.broker.cancel(job_id)
    await member.step(1, world.done(children[1], Op.CANCELLED))  # and the third goes when it would be claimed
    world.clock.advance(memory.CANCELLED_TTL_S)
    assert await world.broker.find([parent, *children, *delayed]) == [None] * 24
    broker, queue = world.broker, world.broker._queues[world.queue]
    assert not any((broker._over, broker._jobs, queue.delayed, *queue.levels, member_of(world, member).held))


def member_of(world: World, member):
    return world.broker._epochs[member.epoch]


async def test_s47_a_step_of_the_wall_clock_ends_no_lease_and_no_result(world: World):
    member = await world.join()
    over, running = await world.put(count=2)
    await member.claim(2)
    await member.step(0, world.done(over, number=60))
    beats = await member.beat()
    for hours in (1, -2):
        world.clock.jump(hours * 3600)
        assert await world.state(over) is State.SUCCEEDED
        assert await world.state(running) is State.RUNNING
        assert await member.beat() != beats
    world.clock.advance(60)
    assert await world.broker.find([over]) == [None]


async def test_dates_follow_the_wall_clock(world: World):
    member = await world.join()
    job_id = await world.put_one(at_s=world.clock.now() + 3600)
    assert await member.claim(1) == []
    world.clock.jump(3600)
    assert (await member.claim_one()).id == job_id


async def test_the_oldest_of_all_levels(world: World):
    await world.put_one(priority=1)
    world.clock.advance(7)
    await world.put_one(priority=8)
    assert (await world.broker.depth([world.queue])).queues[world.queue].oldest_s == 7


async def test_an_endless_producer_does_not_starve_its_process(world: World):
    over = False

    async def produce() -> None:
        while not over:
            assert await world.broker.enqueue([world.job()]) == [Receipt.ACCEPTED]

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        for _ in range(10):
            await asyncio.sleep(0)
        over = True


async def test_dropped_children_are_told_and_their_workers_noticed_once(world: World):
    feeder, worker = await world.join(), await world.join()
    parent, children = await world.parent(feeder, 3)
    await worker.claim(2)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(world.broker.wait(children, None))
        await asyncio.sleep(0)
        await world.broker.cancel(parent)
        await worker.step(1, *(world.done(child, Op.CANCELLED) for child in children[:2]))
    assert [ended.state for ended in waiting.result()] == [State.CANCELLED] * 3
    assert worker.notices == [parent]
    assert await world.broker.find([child_id(parent, 0)]) == [None]


async def test_a_notice_does_not_die_with_who_had_it(world: World):
    first, second = await world.join(), await world.join()
    await first.step(5, idle=True)
    await second.step(5, idle=True)
    await world.put_one()
    assert (first.notices, second.notices) == ([""], [])
    await first.leave()
    assert second.notices == [""]


async def test_a_child_that_dies_with_its_parent_is_not_run_again(world: World):
    feeder = await world.join()
    (parent,) = await world.put(world.job(hold=feeder.epoch, options={"max_deliveries": 1 - APART}))
    (child,) = await world.put(world.job(id=child_id(parent, 0)))
    await feeder.claim_one()
    assert await feeder.leave(crashed=True) == 2
    assert await world.state(parent) is State.FAILED
    assert await (await world.join()).claim() == []
    assert await world.broker.find([child]) == [None]
    counts = await world.counts()
    assert (counts.failed, counts.cancelled, counts.queued) == (1, 1, 0)


async def test_a_reducer_cannot_seal(world: World):
    feeder, worker = await world.join(), await world.join()
    parent, _ = await world.parent(feeder)
    await feeder.step(0, world.done(parent, Op.SEAL))
    await worker.claim_one()
    await worker.step(0, world.done(parent, Op.SEAL))
    assert await world.state(parent) is State.RUNNING


async def test_dead_letters_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_DEAD", 2)
    world = World(memory.open(clock=FrozenClock()), None)
    worker = await world.join()
    ids = await world.put(count=3)
    await worker.claim(3)
    await worker.step(0, *(world.done(job_id, Op.FAILED) for job_id in ids))
    assert isinstance(world.broker, Admin)
    assert await world.broker.dead() == ids[1:]
    assert await world.state(ids[0]) is State.FAILED
    assert await world.broker.replay(ids) == [False, True, True]
    await world.close()

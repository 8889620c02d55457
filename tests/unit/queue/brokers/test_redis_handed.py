"""A job that comes while a worker sleeps and holds nothing is handed to it: claimed at once, and told in the message that wakes it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest

from asyncworker.errors import LeaseLost
from asyncworker.queue.brokers import redis
from asyncworker.queue.brokers.redis import RedisBroker
from asyncworker.queue.job import UNSETTLED, Op, State
from tests.support.brokers import Member, World

_names = itertools.count()


@pytest.fixture
async def broker(redis_url: str) -> AsyncIterator[RedisBroker]:
    broker = redis.open(redis_url, namespace=f"test-handed-{next(_names)}")
    yield broker
    await broker.close()


@pytest.fixture
def world(broker: RedisBroker) -> World:
    return World(broker, None)


@pytest.fixture
async def worker(world: World) -> Member:
    """One who sleeps."""
    worker = await world.join()
    await worker.step(3, idle=True)
    return worker


async def handed(world: World, worker: Member) -> str:
    """Let a job come, and return its id when the worker has heard of it."""
    job_id = await world.put_one(options={"x": 1})
    await worker.told("")
    assert await world.state(job_id) is State.RUNNING
    return job_id


async def test_it_costs_no_round_trip(world: World, worker: Member, broker: RedisBroker):
    await world.put_one(delay_s=60)
    await worker.told("")
    due_ms = (await worker.step(3, idle=True)).next_due_ms
    for _ in range(2):
        worker.notices.clear()
        job_id = await handed(world, worker)
        steps = broker._members[worker.epoch].seq
        claimed = await worker.step(3, idle=True)
        assert broker._members[worker.epoch].seq == steps
        assert [(one.id, one.payload, one.options) for one in claimed.deliveries] == [(job_id, b"call", {"x": 1})]
        assert (claimed.next_due_ms, claimed.held) == (due_ms, None)
        assert claimed.now_ms <= (await worker.step(3, world.done(job_id), idle=True)).now_ms
        assert await world.state(job_id) is State.SUCCEEDED


async def test_who_was_handed_one_hears_of_the_next(world: World, worker: Member):
    first = await handed(world, worker)
    assert [one.id for one in await worker.claim(3)] == [first]
    worker.notices.clear()
    second = await world.put_one()
    await worker.told("")
    assert await world.state(second) is State.QUEUED
    assert [one.id for one in await worker.claim(3)] == [second]


async def test_who_wants_it_no_more_gives_it_back(world: World, worker: Member):
    other = await world.join()
    for want, queues in ((0, ()), (3, ["another"])):
        worker.notices.clear()
        job_id = await handed(world, worker)
        await worker.step(want, queues=queues, idle=True)
        assert await world.state(job_id) is State.QUEUED
        (delivery,) = await other.claim(3)
        assert (delivery.id, delivery.deliveries, delivery.attempt) == (job_id, 0, 1)
        await other.step(0, world.done(job_id))
        await worker.step(3, idle=True)


async def test_who_has_something_to_settle_takes_it_in_the_same_step(world: World, worker: Member):
    job_id = await handed(world, worker)
    claimed = await worker.step(1, world.done(world.new_id(), Op.CHUNK), idle=True)
    assert [one.id for one in claimed.deliveries] == [job_id]
    await worker.step(1, world.done(job_id), idle=True)
    assert await world.state(job_id) is State.SUCCEEDED


async def test_a_message_that_is_lost_is_made_good_by_the_next_look(world: World, worker: Member, broker: RedisBroker):
    job_id = await handed(world, worker)
    broker._members[worker.epoch].handed = None
    claimed = await worker.step(3, idle=True)
    assert [one.id for one in claimed.deliveries] == [job_id]
    assert claimed.held == {job_id}
    assert (await worker.step(3, idle=True)).held is None, "it knows of all that it holds"


@pytest.mark.parametrize("op", sorted(UNSETTLED))
async def test_what_settles_nothing_gives_nothing_up(world: World, worker: Member, broker: RedisBroker, op: Op):
    job_id = await handed(world, worker)
    await worker.claim(1)
    for _ in range(2):
        await worker.step(0, world.done(job_id, op, 0, b"1 2"))
        assert broker._members[worker.epoch].holding == 1
        assert (await worker.step(3, idle=True)).held is None, "it knows of all that it holds"


async def test_a_message_that_is_slow_hands_nothing_again(world: World, worker: Member, broker: RedisBroker):
    job_id = await handed(world, worker)
    broker._members[worker.epoch].handed = None
    await worker.step(3, idle=True)
    worker.notices.clear()
    broker._heard(f"{broker._tag}in:{worker.epoch}", b"j1 %s %s" % (job_id.encode(), b"1\0\x05\x01qcall"))
    assert worker.notices == []
    assert await worker.claim(2) == []


@pytest.mark.parametrize("crashed", [True, False])
async def test_who_dies_with_it_gives_it_back(world: World, worker: Member, crashed: bool):
    other = await world.join()
    job_id = await handed(world, worker)
    assert await worker.leave(crashed=crashed) == 1
    (delivery,) = await other.claim(3)
    assert (delivery.id, delivery.deliveries) == (job_id, crashed)


async def test_it_can_be_cancelled(world: World, worker: Member):
    job_id = await handed(world, worker)
    assert await world.broker.cancel(job_id) is State.RUNNING
    await worker.told(job_id)


async def test_it_can_be_had_at_once_but_once(world: World, worker: Member, broker: RedisBroker):
    assert broker.handed(worker.epoch, {world.queue: 1}) is None
    job_id = await handed(world, worker)
    assert broker.handed(worker.epoch, {"another": 1}) is None
    claimed = broker.handed(worker.epoch, {world.queue: 1})
    assert claimed is not None
    assert [one.id for one in claimed.deliveries] == [job_id]
    assert broker.handed(worker.epoch, {world.queue: 1}) is None
    assert broker.handed("nobody", {world.queue: 1}) is None
    assert (await worker.step(3, world.done(job_id), idle=True)).deliveries == []
    assert await world.state(job_id) is State.SUCCEEDED


async def test_a_step_that_was_begun_is_under_way(world: World, worker: Member, broker: RedisBroker):
    job_id = await world.put_one()
    await worker.claim(1)
    sent = broker.begin(worker.epoch, [world.done(job_id)], {world.queue: 1}, 1, idle=True)
    (ended,) = await broker.wait([job_id], 20)
    assert ended is not None
    assert ended.state is State.SUCCEEDED
    assert (await sent).deliveries == []


async def test_a_step_that_was_begun_and_not_waited_for_confuses_no_other(
    world: World, worker: Member, broker: RedisBroker
):
    for _ in range(3):
        jobs = [await world.put_one() for _ in range(2)]
        await worker.claim(1)
        broker.begin(worker.epoch, [world.done(jobs[0])], {world.queue: 1}, 1, idle=True).close()
        claimed = await worker.step(1, world.done(jobs[0]))
        assert claimed.held is not None, "nobody knows what it has"
        assert [await world.state(one) for one in jobs] == [State.SUCCEEDED, State.RUNNING]
        assert claimed.held | {one.id for one in claimed.deliveries} == {jobs[1]}
        await worker.claim(0, world.done(jobs[1]))
    with pytest.raises(LeaseLost):
        await broker.begin("nobody", [], {}, 0, idle=False)

"""Walks through jobs: what `Admin.jobs` must do, run over every broker of the room."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from asyncworker.errors import BadParameters
from asyncworker.queue.admin import Admin
from asyncworker.queue.codec import base32, pack, pack_call
from asyncworker.queue.job import Found, Op, Record, State, child_id
from asyncworker.queue.search import ORDER, Query, rank, states_of
from tests.support.brokers import World, makes
from tests.support.clock import FrozenClock


@pytest.fixture(params=makes())
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    clock = FrozenClock() if request.param.frozen else None
    world = World(request.param.open(request, clock), clock)
    yield world
    await world.close()


async def walk(world: World, query: Query | None = None, limit: int = 200, **fields) -> list[Found]:
    assert isinstance(world.broker, Admin)
    page = await world.broker.jobs(query or Query(**fields), limit=limit)
    found = page.jobs
    while page.cursor:
        page = await world.broker.jobs(query or Query(**fields), page.cursor, limit)
        assert len(page.jobs) <= limit
        found += page.jobs
    return found


async def ids(world: World, *states: str, **more) -> set[str]:
    found = await walk(world, states=states_of(states), **more)
    assert len(found) == len({one.id for one in found})
    return {one.id for one in found}


def ended(world: World, job_id: str, op: Op, task: str = "t"):
    return world.done(job_id, op, value=pack(Record(task, queue=world.queue)))


def at(ms: int) -> str:
    return base32(ms, 9) + "0" * 17


class TestStates:
    async def test_each_job_lies_where_its_state_says(self, world: World):
        worker, feeder = await world.join(), await world.join(role="feeder")
        ends = dict(zip(Op, await world.put(count=4), strict=False))
        await worker.claim(4)
        await worker.step(0, *(ended(world, job_id, op) for op, job_id in ends.items()))
        again, running = await world.put(count=2)
        await worker.claim(2)
        await worker.step(0, world.done(again, Op.RETRY, 60_000, b"why"))
        queued, low = await world.put(world.job(), world.job(priority=0))
        other = await world.put_one(queue=world.queue + "2")
        scheduled = await world.put_one(delay_s=60)
        parent, _ = await world.parent(feeder, 2)
        await feeder.step(0, world.done(parent, Op.SEAL))
        held, _ = await world.parent(feeder, 1)
        waiting = await world.put_one(after=(queued,))
        expected = {
            "succeeded": {ends[Op.SUCCEEDED]},
            "failed": {ends[Op.FAILED]},
            "cancelled": {ends[Op.CANCELLED]},
            "expired": {ends[Op.EXPIRED]},
            "running": {running, held},
            "queued": {queued, low, other},
            "scheduled": {scheduled},
            "retrying": {again},
            "blocked": {parent, waiting},
        }
        assert {state: await ids(world, state) for state in expected} == expected
        assert await ids(world, limit=1) == set.union(*expected.values())
        assert await ids(world, "retrying", "queued", limit=2) == {again, queued, low, other}
        found = await walk(world)
        assert [rank(one.state) for one in found] == sorted(rank(one.state) for one in found)
        await world.broker.cancel(parent)
        await world.broker.cancel(waiting)
        assert await ids(world, "blocked") == set()

    async def test_a_job_that_waits_for_a_limit_is_blocked_until_its_turn(self, world: World):
        worker = await world.join()
        options = {"limit": ["l", 1, 0, ""]}
        first, second = await world.put(count=2, options=options)
        await worker.claim(2)
        assert (await ids(world, "running"), await ids(world, "blocked")) == ({first}, {second})
        await worker.step(0, world.done(first))
        assert (await ids(world, "blocked"), await ids(world, "queued")) == (set(), {second})

    async def test_a_replayed_letter_is_no_failure_any_more(self, world: World):
        worker = await world.join()
        letter, purged = await world.put(count=2)
        await worker.claim(2)
        await worker.step(0, *(ended(world, one, Op.FAILED) for one in (letter, purged)))
        assert await ids(world, "failed") == {letter, purged}
        assert isinstance(world.broker, Admin)
        assert await world.broker.replay([letter]) == [True]
        await world.broker.purge([purged])
        assert (await ids(world), await ids(world, "queued")) == ({letter}, {letter})

    async def test_what_is_forgotten_is_not_listed(self, world: World):
        worker = await world.join()
        short, unkept, long = await world.put(count=3)
        await worker.claim(3)
        await worker.step(
            0, world.done(short, number=1), world.done(unkept, number=0), ended(world, long, Op.CANCELLED)
        )
        await world.pass_time(1.1)
        assert await ids(world) == {long}

    async def test_children_are_parts_of_their_parents(self, world: World):
        feeder, worker = await world.join(role="feeder"), await world.join()
        parent, children = await world.parent(feeder, 3)
        await worker.claim(1)
        await worker.step(0, world.done(children[0], number=1))
        assert await ids(world) == {parent}


class TestWhich:
    async def test_by_queue_and_task(self, world: World):
        worker = await world.join()
        a, b, c = await world.put(*(world.job(pack_call(task, (), {})) for task in "aba"))
        await worker.claim(3)
        await worker.step(0, ended(world, a, Op.SUCCEEDED, "a"), ended(world, b, Op.FAILED, "b"))
        later = await world.put_one(payload=pack_call("a", (), {}), delay_s=60)
        other = await world.put_one(payload=pack_call("a", (), {}), queue=world.queue + "2")
        unread = await world.put_one(payload=b"\xc1")
        assert await ids(world, task="a") == {a, c, later, other}
        assert await ids(world, task="b") == {b}
        assert await ids(world, queue=world.queue) == {a, b, c, later, unread}
        assert await ids(world, "queued", queue=world.queue + "2", task="a") == {other}
        assert await ids(world, queue="nowhere") == set()

    async def test_by_when_they_were_enqueued(self, world: World):
        worker = await world.join()
        hour, now = 3_600_000, int(time.time() * 1000)
        made = [at(now - n * hour) for n in range(4)]
        for state, work in {"succeeded": Op.SUCCEEDED, "failed": Op.FAILED, "queued": None}.items():
            jobs = await world.put(*(world.job(id=job_id[:-1] + state[0]) for job_id in made))
            if work:
                await worker.claim(4)
                await worker.step(0, *(ended(world, job_id, work) for job_id in jobs))
            for limit in (1, 200):
                times = {"since_s": (now - 2 * hour) / 1000, "until_s": now / 1000}
                assert await ids(world, state, limit=limit, **times) == set(jobs[1:3])
                assert await ids(world, state, limit=limit, until_s=(now - hour) / 1000) == set(jobs[2:])
                assert await ids(world, state, limit=limit, since_s=(now - hour) / 1000) == set(jobs[:2])

    async def test_states_by_name(self, world: World):
        assert states_of([]) == frozenset(ORDER) == frozenset(State)
        assert states_of(["failed"]) == {State.FAILED}
        with pytest.raises(BadParameters, match=r"states are cancelled, "):
            states_of(["failde"])
        assert isinstance(world.broker, Admin)
        with pytest.raises(BadParameters, match="no cursor"):
            await world.broker.jobs(Query(), "nonsense")


class TestWalks:
    @pytest.mark.parametrize("limit", [1, 7, 50])
    async def test_jobs_that_stay_are_met_once_while_others_come_and_go(self, world: World, limit: int):
        worker = await world.join()
        done = await world.put(count=70)
        await worker.claim(70)
        await worker.step(0, *(world.done(job_id) for job_id in done))
        running = await world.put(count=10)
        await worker.claim(10)
        late = await world.put(*(world.job(delay_s=600) for _ in range(40)))
        queued = await world.put(count=60)
        assert isinstance(world.broker, Admin)
        seen: Counter[str] = Counter()
        cursor, moved = "", set()
        while True:
            page = await world.broker.jobs(Query(), cursor, limit)
            seen.update(one.id for one in page.jobs)
            if not (cursor := page.cursor):
                break
            deliveries = await worker.claim(1)
            moved |= {delivery.id for delivery in deliveries}
            await worker.step(0, *(world.done(delivery.id) for delivery in deliveries))
            if late and len(seen) % 3 == 0:
                gone = late.pop(len(late) // 2)
                moved.add(gone)
                await world.broker.cancel(gone)
            if len(moved) < 100:
                moved.update(await world.put(count=2))
        assert max(seen.values()) == 1
        assert {*done, *running, *late, *queued} - moved <= seen.keys()

    async def test_who_is_handed_back_ahead_hides_nobody(self, world: World):
        worker = await world.join()
        queued = await world.put(count=30)
        assert isinstance(world.broker, Admin)
        page = await world.broker.jobs(Query(states=states_of(["queued"])), limit=10)
        deliveries = await worker.claim(5)
        await worker.step(0, *(world.done(delivery.id, Op.RELEASE) for delivery in deliveries))
        rest = []
        while page.cursor:
            rest += page.jobs
            page = await world.broker.jobs(Query(states=states_of(["queued"])), page.cursor, limit=10)
        assert [one.id for one in [*rest, *page.jobs]] == queued

    async def test_delayed_jobs_of_one_moment(self, world: World):
        due = time.time() + 600
        jobs = await world.put(*(world.job(at_s=due) for _ in range(25)))
        found = await walk(world, limit=10)
        assert [one.id for one in found] == jobs
        page = await world.broker.jobs(Query(), limit=10)  # type: ignore[attr-defined]
        await world.broker.cancel(page.jobs[-1].id)
        page = await world.broker.jobs(Query(states=states_of(["scheduled"])), page.cursor, limit=10)  # type: ignore[attr-defined]
        assert {one.id for one in page.jobs} <= set(jobs[10:])

    async def test_a_child_is_no_job_of_a_walk(self, world: World):
        assert not Query().may_be(child_id(world.new_id(), 1))

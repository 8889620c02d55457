"""What jobs that wait for other jobs may rely on, whatever the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from asyncworker.errors import JobNotFound, LeaseLost
from asyncworker.queue.codec import pack, unpack_record
from asyncworker.queue.job import Ended, Missing, Op, Progress, Reason, Receipt, Record, State, Twin
from tests.support.brokers import TTL, Member, World, admin_of, makes, until
from tests.support.clock import FrozenClock

NOT_SUCCESS = {Op.FAILED: "failed", Op.CANCELLED: "was cancelled", Op.EXPIRED: "has expired"}


@pytest.fixture(params=makes())
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    clock = FrozenClock() if request.param.frozen else None
    world = World(request.param.open(request, clock), clock)
    yield world
    await world.close()


@pytest.fixture
async def worker(world: World) -> Member:
    return await world.join()


async def put(world: World, *after: str, **more: Any) -> str:
    return await world.put_one(after=after, **more)


async def why(world: World, job_id: str) -> tuple[State, str, str]:
    found = await world.found(job_id)
    record = unpack_record(found.record)
    return found.state, record.reason, record.error_text


class TestRelease:
    async def test_it_runs_when_the_last_is_over(self, world: World, worker: Member):
        a, b = await world.put(count=2)
        last = await put(world, a, b)
        assert await world.state(last) is State.BLOCKED
        assert [d.id for d in await worker.claim(9)] == [a, b]
        assert await worker.claim(9, world.done(b)) == []
        found = await world.found(last)
        assert (found.state, found.waits_for) == (State.BLOCKED, (a,))
        assert found.after == Progress(total=2, done=1, failed=0, units=0, sealed=True, over=False)
        assert found.children is None
        (delivery,) = await worker.claim(9, world.done(a))
        assert (delivery.id, delivery.attempt, delivery.plain) == (last, 1, False)
        found = await world.found(last)
        assert (found.state, found.waits_for) == (State.RUNNING, ())
        assert found.after == Progress(total=2, done=2, failed=0, units=0, sealed=True, over=True)
        assert await worker.claim(9, world.done(last)) == []
        assert await world.state(last) is State.SUCCEEDED
        assert (await world.counts()).succeeded == 3

    async def test_by_who_settles_without_claiming(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        last = await put(world, a)
        other = await world.join()
        await worker.claim_one()
        await other.step(1, idle=True)
        await worker.step(0, world.done(a))
        await other.told("")
        assert (await other.claim_one()).id == last

    async def test_in_another_queue_with_another_priority(self, world: World, worker: Member):
        other = world.queue + "other"
        (a,) = await world.put(count=1)
        low = await put(world, a, queue=other, priority=0)
        high = await put(world, a, queue=other, priority=9)
        await worker.claim_one()
        assert await worker.claim(9, world.done(a)) == []
        assert [d.id for d in await worker.claim(9, queues=[other])] == [high, low]

    async def test_after_what_is_over(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        await worker.claim_one()
        await worker.step(0, world.done(a, value=b"A"))
        last = await put(world, a, options={"input": 1})
        assert (await worker.claim_one()).id == last
        assert await world.broker.wait([f"{last}.0"], 0) == [Ended(State.SUCCEEDED, b"A")]

    async def test_after_several_where_one_is_over(self, world: World, worker: Member):
        a, b = await world.put(count=2)
        await worker.claim_one()
        await worker.step(0, world.done(a))
        last = await put(world, a, b)
        assert (await world.found(last)).waits_for == (b,)
        await worker.claim_one()
        assert [d.id for d in await worker.claim(9, world.done(b))] == [last]

    async def test_after_what_nobody_knows(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        nobody, mine = world.new_id(), world.new_id()
        jobs = [world.job(after=(a, nobody)), world.job(), world.job(id=mine, after=(mine,))]
        assert await world.broker.enqueue(jobs) == [Missing(nobody), Receipt.ACCEPTED, Missing(mine)]
        assert await world.broker.find([jobs[0].id]) == [None]
        await worker.claim(2)
        await worker.step(0, world.done(a, number=0))
        await world.pass_time(0.002)
        assert await world.broker.enqueue([world.job(after=(a,))]) == [Missing(a)]

    async def test_enqueued_twice_it_waits_once(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        job = world.job(after=(a,))
        assert await world.broker.enqueue([job, job]) == [Receipt.ACCEPTED, Receipt.KNOWN]
        await worker.claim_one()
        assert [d.id for d in await worker.claim(9, world.done(a))] == [job.id]
        assert await worker.claim(9) == []

    async def test_a_retry_is_no_end(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        last = await put(world, a)
        await worker.claim_one()
        for op in (Op.RETRY, Op.SNOOZE, Op.PUT_BACK, Op.RELEASE):
            await worker.step(0, world.done(a, op, 0, b"why"))
            assert await world.state(last) is State.BLOCKED
            assert [d.id for d in await worker.claim(9)] == [a]
        assert [d.id for d in await worker.claim(9, world.done(a))] == [last]

    async def test_a_dead_workers_job_is_waited_for(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        last = await put(world, a)
        await worker.claim_one()
        await worker.leave(crashed=True)
        with pytest.raises(LeaseLost):
            await worker.step(0, world.done(a))
        other = await world.join()
        assert await world.state(last) is State.BLOCKED
        assert [d.id for d in await other.claim(9)] == [a]
        assert [d.id for d in await other.claim(9, world.done(a))] == [last]

    async def test_who_settles_one_and_dies_leaves_the_next_to_others(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        last = await put(world, a)
        await worker.claim_one()
        assert [d.id for d in await worker.claim(9, world.done(a))] == [last], "settled and claimed in one step"
        await worker.leave(crashed=True)
        other = await world.join()
        (delivery,) = await other.claim(9)
        assert (delivery.id, delivery.deliveries) == (last, 1)
        assert await other.claim(9, world.done(last)) == []

    async def test_delayed_and_unique(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        late = await put(world, a, delay_s=0.3, options={"unique": "k"})
        assert await world.broker.enqueue([world.job(options={"unique": "k"})]) == [Twin(late)]
        await worker.claim_one()
        assert await worker.claim(9, world.done(a)) == []
        assert await world.state(late) is State.SCHEDULED
        await world.pass_time(0.3)
        assert [d.id for d in await worker.claim(9)] == [late]
        await worker.step(0, world.done(late))
        await world.put(options={"unique": "k"})

    async def test_a_delay_that_is_over_meanwhile(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        late = await put(world, a, delay_s=0.02)
        await world.pass_time(0.02)
        await worker.claim_one()
        assert [d.id for d in await worker.claim(9, world.done(a))] == [late]

    async def test_of_children_and_parents(self, world: World, worker: Member):
        feeder = await world.join(role="feeder")
        parent, (child,) = await world.parent(feeder, 1)
        after_parent, after_child = await put(world, parent, options={"input": 1}), await put(world, child)
        await feeder.step(0, world.done(parent, Op.SEAL))
        assert [d.id for d in await worker.claim(9)] == [child]
        assert {d.id for d in await worker.claim(9, world.done(child))} == {parent, after_child}
        assert [d.id for d in await worker.claim(9, world.done(parent, value=b"sum"))] == [after_parent]
        assert await world.broker.wait([f"{after_parent}.0"], 0) == [Ended(State.SUCCEEDED, b"sum")]

    async def test_a_blocked_job_needs_no_room(self, world: World, worker: Member):
        await admin_of(world).bound(world.queue, 1)
        (a,) = await world.put(count=1)
        last = await put(world, a)
        assert await world.broker.enqueue([world.job()]) == [Receipt.FULL]
        await worker.claim_one()
        assert [d.id for d in await worker.claim(9, world.done(a))] == [last]


class TestInputs:
    async def test_they_outlive_the_results_and_keep_their_places(self, world: World, worker: Member):
        ids = await world.put(count=3)
        last = await put(world, *reversed(ids), options={"inputs": 3})
        await worker.claim(3)
        ends = [world.done(job_id, number=0, value=job_id.encode()) for job_id in ids]
        assert [d.id for d in await worker.claim(9, *ends)] == [last]
        await world.pass_time(0.002)
        with pytest.raises(JobNotFound):
            await world.broker.wait(ids[:1], 0)
        names = [f"{last}.{place}" for place in range(3)]
        expected = [Ended(State.SUCCEEDED, job_id.encode()) for job_id in reversed(ids)]
        assert await world.broker.wait(names, 0) == expected
        await worker.step(0, world.done(last, Op.RETRY, 0, b"why"))
        assert await world.broker.wait(names, 0) == expected
        await worker.claim_one()
        await worker.step(0, world.done(last))
        with pytest.raises(JobNotFound):
            await world.broker.wait(names, 0)

    async def test_without_being_asked_nothing_is_kept(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        last = await put(world, a)
        await worker.claim_one()
        await worker.claim(9, world.done(a))
        with pytest.raises(JobNotFound):
            await world.broker.wait([f"{last}.0"], 0)

    async def test_plain_successes_are_given_too(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        last = await put(world, a, options={"input": 1})
        (delivery,) = await worker.claim(1)
        assert delivery.plain
        plain = msgspec.structs.replace(world.done(a, value=b"A"), plain=True)
        assert [d.id for d in await worker.claim(9, plain)] == [last]
        assert await world.broker.wait([f"{last}.0"], 0) == [Ended(State.SUCCEEDED, b"A")]


class TestFailure:
    @pytest.mark.parametrize("op", NOT_SUCCESS)
    async def test_it_fails_with_the_first_to_blame(self, world: World, worker: Member, op: Op):
        a, b = await world.put(count=2)
        second = await put(world, b, a)
        third = await put(world, second)
        waiting = asyncio.ensure_future(world.broker.wait([third], 10))
        await worker.claim(2)
        assert await worker.claim(9, world.done(a, op, TTL, pack(Record(error_text="x")))) == []
        expected = State.FAILED, Reason.DEPENDENCY, f"job {a} {NOT_SUCCESS[op]}"
        assert await why(world, second) == await why(world, third) == expected
        (ended,) = await waiting
        assert ended
        assert ended.state is State.FAILED
        assert await worker.claim(9, world.done(b)) == []
        assert sorted(await admin_of(world).dead())[-2:] == [second, third]

    async def test_of_a_worker_that_dies_too_often(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        last = await put(world, a)
        await worker.claim_one()
        await worker.leave(crashed=True, max_deliveries=1)
        assert await why(world, last) == (State.FAILED, Reason.DEPENDENCY, f"job {a} failed")

    async def test_after_what_has_failed(self, world: World, worker: Member):
        a, b = await world.put(count=2)
        await worker.claim(1)
        await worker.step(0, world.done(a, Op.FAILED))
        last = await put(world, b, a)
        assert await why(world, last) == (State.FAILED, Reason.DEPENDENCY, f"job {a} failed")

    async def test_it_may_be_allowed(self, world: World, worker: Member):
        a, b, c = await world.put(count=3)
        last = await put(world, a, b, c, options={"allow_failure": True, "inputs": 3})
        await worker.claim(3)
        assert await worker.claim(9, world.done(a, Op.FAILED), world.done(b, Op.EXPIRED)) == []
        found = await world.found(last)
        assert found.after == Progress(total=3, done=2, failed=2, units=0, sealed=True, over=False)
        assert await world.broker.cancel(c) is State.RUNNING
        assert [d.id for d in await worker.claim(9, world.done(c, Op.CANCELLED))] == [last]
        ends = await world.broker.wait([f"{last}.{place}" for place in range(3)], 0)
        assert [ended and ended.state for ended in ends] == [State.FAILED, State.EXPIRED, State.CANCELLED]

    async def test_a_blocked_job_is_cancelled_at_once(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        middle = await put(world, a, options={"unique": "k"})
        last, cleanup = await put(world, middle), await put(world, middle, options={"allow_failure": True})
        assert await world.broker.cancel(middle) is State.BLOCKED
        assert await world.state(middle) is State.CANCELLED
        assert await why(world, last) == (State.FAILED, Reason.DEPENDENCY, f"job {middle} was cancelled")
        assert [d.id for d in await worker.claim(9)] == [a, cleanup]
        assert await worker.claim(9, world.done(a)) == []
        await put(world, options={"unique": "k"})

    async def test_what_waits_for_the_cancelled(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        last = await put(world, a)
        assert await world.broker.cancel(a) is State.QUEUED
        assert await why(world, last) == (State.FAILED, Reason.DEPENDENCY, f"job {a} was cancelled")

    async def test_thousands_fail_with_one(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        jobs = [world.job(after=(a,)) for _ in range(1500)]
        for start in range(300):
            jobs.append(world.job(after=(jobs[start].id,)))
        await world.put(*jobs)
        assert await world.broker.cancel(a) is State.QUEUED

        async def look() -> bool:
            await worker.claim(9)
            return (await world.counts()).failed == len(jobs)

        await until(look)


class TestReplay:
    async def test_a_dead_letter_has_what_it_was_given(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        last = await put(world, a, options={"input": 1})
        await worker.claim_one()
        await worker.claim(9, world.done(a, number=0, value=b"A"))
        await worker.step(0, world.done(last, Op.FAILED))
        assert await admin_of(world).replay([last]) == [True]
        assert (await worker.claim_one()).id == last
        assert await world.broker.wait([f"{last}.0"], 0) == [Ended(State.SUCCEEDED, b"A")]

    async def test_it_waits_once_more_for_who_failed(self, world: World, worker: Member):
        a, b, c = await world.put(count=3)
        last = await put(world, a, b, c, options={"inputs": 3})
        await worker.claim(3)
        await worker.step(0, world.done(a, value=b"A"), world.done(b, Op.FAILED))
        admin = admin_of(world)
        assert await admin.replay([last]) == [False]
        assert await why(world, last) == (State.FAILED, Reason.DEPENDENCY, f"job {b} failed")
        assert await admin.replay([b, last]) == [True, True]
        assert (await world.found(last)).waits_for == (b, c)
        assert await worker.claim(0, world.done(c, value=b"C")) == []
        assert (await worker.claim_one()).id == b
        assert [d.id for d in await worker.claim(9, world.done(b, value=b"B"))] == [last]
        ends = await world.broker.wait([f"{last}.{place}" for place in range(3)], 0)
        assert [ended and ended.record for ended in ends] == [b"A", b"B", b"C"]

    async def test_who_failed_is_forgotten(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        last = await put(world, a)
        await worker.claim_one()
        await worker.step(0, world.done(a, Op.FAILED, 0))
        await world.pass_time(0.002)
        assert await admin_of(world).replay([last]) == [False]
        assert await why(world, last) == (State.FAILED, Reason.DEPENDENCY, f"job {a} has expired")


class TestMany:
    async def test_a_fan_out_of_thousands(self, world: World, worker: Member):
        (a,) = await world.put(count=1)
        ids = await world.put(*(world.job(after=(a,)) for _ in range(2500)))
        assert (await worker.claim_one()).id == a
        claimed = [d.id for d in await worker.claim(1000, world.done(a))]

        async def look() -> bool:
            claimed.extend(d.id for d in await worker.claim(1000))
            return len(claimed) == 2500

        await until(look)
        assert claimed == ids

    async def test_a_fan_in_of_thousands(self, world: World, worker: Member):
        ids = await world.put(count=2500)
        last = await put(world, *ids, options={"inputs": 2500})
        assert (await world.found(last)).waits_for == tuple(ids[:10])
        ended: list[str] = []
        while len(ended) < 2500:
            claimed = [d.id for d in await worker.claim(200)]
            await worker.step(0, *(world.done(job_id, value=job_id.encode()) for job_id in claimed))
            ended += claimed

        async def look() -> list[str]:
            return [d.id for d in await worker.claim(9)]

        assert await until(look) == [last]
        ends = await world.broker.wait([f"{last}.{place}" for place in range(2500)], 0)
        assert [one.record.decode() for one in ends if one] == ids

    async def test_a_chain_of_a_thousand(self, world: World, worker: Member):
        jobs = [world.job()]
        for _ in range(1000):
            jobs.append(world.job(after=(jobs[-1].id,)))
        await world.put(*jobs)
        settled = []
        for job in jobs:
            (delivery,) = await worker.claim(9, *settled)
            assert delivery.id == job.id
            settled = [world.done(job.id)]

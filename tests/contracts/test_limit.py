"""What limits and rates promise, whatever the broker: never exceeded, nothing lost, nobody overlooked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncworker.queue.admin import Admin
from asyncworker.queue.codec import pack
from asyncworker.queue.job import APART, Op, Receipt, State
from asyncworker.queue.limit import Limit, Rate
from tests.support.brokers import Member, World, admin_of, makes
from tests.support.clock import FrozenClock


@pytest.fixture(params=makes())
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    clock = FrozenClock() if request.param.frozen else None
    world = World(request.param.open(request, clock), clock)
    yield world
    await world.close()


@pytest.fixture
async def worker(world: World) -> Member:
    return await world.join()


def limit(limit: Limit, key: str | None = None) -> dict[str, Any]:
    return {"limit": [limit.name or "task", *limit.numbers, key]}


def rate(rate: Rate, cost: float = 1.0, key: str | None = None) -> dict[str, Any]:
    return {"rate": [rate.name or "task", *rate.numbers, key, cost]}


ONE = limit(Limit(1))
SLOW = rate(Rate(1, per=3600))


async def ids(worker: Member, want: int = 99, *settled: Any, **more: Any) -> list[str]:
    return [delivery.id for delivery in await worker.claim(want, *settled, **more)]


async def counts(world: World) -> tuple[int, int, int]:
    depth = await world.counts()
    return depth.queued, depth.scheduled, depth.blocked


class TestLimit:
    async def test_no_more_than_so_many_run(self, world: World, worker: Member):
        jobs = await world.put(count=7, options=limit(Limit(3)))
        running = await ids(worker)
        assert running == jobs[:3]
        assert await counts(world) == (0, 0, 4)
        done = []
        while running:
            done += running
            running = await ids(worker, 99, *(world.done(job_id) for job_id in running))
        assert sorted(done) == sorted(jobs)
        assert await counts(world) == (0, 0, 0)

    async def test_others_are_not_held_up(self, world: World, worker: Member):
        limited = await world.put(count=20, options=ONE)
        plain = await world.put(count=3)
        assert await ids(worker, 4) == [limited[0], *plain]

    async def test_the_next_starts_when_one_ends(self, world: World, worker: Member):
        first, second, third = await world.put(count=3, options=ONE)
        assert await ids(worker) == [first]
        assert await ids(worker) == []
        assert await ids(worker, 99, world.done(first)) == [second]
        assert await ids(worker, 99, world.done(second, Op.FAILED)) == [third]

    async def test_what_waits_is_blocked(self, world: World, worker: Member):
        first, second = await world.put(count=2, options=ONE)
        assert [await world.state(first), await world.state(second)] == [State.QUEUED, State.QUEUED]
        await worker.claim(9)
        assert [await world.state(first), await world.state(second)] == [State.RUNNING, State.BLOCKED]
        await worker.step(0, world.done(first))
        assert await world.state(second) is State.QUEUED

    @pytest.mark.parametrize("op", [Op.SUCCEEDED, Op.FAILED, Op.CANCELLED, Op.EXPIRED])
    async def test_a_permit_comes_back_however_a_job_ends(self, world: World, worker: Member, op: Op):
        first, second = await world.put(count=2, options=ONE)
        await worker.claim(9)
        assert await ids(worker, 9, world.done(first, op)) == [second]
        assert await ids(worker, 9, world.done(second), world.done(second)) == []

    @pytest.mark.parametrize("op", [Op.RETRY, Op.SNOOZE, Op.PUT_BACK])
    async def test_a_permit_comes_back_when_a_job_is_put_off(self, world: World, worker: Member, op: Op):
        first, second = await world.put(count=2, options=ONE)
        await worker.claim(9)
        assert await ids(worker, 9, world.done(first, op, 3_600_000)) == [second]
        assert await ids(worker, 9, world.done(second, op, 0)) == [second]

    async def test_a_permit_comes_back_when_a_job_is_released(self, world: World, worker: Member):
        other = await world.join()
        first, second = await world.put(count=2, options=ONE)
        assert await ids(worker) == [first]
        await worker.step(0, world.done(first, Op.RELEASE))
        assert await ids(other) == [second], "who waited was called up already"
        assert await ids(worker, 9) == []
        assert await ids(worker, 9, *[]) == []
        assert await ids(other, 9, world.done(second)) == [first]

    async def test_a_permit_comes_back_when_its_worker_dies(self, world: World, worker: Member):
        doomed = await world.join()
        jobs = await world.put(count=5, options=limit(Limit(2)))
        assert await ids(doomed) == jobs[:2]
        assert await ids(worker) == []
        await doomed.leave(crashed=True)
        seen, running = [], await ids(worker)
        while running:
            assert len(running) <= 2
            seen += running
            running = await ids(worker, 99, *(world.done(job_id) for job_id in running))
        assert sorted(seen) == sorted(jobs)

    async def test_a_permit_comes_back_when_a_job_is_given_up(self, world: World, worker: Member):
        doomed = await world.join()
        first, second = await world.put(count=2, options={**ONE, "max_deliveries": 1 - APART})
        await doomed.claim(1)
        await doomed.leave(crashed=True)
        assert await world.state(first) is State.FAILED
        assert await ids(worker) == [second]

    async def test_what_a_fenced_worker_says_frees_nothing(self, world: World, worker: Member):
        lost = await world.join()
        first, second = await world.put(count=2, options=ONE)
        await lost.claim(1)
        await worker.world.broker.reap(lost.epoch, "", crashed=True)
        assert await ids(worker) == [first]
        assert await ids(worker, 9, world.done("nobody")) == []
        assert await ids(worker, 9, world.done(first)) == [second]

    async def test_keys_are_limited_apart_and_together(self, world: World, worker: Member):
        of = Limit(3, key="tenant", per_key=1)
        by_key = {key: await world.put(count=3, options=limit(of, key)) for key in "abcd"}
        running = await ids(worker)
        assert running == [by_key[key][0] for key in "abc"]
        assert await ids(worker, 99, world.done(running[0])) == [by_key["d"][0]], "d waited before a's second"
        seen, running = [running[0]], [*running[1:], by_key["d"][0]]
        while running:
            keys = [key for job_id in running for key in by_key if job_id in by_key[key]]
            assert len(keys) <= 3
            assert len(set(keys)) == len(keys)
            seen += running
            running = await ids(worker, 99, *(world.done(job_id) for job_id in running))
        assert sorted(seen) == sorted(job_id for jobs in by_key.values() for job_id in jobs)

    async def test_a_busy_key_starves_no_other(self, world: World, worker: Member):
        of = Limit(2, key="tenant", per_key=1)
        await world.put(count=30, options=limit(of, "busy"))
        (other,) = await world.put(count=1, options=limit(of, "other"))
        assert other in await ids(worker, 2)

    async def test_who_waits_goes_by_priority_then_by_age(self, world: World, worker: Member):
        (first,) = await world.put(count=1, options=ONE)
        await worker.claim(1)
        low = await world.put(count=2, options=ONE, priority=2)
        high = await world.put(count=2, options=ONE, priority=7)
        await worker.claim(9)
        order = [first]
        while running := await ids(worker, 9, world.done(order[-1])):
            order += running
        assert order == [first, *high, *low]

    async def test_no_priority_starves(self, world: World, worker: Member):
        low = await world.put_one(options=ONE, priority=0)
        await world.put(count=1, options=ONE, priority=9)
        order: list[str] = []
        running = await ids(worker, 1)
        for _ in range(20):
            order += running
            await world.put(count=1, options=ONE, priority=9)
            running = await ids(worker, 1, *map(world.done, running))
            running = running or await ids(worker, 1)
        assert low in order

    async def test_cancelling_who_waits_disturbs_nobody(self, world: World, worker: Member):
        first, second, third = await world.put(count=3, options=ONE)
        await worker.claim(9)
        assert await world.broker.cancel(second) is State.BLOCKED
        assert await counts(world) == (0, 0, 1)
        assert await ids(worker, 9, world.done(first)) == [third]
        assert await ids(worker, 9, world.done(third)) == []
        assert await counts(world) == (0, 0, 0)

    async def test_cancelling_who_was_called_up_calls_the_next(self, world: World, worker: Member):
        first, second, third = await world.put(count=3, options=ONE)
        await worker.claim(9)
        await worker.step(0, world.done(first))
        assert await world.broker.cancel(second) is State.QUEUED
        assert await ids(worker, 9) == [third]
        assert await counts(world) == (0, 0, 0)

    async def test_who_is_too_late_needs_no_permit(self, world: World, worker: Member):
        first = await world.put_one(options=ONE)
        await worker.claim(1)
        late = await world.put_one(options={**ONE, "expires": 0.05})
        due = await world.put_one(options={**ONE, "deadline": 0.05})
        early = await world.put_one(options={**ONE, "expires": 60.0, "deadline": 60.0})
        await worker.claim(9)
        assert await world.state(late) is State.BLOCKED
        await world.pass_time(1.2)
        await worker.step(0, world.done(first))
        assert await ids(worker, 9) == [late, due, early]
        assert await ids(worker, 9, world.done(late, Op.EXPIRED), world.done(due, Op.EXPIRED)) == []
        assert await world.put(count=1, options=ONE)
        assert await ids(worker, 9) == []
        assert len(await ids(worker, 9, world.done(early))) == 1

    async def test_a_paused_queue_keeps_no_other_from_its_turn(self, world: World, worker: Member):
        assert isinstance(world.broker, Admin)
        other = world.queue + "b"
        first = await world.put_one(options=ONE)
        await worker.claim(1)
        paused = await world.put(count=2, options=ONE)
        await worker.claim(9)
        (elsewhere,) = await world.put(world.job(queue=other, options=ONE))
        assert await ids(worker, 9, queues=[other]) == []
        await world.broker.pause(world.queue)
        assert await ids(worker, 9, world.done(first), queues=[world.queue, other]) == [elsewhere]
        await world.broker.resume(world.queue)
        assert await ids(worker, 9, queues=[world.queue, other]) == []
        assert await ids(worker, 9, world.done(elsewhere), queues=[world.queue, other]) == paused[:1]

    async def test_tasks_may_share_a_limit(self, world: World, worker: Member):
        shared = limit(Limit(1, name="api"))
        first, second = await world.put(count=2, options=shared)
        (other,) = await world.put(count=1, options=ONE)
        assert await ids(worker) == [first, other]
        assert await ids(worker, 9, world.done(first)) == [second]

    async def test_what_waits_takes_room(self, world: World, worker: Member):
        assert isinstance(world.broker, Admin)
        await world.put(count=3, options=ONE)
        await worker.claim(9)
        await world.broker.bound(world.queue, 3)
        await world.put(count=1)
        assert await world.broker.enqueue([world.job()]) == [Receipt.FULL]

    async def test_numbers_of_the_newest_worker_hold(self, world: World, worker: Member):
        jobs = await world.put(count=6, options=limit(Limit(2)))
        assert await ids(worker) == jobs[:2]
        await admin_of(world).regulate({"ltask": [4, 0]})
        assert await ids(worker, 9, world.done(jobs[0])) == jobs[2:5]
        await admin_of(world).regulate({"ltask": [1, 0]})
        assert await ids(worker, 9, *map(world.done, jobs[1:4])) == []
        assert await ids(worker, 9, world.done(jobs[4])) == [jobs[5]]

    async def test_a_bound_by_key_may_be_lifted(self, world: World, worker: Member):
        of = Limit(9, key="tenant", per_key=1)
        jobs = await world.put(count=3, options=limit(of, "a"))
        assert await ids(worker) == jobs[:1]
        await admin_of(world).regulate({"ltask": [9, 0]})
        assert await ids(worker, 9, world.done(jobs[0])) == jobs[1:]

    async def test_who_sleeps_hears_of_a_permit(self, world: World, worker: Member):
        sleeper = await world.join()
        first, second = await world.put(count=2, options=ONE)
        await worker.claim(9)
        await sleeper.step(1, idle=True)
        sleeper.notices.clear()
        await worker.step(0, world.done(first))
        await sleeper.told("")
        assert await ids(sleeper) == [second]

    async def test_a_retried_job_waits_again(self, world: World, worker: Member):
        first, second = await world.put(count=2, options=ONE)
        await worker.claim(9)
        assert await ids(worker, 9, world.done(first, Op.RETRY, 0)) == [second]
        assert await world.state(first) is State.BLOCKED
        (delivery,) = await worker.claim(9, world.done(second))
        assert (delivery.id, delivery.attempt) == (first, 2)

    async def test_a_job_may_be_given_its_limit_by_its_worker(self, world: World, worker: Member):
        first, second = await world.put(count=2, options={"timeout": 7})
        await worker.claim(2)
        value = pack(({"timeout": 7, **ONE}, b"signed"))
        (delivery,) = await worker.claim(9, *(world.done(job_id, Op.GATE, 0, value) for job_id in (first, second)))
        assert (delivery.id, delivery.attempt, delivery.options) == (first, 1, {"timeout": 7, **ONE})
        assert delivery.payload == b"signed"
        assert await world.state(second) is State.BLOCKED
        assert await ids(worker, 9, world.done(first)) == [second]

    async def test_a_long_backlog_is_looked_at_in_bounded_steps(self, world: World, worker: Member):
        await world.put(count=2500, options=ONE)
        (plain,) = await world.put(count=1)
        steps, seen = 0, []
        while plain not in seen:
            claimed = await worker.step(5)
            assert claimed.deliveries or claimed.next_due_ms == claimed.now_ms, "come again at once"
            seen += [one.id for one in claimed.deliveries]
            steps += 1
        assert 2 <= steps < 20
        assert len(seen) == 2


class TestRate:
    async def test_jobs_start_as_often_as_they_may(self, world: World, worker: Member):
        jobs = await world.put(count=3, options=rate(Rate(10)))
        claimed = await worker.step(9)
        assert [one.id for one in claimed.deliveries] == jobs[:1]
        claimed = await worker.step(9, world.done(jobs[0]))
        assert (claimed.deliveries, 0 < claimed.next_due_ms - claimed.now_ms <= 100) == ([], True)
        assert await counts(world) == (0, 0, 2)
        assert await world.state(jobs[1]) is State.BLOCKED
        for job_id in jobs[1:]:
            await world.pass_time(0.101)
            assert await ids(worker, 9) == [job_id]
        assert await counts(world) == (0, 0, 0)

    async def test_who_has_waited_may_start_several_at_once(self, world: World, worker: Member):
        jobs = await world.put(count=5, options=rate(Rate(1, per=3600, burst=3)))
        assert await ids(worker) == jobs[:3]
        assert await ids(worker) == []

    async def test_a_job_may_cost_more_than_one(self, world: World, worker: Member):
        of = Rate(10, burst=10)
        (dear,) = await world.put(count=1, options=rate(of, 8.0))
        (next_one,) = await world.put(count=1, options=rate(of, 4.0))
        (cheap,) = await world.put(count=1, options=rate(of, 1.0))
        free = await world.put_one(options=rate(of, 0.0), priority=9)
        assert await ids(worker) == [free, dear]
        assert await counts(world) == (0, 0, 2), "the cheap one does not overtake for ever"
        await world.pass_time(0.301)
        assert await ids(worker) == [next_one, cheap]

    async def test_keys_have_rates_of_their_own(self, world: World, worker: Member):
        of = Rate(1, per=3600)
        by_key = [await world.put(count=2, options=rate(of, key=key)) for key in "ab"]
        assert await ids(worker) == [jobs[0] for jobs in by_key]

    async def test_a_rate_and_a_limit_at_once(self, world: World, worker: Member):
        jobs = await world.put(count=4, options=limit(Limit(2)) | rate(Rate(1, per=3600, burst=3)))
        assert await ids(worker) == jobs[:2]
        assert await ids(worker, 9, *map(world.done, jobs[:2])) == jobs[2:3], "no token was lost at the limit"

    async def test_cancelling_who_waits_for_its_time(self, world: World, worker: Member):
        of = rate(Rate(10))
        _first, second, third = await world.put(count=3, options=of)
        await worker.claim(9)
        assert await world.broker.cancel(second) is State.BLOCKED
        await world.pass_time(0.101)
        assert await ids(worker) == [third]
        await world.broker.cancel(third)
        await world.pass_time(0.101)
        assert (await worker.step(9)).next_due_ms == -1

    async def test_who_sleeps_wakes_in_time(self, world: World, worker: Member):
        await world.put(count=2, options=SLOW)
        await worker.claim(9)
        claimed = await worker.step(9, idle=True)
        assert 0 < claimed.next_due_ms - claimed.now_ms <= 3_600_000

    async def test_gates_to_be_looked_at_are_no_jobs(self, world: World, worker: Member):
        assert isinstance(world.broker, Admin)
        await world.put(count=2, options=SLOW)
        await worker.claim(9)
        assert await counts(world) == (0, 0, 1)
        await world.broker.bound(world.queue, 2)
        await world.put(count=1)
        assert await world.broker.enqueue([world.job()]) == [Receipt.FULL]

    async def test_numbers_of_the_newest_worker_hold(self, world: World, worker: Member):
        jobs = await world.put(count=5, options=SLOW)
        assert await ids(worker) == jobs[:1]
        await admin_of(world).regulate({"rtask": Rate(10, burst=1).numbers})
        await world.pass_time(0.101)
        assert await ids(worker) == jobs[1:2]
        await admin_of(world).regulate({"rtask": Rate(1, per=3600, burst=3).numbers})
        assert await ids(worker) == jobs[2:4]
        assert await ids(worker) == []

"""What a broker must do, in the words of `asyncworker.queue.brokers.broker`; run over every broker of the room.

A new file in ``queue/brokers`` is found by its name; `tests.support.brokers` says how a broker is opened.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import msgspec
import pytest

from asyncworker.errors import JobNotFound, JobTooBig, LeaseLost
from asyncworker.queue.codec import MAX_PAYLOAD_BYTES, Ids, pack, pack_call, unpack, unpack_record
from asyncworker.queue.job import (
    APART,
    UNSETTLED,
    Ended,
    Op,
    Progress,
    Reason,
    Receipt,
    Record,
    Settled,
    State,
    Twin,
    child_id,
    copy_of,
)
from tests.support.brokers import TTL, Member, World, admin_of, makes, until
from tests.support.clock import FrozenClock

ENDS = {
    Op.SUCCEEDED: State.SUCCEEDED,
    Op.FAILED: State.FAILED,
    Op.CANCELLED: State.CANCELLED,
    Op.EXPIRED: State.EXPIRED,
}


@pytest.fixture(params=makes())
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    clock = FrozenClock() if request.param.frozen else None
    world = World(request.param.open(request, clock), clock)
    yield world
    await world.close()


@pytest.fixture
async def worker(world: World) -> Member:
    return await world.join()


@pytest.fixture
async def feeder(world: World) -> Member:
    return await world.join(role="feeder")


def ids_of(deliveries) -> list[str]:
    return [delivery.id for delivery in deliveries]


class TestOrder:
    async def test_oldest_first_within_a_priority(self, world: World, worker: Member):
        ids = await world.put(count=7)
        later = await world.put(count=3)
        assert ids_of(await worker.claim(4)) + ids_of(await worker.claim(9)) == ids + later

    async def test_higher_priorities_come_first(self, world: World, worker: Member):
        priorities = list(range(10)) * 2
        random.Random(3).shuffle(priorities)
        await world.put(*(world.job(priority=priority) for priority in priorities))
        assert [d.priority for d in await worker.claim(20)] == sorted(priorities, reverse=True)

    async def test_one_step_in_sixteen_asks_the_lowest_first(self, world: World, worker: Member):
        await world.put(count=20, priority=0)
        await world.put(count=80, priority=9)
        claimed, settled = [], []
        for _ in range(64):
            deliveries = await worker.claim(1, *settled)
            settled = [world.done(d.id) for d in deliveries]
            claimed += [d.priority for d in deliveries]
        assert claimed.count(0) == 4

    async def test_s37_high_overtakes_ten_thousand_low_and_low_still_gets_its_share(self, world: World, worker: Member):
        low = await world.put(count=10_000, priority=0)
        high = await world.put(count=60, priority=9)
        claimed = []
        for _ in range(64):
            (delivery,) = await worker.claim(1)
            claimed.append(delivery.id)
        assert [job_id for job_id in claimed if job_id in set(high)] == high
        assert [job_id for job_id in claimed if job_id in set(low[:4])] == low[:4]

    async def test_queues_are_asked_in_the_order_given(self, world: World, worker: Member):
        first, second = world.queue + "a", world.queue + "b"
        (low,) = await world.put(world.job(queue=first, priority=0))
        (high,) = await world.put(world.job(queue=second, priority=9))
        assert ids_of(await worker.claim(2, queues=[first, second])) == [low, high]

    async def test_each_queue_gives_no_more_than_its_number(self, world: World, worker: Member):
        a, b, c = (world.queue + letter for letter in "abc")
        await world.put(*(world.job(queue=queue) for queue in (a, b, c) for _ in range(5)))

        async def claim(want: int, queues: dict[str, int]) -> list[str]:
            return [d.queue for d in await worker.claim(want, queues=queues)]

        assert await claim(9, {a: 2, b: 0, c: 4}) == [a] * 2 + [c] * 4
        assert await claim(4, {b: 3, a: 3, c: 3}) == [b] * 3 + [a]
        assert await claim(9, {a: 9, b: 9, c: 9}) == [a] * 2 + [b] * 2 + [c]

    async def test_other_queues_are_left_alone(self, world: World, worker: Member):
        await world.put(world.job(queue=world.queue + "other"))
        assert await worker.claim(5) == []

    async def test_a_step_claims_no_more_than_wanted(self, world: World, worker: Member):
        for want in (0, 1, 4, 5, 6, 1000):
            await world.put(count=5)
            assert len(await worker.claim(want)) == min(want, 5)
            await worker.claim(9)

    async def test_thousands_are_taken_in_order(self, world: World, worker: Member):
        ids = await world.put(count=2300)
        first = await worker.claim(1000)
        second = await worker.claim(1000, *(world.done(d.id) for d in first))
        third = await worker.claim(1000, *(world.done(d.id) for d in second))
        assert ids_of([*first, *second, *third]) == ids

    async def test_two_workers_share_without_overlap(self, world: World, worker: Member):
        other = await world.join()
        ids = await world.put(count=40)
        parts = await asyncio.gather(worker.claim(15), other.claim(15))
        parts += await asyncio.gather(worker.claim(15), other.claim(15))
        assert sorted(job_id for part in parts for job_id in ids_of(part)) == ids

    async def test_a_delivery_carries_the_job(self, world: World, worker: Member):
        options = {"timeout": 2.5, "max_attempts": 7, "note": "ü", "none": None}
        payload = bytes(range(256)) + b"\r\n\x00"
        (job_id,) = await world.put(world.job(payload, priority=2, options=options))
        delivery = await worker.claim_one()
        assert (delivery.id, delivery.queue, delivery.payload) == (job_id, world.queue, payload)
        assert (delivery.priority, delivery.options) == (2, options)
        assert (delivery.attempt, delivery.deliveries, delivery.put_back, delivery.cancel_asked) == (1, 0, 0, False)

    @pytest.mark.parametrize("option", ["expires", "deadline"])
    async def test_a_delivery_that_may_be_late_says_since_when(self, world: World, worker: Member, option: str):
        await world.pass_time(0.05)
        before = (await worker.step()).now_ms
        await world.put(world.job(options={option: 5.0}))
        after = (await worker.step()).now_ms
        await world.pass_time(0.05)
        delivery = await worker.claim_one()
        assert before <= delivery.enqueued_ms <= after
        await worker.step(0, world.done(delivery.id, Op.RETRY, 0))
        assert (await worker.claim_one()).enqueued_ms == delivery.enqueued_ms
        await worker.leave(crashed=True)
        assert (await (await world.join()).claim_one()).enqueued_ms == delivery.enqueued_ms

    async def test_nothing_to_claim(self, world: World, worker: Member):
        claimed = await worker.step(3)
        assert (claimed.deliveries, claimed.next_due_ms, claimed.held) == ([], -1, None)


class TestUnique:
    @pytest.fixture
    def ask(self, world: World):
        async def ask(key: str = "k", **more) -> Receipt | str:
            (receipt,) = await world.broker.enqueue([world.job(options={"unique": world.queue + key}, **more)])
            return receipt.id if isinstance(receipt, Twin) else receipt

        return ask

    async def test_a_second_is_not_taken_in(self, world: World, ask):
        (first,) = await world.put(world.job(options={"unique": world.queue + "k"}))
        assert await ask() == await ask(queue=world.queue + "other", delay_s=60) == first
        assert await ask("another") == Receipt.ACCEPTED
        assert (await world.counts()).enqueued == 2

    async def test_a_repeat_of_itself_is_known(self, world: World):
        job = world.job(options={"unique": world.queue})
        assert await world.broker.enqueue([job, job]) == [Receipt.ACCEPTED, Receipt.KNOWN]
        assert await world.broker.enqueue([job]) == [Receipt.KNOWN]

    async def test_in_one_call(self, world: World):
        jobs = [world.job(options={"unique": world.queue}) for _ in range(3)]
        twin = Twin(jobs[0].id)
        assert await world.broker.enqueue([*jobs, world.job()]) == [Receipt.ACCEPTED, twin, twin, Receipt.ACCEPTED]

    @pytest.mark.parametrize("op", ENDS)
    async def test_free_when_it_ends(self, world: World, worker: Member, ask, op: Op):
        assert await ask() == Receipt.ACCEPTED
        delivery = await worker.claim_one()
        assert await ask() == delivery.id
        await worker.step(0, Settled(delivery.id, op, delivery.queue, TTL, b"", delivery.plain))
        assert await ask() == Receipt.ACCEPTED

    async def test_held_while_it_comes_back(self, world: World, worker: Member, ask):
        assert await ask() == Receipt.ACCEPTED
        for op in (Op.RETRY, Op.SNOOZE, Op.PUT_BACK, Op.RELEASE):
            job_id = (await worker.claim_one()).id
            await worker.step(0, world.done(job_id, op, 0))
            assert await ask() == job_id
        await worker.claim_one()
        await worker.leave(crashed=True)
        assert await ask() == job_id

    async def test_free_when_it_is_cancelled_or_its_workers_die(self, world: World, worker: Member, ask):
        assert await ask() == Receipt.ACCEPTED
        await world.broker.cancel(await ask())
        assert await ask() == Receipt.ACCEPTED
        await worker.claim_one()
        await worker.leave(crashed=True, max_deliveries=1)
        assert await ask() == Receipt.ACCEPTED


class TestAdmin:
    async def test_a_paused_queue_hands_out_nothing(self, world: World, worker: Member):
        admin = admin_of(world)
        other = world.queue + "other"
        running, waits = await world.put(count=2)
        (elsewhere,) = await world.put(world.job(queue=other))
        (delayed,) = await world.put(world.job(delay_s=0.05))
        await worker.claim_one()
        await admin.pause(world.queue)
        assert (await world.counts()).paused
        await world.pass_time(0.06)
        claimed = await worker.step(9, world.done(running), queues=[world.queue, other])
        assert ids_of(claimed.deliveries) == [elsewhere]
        assert await world.state(running) is State.SUCCEEDED
        await worker.step(9, world.done(elsewhere))
        assert [await world.state(job_id) for job_id in (waits, delayed)] == [State.QUEUED] * 2
        more = await world.put_one()
        assert await world.broker.cancel(more) is State.QUEUED
        await admin.resume(world.queue)
        assert not (await world.counts()).paused
        assert ids_of(await worker.claim(9)) == [waits, delayed]

    async def test_whoever_sleeps_hears_that_a_queue_goes_on(self, world: World, worker: Member):
        admin = admin_of(world)
        for _ in range(2):
            await admin.pause(world.queue)
        await world.put_one()
        await worker.step(1, idle=True)
        worker.notices.clear()
        for _ in range(2):
            await admin.resume(world.queue)
        await worker.told("")

    async def test_a_bounded_queue_refuses_what_finds_no_room(self, world: World, worker: Member):
        admin = admin_of(world)
        await admin.bound(world.queue, 3)
        assert (await world.counts()).most == 3
        await world.put(world.job(), world.job(delay_s=60))
        jobs = [world.job() for _ in range(3)]
        accepted, full = Receipt.ACCEPTED, Receipt.FULL
        assert await world.broker.enqueue(jobs) == [accepted, full, full]
        assert await world.broker.enqueue([world.job(delay_s=60), jobs[0]]) == [full, Receipt.KNOWN]
        assert await world.broker.enqueue([world.job(queue=world.queue + "other")]) == [accepted]
        assert (await world.counts()).enqueued == 3
        delivery = await worker.claim_one()
        assert await world.broker.enqueue(jobs) == [Receipt.KNOWN, accepted, full]
        await worker.step(0, world.done(delivery.id, Op.RELEASE))
        assert (await world.counts()).queued == 3, "what comes back finds room"
        await admin.bound(world.queue, None)
        assert (await world.counts()).most is None
        await world.put(jobs[2])

    async def test_a_parent_and_its_children_find_room(self, world: World, feeder: Member):
        await admin_of(world).bound(world.queue, 0)
        await world.parent(feeder, 3)

    async def test_what_failed_is_a_dead_letter_and_comes_back_once(self, world: World, worker: Member):
        admin = admin_of(world)
        job_id, other = await world.put(world.job(b"the call", priority=3, options={"timeout": 7}), world.job())
        await worker.claim(2)
        await worker.leave(crashed=True)
        worker = await world.join()
        await worker.claim(2)
        await worker.step(0, world.done(job_id, Op.RETRY, 0), world.done(other))
        await worker.claim_one()
        await worker.step(0, world.done(job_id, Op.FAILED))
        assert await admin.dead() == [job_id]
        found = await world.found(job_id)
        assert (found.state, found.queue, found.priority, found.payload) == (State.FAILED, world.queue, 3, b"the call")
        assert (found.deliveries, found.record) == (1, b"record")
        unknown = world.new_id()
        for _ in range(2):
            assert await admin.replay([job_id, other, unknown]) == [True, False, False]
        assert await admin.dead() == []
        delivery = await worker.claim_one()
        assert (delivery.id, delivery.payload, delivery.priority) == (job_id, b"the call", 3)
        assert (delivery.options, delivery.attempt, delivery.deliveries) == ({"timeout": 7}, 1, 0)
        assert await worker.claim(9) == []
        await worker.step(0, world.done(job_id))
        assert await world.state(job_id) is State.SUCCEEDED
        assert await admin.replay([job_id]) == [False]
        counts = await world.counts()
        assert (counts.enqueued, counts.failed, counts.succeeded) == (3, 1, 2)

    async def test_a_job_whose_workers_died_is_one_too(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        await worker.leave(crashed=True, max_deliveries=1)
        assert await admin_of(world).dead() == [job_id]
        assert await admin_of(world).replay([job_id]) == [True]

    async def test_a_dead_letter_may_find_no_way_back(self, world: World, worker: Member):
        admin, unique = admin_of(world), {"unique": world.queue}
        (job_id,) = await world.put(world.job(options=unique))
        await worker.claim_one()
        await worker.step(0, world.done(job_id, Op.FAILED))
        await world.put(world.job(options=unique))
        assert await admin.replay([job_id]) == [False]
        await worker.step(0, world.done((await worker.claim_one()).id))
        await admin.bound(world.queue, 0)
        assert await admin.replay([job_id]) == [False]
        assert await admin.dead() == [job_id]
        await admin.bound(world.queue, 1)
        assert await admin.replay([job_id]) == [True]

    async def test_who_waits_for_a_replayed_job_is_told(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        await worker.step(0, world.done(job_id, Op.FAILED))
        await admin_of(world).replay([job_id])
        wait = asyncio.create_task(world.broker.wait([job_id], 10))
        await worker.step(0, world.done((await worker.claim_one()).id))
        assert await wait == [Ended(State.SUCCEEDED, b"record")]

    async def test_what_is_purged_is_known_to_nobody(self, world: World, worker: Member):
        admin = admin_of(world)
        job_id, cancelled = await world.put(count=2)
        await worker.claim(2)
        await worker.step(0, world.done(job_id, Op.FAILED), world.done(cancelled, Op.CANCELLED))
        for _ in range(2):
            await admin.purge([job_id, cancelled, world.new_id()])
        assert await admin.dead() == []
        assert await world.broker.find([job_id]) == [None]
        assert await world.state(cancelled) is State.CANCELLED
        assert await admin.replay([job_id]) == [False]

    async def test_who_is_no_dead_letter(self, world: World, worker: Member, feeder: Member):
        parent, (child,) = await world.parent(feeder, 1)
        unkept = await world.put_one()
        await worker.claim(2)
        await worker.step(0, world.done(child, Op.FAILED), world.done(unkept, Op.FAILED, 0))
        assert ids_of(await worker.claim(1)) == [parent]
        await worker.step(0, world.done(parent, Op.FAILED))
        assert await admin_of(world).dead() == []

    async def test_a_dead_letter_is_kept_as_long_as_its_failure(self, world: World, worker: Member):
        first, second = await world.put(count=2)
        await worker.claim(2)
        await worker.step(0, world.done(first, Op.FAILED, 1), world.done(second, Op.FAILED, 600))
        assert await admin_of(world).dead() == [first, second]
        await world.pass_time(1.1)
        assert await admin_of(world).dead() == [second]
        assert await admin_of(world).replay([first]) == [False]

    async def test_which_queues_there_are(self, world: World):
        admin, names = admin_of(world), [world.queue + letter for letter in "abc"]
        assert not set(names) & set(await admin.queues())
        await world.put(world.job(queue=names[2]))
        await admin.pause(names[1])
        await admin.bound(names[0], 5)
        assert [name for name in await admin.queues() if name in names] == names


class TestStrikes:
    async def test_made_changed_and_lifted(self, world: World) -> None:
        admin, name = admin_of(world), world.new_id()
        assert await admin.strike(name, b"one")
        assert not await admin.strike(name, b"two")
        assert (await admin.strikes())[name] == b"two"
        assert await admin.strike(name, None)
        assert not await admin.strike(name, None)
        assert name not in await admin.strikes()


class TestSchedules:
    async def test_set_changed_and_lifted(self, world: World) -> None:
        admin, name = admin_of(world), world.new_id()
        assert await admin.schedule(name, b"one")
        texts, ticks = await admin.schedules()
        assert texts[name] == b"one"
        assert ticks[name] > 0, "its ticks count from now"
        assert not await admin.schedule(name, b"two")
        texts, after = await admin.schedules()
        assert (texts[name], after[name]) == (b"two", ticks[name])
        assert await admin.schedule(name, None)
        assert not await admin.schedule(name, None)
        assert name not in (await admin.schedules())[0]
        assert name not in (await admin.schedules())[1]

    async def test_each_tick_once(self, world: World) -> None:
        admin, name = admin_of(world), world.new_id()
        receipts = await asyncio.gather(*(admin.fire(name, 5000, world.job()) for _ in range(10)))
        assert sorted(receipts, key=str) == [None] * 9 + [Receipt.ACCEPTED]
        assert await admin.fire(name, 4999, world.job()) is None
        assert await admin.fire(name, 6000, world.job()) is Receipt.ACCEPTED
        assert (await admin.schedules())[1][name] == 6000
        assert (await world.broker.depth([world.queue])).queues[world.queue].enqueued == 2

    async def test_a_tick_that_finds_no_room_has_not_fired(self, world: World) -> None:
        admin, name = admin_of(world), world.new_id()
        await admin.bound(world.queue, 0)
        assert await admin.fire(name, 5000, world.job()) is Receipt.FULL
        await admin.bound(world.queue, None)
        assert await admin.fire(name, 5000, world.job()) is Receipt.ACCEPTED

    async def test_a_tick_whose_job_has_a_twin_is_over(self, world: World) -> None:
        admin, name = admin_of(world), world.new_id()
        unique = {"unique": world.new_id()}
        first = world.job(options=unique)
        assert await admin.fire(name, 5000, first) is Receipt.ACCEPTED
        assert await admin.fire(name, 6000, world.job(options=unique)) == Twin(first.id)
        assert await admin.fire(name, 6000, world.job()) is None
        assert await admin.fire(name, 7000, first) is Receipt.KNOWN


class TestSettle:
    @pytest.mark.parametrize("op", ENDS)
    async def test_each_end(self, world: World, worker: Member, op: Op):
        job_id = await world.put_one()
        await worker.claim_one()
        await worker.step(0, world.done(job_id, op))
        assert await world.broker.wait([job_id], 0) == [Ended(ENDS[op], b"record")]
        found = await world.found(job_id)
        assert (found.state, found.record) == (ENDS[op], b"record")
        assert found.payload == (b"call" if op is Op.FAILED else b"")
        assert getattr(await world.counts(), ENDS[op]) == 1
        assert await worker.claim(5) == []

    @pytest.mark.parametrize("plain", [False, True])
    async def test_s51_falsy_results_complete_once(self, world: World, worker: Member, plain: bool):
        values = [0, "", [], {}, None, False, 0.0, b""]
        ids = await world.put(count=len(values))
        deliveries = await worker.claim(9)
        settled = [
            Settled(d.id, Op.SUCCEEDED, d.queue, TTL, pack(Record(value=value)), plain and d.plain)
            for d, value in zip(deliveries, values, strict=True)
        ]
        assert await worker.claim(9, *settled) == []
        ended = await world.broker.wait(ids, 0)
        assert [one and one.state for one in ended] == [State.SUCCEEDED] * len(values)
        assert [unpack_record(one.record).value for one in ended if one] == values
        assert await worker.claim(9) == []
        assert (await world.counts()).succeeded == len(values)

    @pytest.mark.parametrize("op", ENDS)
    async def test_records_are_not_touched(self, world: World, worker: Member, op: Op):
        records = [b"", b"\x00", b"\r\n$5\r\n", b"s", b"0", bytes(range(256)), b"\xff" * 200_000]
        ids = await world.put(count=len(records))
        await worker.claim(9)
        await worker.step(
            0, *(world.done(job_id, op, TTL, record) for job_id, record in zip(ids, records, strict=True))
        )
        assert await world.broker.wait(ids, 0) == [Ended(ENDS[op], record) for record in records]

    async def test_many_at_once(self, world: World, worker: Member):
        await world.put(count=1000)
        deliveries = await worker.claim(1000)
        assert await worker.claim(10, *(world.done(d.id) for d in deliveries)) == []
        assert (await world.counts()).succeeded == 1000

    async def test_settle_and_claim_in_one_step(self, world: World, worker: Member):
        first, second = await world.put(count=2)
        await worker.claim_one()
        assert ids_of(await worker.claim(1, world.done(first))) == [second]

    @pytest.mark.parametrize("op", [op for op in Op if op not in {*UNSETTLED, Op.SEAL, Op.GATE}])
    async def test_twice_is_applied_once(self, world: World, worker: Member, op: Op):
        job_id = await world.put_one()
        await worker.claim_one()
        settled = world.done(job_id, op, 60_000)
        await worker.step(0, settled, settled)
        before, state = await world.counts(), await world.state(job_id)
        await worker.step(0, settled, world.done(job_id, Op.FAILED, value=b"late"))
        assert await world.counts() == before
        assert await world.state(job_id) is state

    async def test_the_first_of_two_ends_stands(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        await worker.step(0, world.done(job_id), world.done(job_id, Op.FAILED, value=b"late"))
        assert await world.broker.wait([job_id], 0) == [Ended(State.SUCCEEDED, b"record")]
        counts = await world.counts()
        assert (counts.succeeded, counts.failed) == (1, 0)

    @pytest.mark.parametrize("op", [Op.RETRY, Op.SNOOZE, Op.PUT_BACK, Op.RELEASE, None])
    async def test_a_checkpoint_goes_to_the_next_attempt(self, world: World, worker: Member, op: Op | None):
        job_id = await world.put_one()
        assert (await worker.claim_one()).checkpoint == ""
        await worker.step(0, world.done(job_id, Op.CHECKPOINT, 0, b"Zmlyc3Q="))
        await worker.step(0, world.done(job_id, Op.CHECKPOINT, 0, b"c2Vjb25k"))
        assert await world.state(job_id) is State.RUNNING
        if op is None:
            await worker.leave(crashed=True)
            worker = await world.join()
        else:
            await worker.step(0, world.done(job_id, op, 0))
        again = await worker.claim_one()
        assert (again.id, again.checkpoint, again.plain) == (job_id, "c2Vjb25k", True)
        await worker.step(0, msgspec.structs.replace(world.done(job_id), plain=True))
        assert await world.state(job_id) is State.SUCCEEDED

    async def test_a_checkpoint_is_that_of_who_holds_the_job(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        checkpoint = world.done(job_id, Op.CHECKPOINT, 0, b"bWluZQ==")
        await worker.leave(crashed=True)
        with pytest.raises(LeaseLost):
            await worker.step(0, checkpoint)
        other = await world.join()
        assert (await other.claim_one()).checkpoint == ""
        await (await world.join()).step(0, checkpoint)
        await other.step(0, world.done(job_id, Op.RETRY, 0))
        assert (await other.claim_one()).checkpoint == ""

    async def test_what_a_job_says_of_its_progress_is_seen_until_it_is_over(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        for text in (b"1 ", b"2 4"):
            await worker.step(0, world.done(job_id, Op.PROGRESS, 0, text))
            (found,) = await world.broker.find([job_id])
            assert (found.state, found.progress) == (State.RUNNING, text.decode())
        await (await world.join()).step(0, world.done(job_id, Op.PROGRESS, 0, b"9 9"))
        assert (await world.broker.find([job_id]))[0].progress == "2 4"
        await worker.step(0, world.done(job_id))
        assert (await world.broker.find([job_id]))[0].progress == ""

    async def test_a_checkpoint_goes_when_its_job_is_over(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        await worker.step(0, world.done(job_id, Op.CHECKPOINT, 0, b"bWluZQ=="), world.done(job_id, Op.FAILED))
        assert await admin_of(world).replay([job_id]) == [True]
        assert (await worker.claim_one()).checkpoint == ""

    @pytest.mark.parametrize("op", [*ENDS, Op.RETRY, Op.RELEASE])
    async def test_what_another_holds_is_not_settled(self, world: World, worker: Member, op: Op):
        job_id = await world.put_one()
        await worker.claim_one()
        other = await world.join()
        await other.step(0, world.done(job_id, op), world.done(world.new_id(), op))
        assert await world.state(job_id) is State.RUNNING
        await worker.step(0, world.done(job_id))
        assert await world.state(job_id) is State.SUCCEEDED

    async def test_retry(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        now_ms = (await worker.step(0, world.done(job_id, Op.RETRY, 60_000, "oh nö".encode()))).now_ms
        found = await world.found(job_id)
        assert (found.state, found.attempt, found.error) == (State.RETRYING, 1, "oh nö")
        assert found.due_s == pytest.approx(now_ms / 1000 + 60, abs=1)
        counts = await world.counts()
        assert (counts.retried, counts.scheduled, counts.queued) == (1, 1, 0)

    @pytest.mark.parametrize(("op", "attempt", "put_back"), [(Op.RETRY, 2, 0), (Op.SNOOZE, 1, 0), (Op.PUT_BACK, 1, 1)])
    @pytest.mark.parametrize("delay_ms", [0, 30])
    async def test_what_runs_again(
        self, world: World, worker: Member, op: Op, attempt: int, put_back: int, delay_ms: int
    ):
        job_id = await world.put_one()
        await worker.claim_one()
        await worker.step(0, world.done(job_id, op, delay_ms, b"why"))
        await world.pass_time(delay_ms / 1000)
        delivery = await worker.claim_one()
        assert (delivery.id, delivery.attempt, delivery.put_back) == (job_id, attempt, put_back)
        assert (delivery.deliveries, delivery.payload) == (0, b"call")
        await worker.step(0, world.done(job_id))
        assert await world.state(job_id) is State.SUCCEEDED
        assert (await world.counts()).retried == (op is Op.RETRY)

    async def test_attempts_and_put_backs_add_up(self, world: World, worker: Member):
        job_id = await world.put_one()
        for op in (Op.RETRY, Op.PUT_BACK, Op.SNOOZE, Op.RETRY, Op.PUT_BACK, Op.RELEASE):
            await worker.claim_one()
            await worker.step(0, world.done(job_id, op, 0))
        delivery = await worker.claim_one()
        assert (delivery.attempt, delivery.put_back) == (3, 2)
        assert (await world.counts()).retried == 2

    @pytest.mark.parametrize("op", [Op.SNOOZE, Op.PUT_BACK])
    async def test_what_waits_again_is_told_apart(self, world: World, worker: Member, op: Op):
        job_id = await world.put_one()
        await worker.claim_one()
        await worker.step(0, world.done(job_id, op, 60_000))
        assert await world.state(job_id) in {State.SCHEDULED, State.RETRYING}
        assert (await world.counts()).scheduled == 1

    async def test_release_goes_to_the_head(self, world: World, worker: Member):
        first, *rest = await world.put(count=4)
        await worker.claim_one()
        await worker.step(0, world.done(first, Op.RELEASE))
        found = await world.found(first)
        assert (found.state, found.attempt) == (State.QUEUED, 0)
        deliveries = await worker.claim(4)
        assert ids_of(deliveries) == [first, *rest]
        assert (deliveries[0].attempt, deliveries[0].deliveries, deliveries[0].put_back) == (1, 0, 0)

    async def test_released_jobs_keep_their_order(self, world: World, worker: Member):
        ids = await world.put(count=5)
        await worker.claim(3)
        await worker.step(0, *(world.done(job_id, Op.RELEASE) for job_id in ids[:3]))
        assert ids_of(await worker.claim(5)) == ids


class TestResults:
    async def test_a_result_is_forgotten_after_its_time(self, world: World, worker: Member):
        ids = await world.put(count=4)
        await worker.claim(4)
        await worker.step(0, *(world.done(job_id, op, 1) for job_id, op in zip(ids, ENDS, strict=True)))
        (kept,) = await world.put(world.job(id=Ids()()))  # not of the same block: a broker may keep neighbours together
        await worker.claim_one()
        await worker.step(0, world.done(kept))
        assert await world.broker.wait(ids, 0) == [Ended(state, b"record") for state in ENDS.values()]
        if world.clock:
            world.clock.advance(1)

        async def all_gone() -> bool:
            return await world.broker.find(ids) == [None] * 4

        await until(all_gone)
        for job_id in ids:
            with pytest.raises(JobNotFound):
                await world.broker.wait([job_id], 0)
            assert await world.broker.cancel(job_id) is None
        assert await world.state(kept) is State.SUCCEEDED
        assert await world.broker.enqueue([world.job(id=ids[0])]) == [Receipt.ACCEPTED]

    async def test_without_a_time_only_who_waits_is_told(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(world.broker.wait([job_id], 10))
            await until_waiting(world, job_id)
            await worker.step(0, world.done(job_id, number=0))
        assert waiting.result() == [Ended(State.SUCCEEDED, b"record")]
        assert await world.broker.find([job_id]) == [None]
        with pytest.raises(JobNotFound):
            await world.broker.wait([job_id], 0)


async def until_waiting(world: World, job_id: str) -> None:
    """Return when a wait that was started before is certainly known to the broker: a round trip or two later."""
    for _ in range(3):
        await world.broker.wait([job_id], 0)
        await asyncio.sleep(0.005)


class TestEnqueue:
    async def test_repeats_add_nothing(self, world: World, worker: Member):
        job = world.job()
        assert await world.broker.enqueue([job, job]) == [Receipt.ACCEPTED, Receipt.KNOWN]
        assert await world.broker.enqueue([job]) == [Receipt.KNOWN]
        assert ids_of(await worker.claim(5)) == [job.id]
        assert await world.broker.enqueue([job]) == [Receipt.KNOWN]
        await worker.step(0, world.done(job.id, Op.RETRY, 60_000))
        assert await world.broker.enqueue([job]) == [Receipt.KNOWN]
        assert await worker.claim(5) == []
        counts = await world.counts()
        assert (counts.enqueued, counts.queued, counts.scheduled) == (1, 0, 1)

    @pytest.mark.parametrize("op", ENDS)
    async def test_an_id_is_known_as_long_as_its_result(self, world: World, worker: Member, op: Op):
        job = world.job()
        await world.put(job)
        await worker.claim_one()
        await worker.step(0, world.done(job.id, op))
        assert await world.broker.enqueue([job]) == [Receipt.KNOWN]
        assert await worker.claim(5) == []

    async def test_repeats_at_the_same_time_add_nothing(self, world: World, worker: Member):
        job = world.job()
        receipts = await asyncio.gather(*(world.broker.enqueue([job]) for _ in range(5)))
        assert sorted(receipt for (receipt,) in receipts) == sorted([Receipt.ACCEPTED] + [Receipt.KNOWN] * 4)
        assert len(await worker.claim(5)) == 1

    async def test_a_repeat_does_not_change_the_job(self, world: World, worker: Member):
        job_id = await world.put_one(payload=b"first", priority=3)
        assert await world.broker.enqueue([world.job(b"second", id=job_id, priority=8, delay_s=60)]) == [Receipt.KNOWN]
        delivery = await worker.claim_one()
        assert (delivery.payload, delivery.priority) == (b"first", 3)

    async def test_nothing_is_something(self, world: World):
        assert await world.broker.enqueue([]) == []

    async def test_too_big(self, world: World, worker: Member):
        jobs = [world.job(), world.job(bytes(MAX_PAYLOAD_BYTES + 1))]
        with pytest.raises(JobTooBig):
            await world.broker.enqueue(jobs)
        assert await worker.claim(5) == []
        assert (await world.counts()).enqueued == 0


class TestEpoch:
    async def test_epochs_are_never_the_same(self, world: World):
        epochs = [(await world.join()).epoch for _ in range(20)]
        assert len(set(epochs)) == 20
        assert set((await world.broker.depth([])).workers) == set(epochs)

    async def test_the_card_is_shown(self, world: World):
        member = await world.join("a", "b", role="feeder", lease_s=2.5)
        card = (await world.broker.depth([])).workers[member.epoch]
        assert (card.host, card.pid, card.queues, card.concurrency) == ("here", 7, ("a", "b"), 3)
        assert (card.lease_s, card.started_s, card.version, card.role) == (2.5, 1.5, "1", "feeder")

    async def test_an_unknown_epoch_has_no_lease(self, world: World):
        stranger = Member(world, "nobody")
        await world.put_one()
        with pytest.raises(LeaseLost):
            await stranger.step(1)
        with pytest.raises(LeaseLost):
            await stranger.beat()
        assert await stranger.leave() == -1

    async def test_a_reaped_epoch_can_do_nothing(self, world: World, worker: Member):
        held, waiting = await world.put(count=2)
        await worker.claim_one()
        assert await worker.leave(crashed=True) == 1
        before = await world.counts()
        with pytest.raises(LeaseLost):
            await worker.step(5, world.done(held))
        with pytest.raises(LeaseLost):
            await worker.beat()
        assert await world.counts() == before
        assert (await world.state(held), await world.state(waiting)) == (State.QUEUED, State.QUEUED)
        assert await worker.leave() == -1

    async def test_a_late_end_does_not_count_against_the_next_owner(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        await worker.leave(crashed=True)
        other = await world.join()
        await other.claim_one()
        with pytest.raises(LeaseLost):
            await worker.step(0, world.done(job_id, value=b"zombie"))
        await other.step(0, world.done(job_id, value=b"owner"))
        assert await world.broker.wait([job_id], 0) == [Ended(State.SUCCEEDED, b"owner")]

    async def test_sweepers_see_all_beats(self, world: World, worker: Member):
        other = await world.join(lease_s=2.5)
        beats = await worker.beat() or await other.beat()
        assert beats is not None, "a fleet has at least one sweeper"
        assert set(beats) == {worker.epoch, other.epoch}
        assert beats[worker.epoch].endswith(":30000")
        assert beats[other.epoch].endswith(":2500")

    async def test_a_beat_is_seen(self, world: World, worker: Member):
        other = await world.join()
        sweeper, watched = (worker, other) if await worker.beat() else (other, worker)
        before = await sweeper.beat()
        await watched.beat()
        after = await sweeper.beat()
        assert before[watched.epoch] != after[watched.epoch]
        assert (await sweeper.beat())[watched.epoch] == after[watched.epoch]

    async def test_who_has_beaten_since_is_not_reaped(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        sweeper = await world.join()
        beats = await sweeper.beat() or await worker.beat()
        await worker.beat()
        assert await world.broker.reap(worker.epoch, beats[worker.epoch], crashed=True) == -1
        await worker.beat()
        assert await world.state(job_id) is State.RUNNING
        await worker.step(0, world.done(job_id))
        assert await world.state(job_id) is State.SUCCEEDED

    async def test_whose_beat_stands_still_is_reaped(self, world: World, worker: Member):
        await world.put(count=3)
        await worker.claim(2)
        sweeper = await world.join()
        beats = await sweeper.beat() or await worker.beat()
        beats = await sweeper.beat() or beats
        assert await world.broker.reap(worker.epoch, beats[worker.epoch], crashed=True) == 2
        assert await world.broker.reap(worker.epoch, beats[worker.epoch], crashed=True) == -1
        assert worker.epoch not in (await world.broker.depth([])).workers

    @pytest.mark.parametrize("crashed", [False, True])
    async def test_jobs_come_back_in_order_and_first(self, world: World, worker: Member, crashed: bool):
        ids = await world.put(count=30)
        assert ids_of(await worker.claim(12)) == ids[:12]
        assert await worker.leave(crashed=crashed) == 12
        assert ids_of(await (await world.join()).claim(30)) == ids

    async def test_a_crash_counts_a_delivery_and_no_attempt(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        await worker.leave(crashed=True)
        found = await world.found(job_id)
        assert (found.state, found.deliveries, found.attempt) == (State.QUEUED, 1, 0)
        second = await world.join()
        delivery = await second.claim_one()
        assert (delivery.deliveries, delivery.attempt) == (1, 1)
        await second.leave(crashed=True)
        third = await world.join()
        delivery = await third.claim_one()
        assert (delivery.deliveries, delivery.attempt) == (2, 1)
        assert (await world.counts()).redelivered == 2

    async def test_handing_back_spends_nothing(self, world: World, worker: Member):
        job_id = await world.put_one()
        for _ in range(4):
            member = await world.join()
            delivery = await member.claim_one()
            assert (delivery.id, delivery.deliveries, delivery.attempt) == (job_id, 0, 1)
            assert await member.leave(crashed=False, max_deliveries=1) == 1
        counts = await world.counts()
        assert (counts.queued, counts.redelivered, counts.failed) == (1, 0, 0)

    async def test_handing_back_never_fails_a_job(self, world: World, worker: Member):
        job_id = await world.put_one()
        for crashed in (True, False):
            member = await world.join()
            await member.claim_one()
            await member.leave(crashed=crashed, max_deliveries=2 if crashed else 1)
        found = await world.found(job_id)
        assert (found.state, found.deliveries) == (State.QUEUED, 1)

    async def test_a_job_that_kills_its_workers_fails(self, world: World, worker: Member):
        job_id, good = await world.put(count=2, payload=pack_call("mail", (), {}))
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(world.broker.wait([job_id], 10))
            for n in range(3):
                member = await world.join()
                assert (await member.claim_one()).id == job_id
                assert await member.leave(crashed=True, max_deliveries=3) == 1
                assert (await world.state(job_id)).terminal == (n == 2)
        (ended,) = waiting.result()
        assert ended is not None
        assert ended.state is State.FAILED
        record = unpack_record(ended.record)
        assert record.reason == Reason.WORKER_LOST
        assert record.error_text
        assert (record.task, record.queue, record.attempt) == ("mail", world.queue, 1)
        assert record.ended_s > 0
        counts = await world.counts()
        assert (counts.failed, counts.redelivered, counts.queued) == (1, 2, 1)
        assert ids_of(await worker.claim(5)) == [good]

    @pytest.mark.parametrize(("own", "argument", "lives"), [(1, 3, 1), (2, 1, 2), (4, 1, 4)])
    async def test_its_own_max_deliveries_goes_first(self, world: World, own: int, argument: int, lives: int):
        job_id = await world.put_one(options={"max_deliveries": own - APART})
        for n in range(lives):
            member = await world.join()
            assert (await member.claim_one()).deliveries == n
            await member.leave(crashed=True, max_deliveries=argument)
        assert await world.state(job_id) is State.FAILED

    async def test_asked_to_cancel_and_then_the_worker_died(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        await world.broker.cancel(job_id)
        await worker.leave(crashed=True)
        assert await world.state(job_id) is State.CANCELLED
        assert await (await world.join()).claim(5) == []

    async def test_beats_come_from_another_thread(self, world: World, worker: Member):
        async def come_and_go() -> None:
            for _ in range(20):
                await (await world.join()).leave()

        def beat() -> None:
            for _ in range(50):
                world.broker.beat(worker.epoch)

        await asyncio.gather(asyncio.to_thread(beat), come_and_go())
        await worker.step(1)


class TestParents:
    async def test_a_held_job_is_born_running(self, world: World, worker: Member, feeder: Member):
        parent, _ = await world.parent(feeder)
        found = await world.found(parent)
        assert found.state is State.RUNNING
        assert found.children == Progress(total=0, done=0, failed=0, units=0, sealed=False, over=False)
        assert await worker.claim(5) == []
        depth = await world.broker.depth([world.queue])
        assert (depth.running, depth.queues[world.queue].queued) == (1, 0)

    async def test_an_epoch_that_is_gone_holds_nothing(self, world: World, worker: Member, feeder: Member):
        await feeder.leave()
        jobs = [world.job(hold=feeder.epoch), world.job(hold="nobody")]
        assert await world.broker.enqueue(jobs) == [Receipt.CLOSED] * 2
        assert await world.broker.find([job.id for job in jobs]) == [None, None]
        assert await worker.claim(5) == []

    async def test_a_parent_waits_for_its_children(self, world: World, worker: Member, feeder: Member):
        parent, children = await world.parent(feeder, 3)
        deliveries = await worker.claim(9)
        assert ids_of(deliveries) == children
        await feeder.step(0, world.done(parent, Op.SEAL))
        for n, child in enumerate(children):
            assert await world.state(parent) is State.BLOCKED
            assert await worker.claim(9) == []
            assert await worker.claim(0, world.done(child, number=10 + n)) == []
        assert await world.state(parent) is State.QUEUED
        assert (await world.found(parent)).children == Progress(3, 3, 0, units=33, sealed=True, over=True)
        delivery = await worker.claim_one()
        assert (delivery.id, delivery.payload, delivery.attempt, delivery.deliveries) == (parent, b"call", 1, 0)
        await worker.step(0, world.done(parent, value=b"sum"))
        assert await world.broker.wait([parent], 0) == [Ended(State.SUCCEEDED, b"sum")]
        counts = await world.counts()
        assert (counts.enqueued, counts.succeeded, counts.queued) == (4, 4, 0)

    async def test_the_last_child_releases_its_parent_in_the_same_step(
        self, world: World, worker: Member, feeder: Member
    ):
        parent, (child,) = await world.parent(feeder, 1)
        await feeder.step(0, world.done(parent, Op.SEAL))
        await worker.claim_one()
        assert ids_of(await worker.claim(1, world.done(child))) == [parent]

    async def reducing(self, world: World, worker: Member, feeder: Member, count: int) -> tuple[str, list[str]]:
        """Return a parent whose one child is over, opened again in the hands of *worker*, and its steps."""
        parent, (child,) = await world.parent(feeder, 1)
        await feeder.step(0, world.done(parent, Op.SEAL))
        await worker.claim_one()
        assert ids_of(await worker.claim(1, world.done(child, number=5))) == [parent]
        await worker.step(0, world.done(parent, Op.OPEN))
        steps = [child_id(parent, 100 + n) for n in range(count)]
        assert await world.broker.enqueue([world.job(id=step) for step in steps]) == [Receipt.ACCEPTED] * count
        return parent, steps

    async def test_a_released_parent_takes_steps(self, world: World, worker: Member, feeder: Member):
        parent, steps = await self.reducing(world, worker, feeder, 2)
        assert ids_of(await feeder.claim(1)) == steps[:1]
        await feeder.step(0, world.done(steps[0], number=0, value=b"one"))
        await worker.step(0, world.done(parent, Op.SEAL))
        assert await world.state(parent) is State.BLOCKED
        assert (await world.found(parent)).children == Progress(1, 1, 0, units=5, sealed=True, over=False)
        assert ids_of(await feeder.claim(2)) == steps[1:]
        assert ids_of(await worker.claim(1, *())) == []
        assert ids_of(await feeder.claim(1, world.done(steps[1], number=0, value=b"two"))) == [parent]
        assert (await world.found(parent)).children == Progress(1, 1, 0, units=5, sealed=True, over=True)
        assert await world.broker.wait(steps, 0) == [Ended(State.SUCCEEDED, b"one"), Ended(State.SUCCEEDED, b"two")]
        assert await world.broker.enqueue([world.job(id=child_id(parent, 200))]) == [Receipt.CLOSED]
        await feeder.step(0, world.done(parent, value=b"sum"))
        assert await world.broker.wait([parent], 0) == [Ended(State.SUCCEEDED, b"sum")]

    async def test_a_step_that_fails_releases_its_parent(self, world: World, worker: Member, feeder: Member):
        parent, steps = await self.reducing(world, worker, feeder, 3)
        assert ids_of(await feeder.claim(2)) == steps[:2]
        await feeder.step(0, world.done(steps[0], Op.FAILED))
        await worker.step(0, world.done(parent, Op.SEAL))
        assert await world.state(parent) is State.QUEUED, "out of the hands of its worker, whose word counts no more"
        assert ids_of(await worker.claim(9)) == [parent], "the step that waits is dropped"
        assert (await world.found(parent)).children == Progress(1, 1, 1, units=5, sealed=True, over=True)

    async def test_steps_that_were_dropped_are_taken_again(self, world: World, worker: Member, feeder: Member):
        parent, steps = await self.reducing(world, worker, feeder, 3)
        assert ids_of(await feeder.claim(1)) == steps[:1]
        await worker.leave(crashed=True)
        assert ids_of(await feeder.claim(9)) == [parent], (
            "nobody sealed it: it runs as it is, and its steps wait for it"
        )
        await feeder.step(0, world.done(parent, Op.OPEN), world.done(steps[0]))
        jobs = [world.job(id=step) for step in steps]
        assert await world.broker.enqueue(jobs) == [Receipt.KNOWN, Receipt.ACCEPTED, Receipt.ACCEPTED]
        await feeder.step(0, world.done(parent, Op.SEAL))
        assert ids_of(await feeder.claim(9)) == steps[1:]
        assert ids_of(await feeder.claim(9, *(world.done(step) for step in steps[1:]))) == [parent]

    async def test_a_parent_is_cancelled_while_its_steps_run(self, world: World, worker: Member, feeder: Member):
        parent, steps = await self.reducing(world, worker, feeder, 2)
        assert ids_of(await feeder.claim(1)) == steps[:1]
        await worker.step(0, world.done(parent, Op.SEAL))
        assert await world.broker.cancel(parent) is State.BLOCKED
        assert await world.state(parent) is State.CANCELLED
        await feeder.told(parent)
        assert await feeder.claim(9, world.done(steps[0])) == []

    async def test_only_who_holds_a_parent_opens_it(self, world: World, worker: Member, feeder: Member):
        parent, (child,) = await world.parent(feeder, 1)
        await feeder.step(0, world.done(parent, Op.SEAL))
        await worker.claim_one()
        await worker.step(0, world.done(child), world.done(parent, Op.OPEN))
        plain = await world.put_one()
        await worker.claim(2)
        await feeder.step(0, world.done(parent, Op.OPEN))
        assert await world.broker.enqueue([world.job(id=child_id(parent, 9))]) == [Receipt.CLOSED]
        await worker.step(0, world.done(plain, Op.OPEN), world.done(plain))
        assert await world.state(plain) is State.SUCCEEDED

    async def test_sealed_after_the_last_child(self, world: World, worker: Member, feeder: Member):
        parent, children = await world.parent(feeder, 2)
        await worker.claim(2)
        await worker.step(0, *(world.done(child) for child in children))
        found = await world.found(parent)
        assert found.state is State.RUNNING
        assert found.children == Progress(2, 2, 0, units=2 * TTL, sealed=False, over=False)
        more = child_id(parent, 2)
        await world.put(world.job(id=more))
        assert ids_of(await worker.claim(5)) == [more]
        await worker.step(0, world.done(more))
        await feeder.step(0, world.done(parent, Op.SEAL))
        assert ids_of(await worker.claim(5)) == [parent]

    async def test_sealed_without_children(self, world: World, worker: Member, feeder: Member):
        parent, _ = await world.parent(feeder)
        await feeder.step(0, world.done(parent, Op.SEAL))
        assert ids_of(await worker.claim(5)) == [parent]
        assert (await world.found(parent)).children == Progress(0, 0, 0, 0, sealed=True, over=True)

    async def test_only_its_feeder_seals(self, world: World, worker: Member, feeder: Member):
        parent, _ = await world.parent(feeder)
        await worker.step(0, world.done(parent, Op.SEAL))
        assert await world.state(parent) is State.RUNNING
        assert await worker.claim(5) == []

    async def test_who_is_first_of_two_counts(self, world: World, worker: Member, feeder: Member):
        parent, (one, two) = await world.parent(feeder, 2)
        await feeder.step(0, world.done(parent, Op.SEAL))
        other = await world.join()
        assert ids_of(await worker.claim(2)) == [one, two]
        assert sorted(await world.broker.running(parent)) == [one, two]
        await world.put(world.job(id=copy_of(one)), world.job(id=copy_of(two)))
        assert (await world.found(parent)).children == Progress(2, 0, 0, 0, sealed=True, over=False)
        assert ids_of(await other.claim(2)) == [copy_of(one), copy_of(two)]
        assert sorted(await world.broker.running(parent)) == sorted([one, two, copy_of(one), copy_of(two)])
        await other.step(0, world.done(copy_of(one), number=3, value=b"quick"))
        await worker.told(one)
        await worker.step(0, world.done(one, number=3, value=b"slow"), world.done(two, number=4, value=b"first"))
        await other.told(copy_of(two))
        await other.step(0, world.done(copy_of(two), number=4, value=b"second"))
        ended = await world.broker.wait([one, two], 0)
        assert ended == [Ended(State.SUCCEEDED, b"quick"), Ended(State.SUCCEEDED, b"first")]
        assert (await world.found(parent)).children == Progress(2, 2, 0, 7, sealed=True, over=True)
        assert ids_of(await worker.claim(5)) == [parent]
        assert (await world.counts()).cancelled == 2
        assert await world.broker.running(parent) == []

    async def test_a_copy_that_fails_is_nothing(self, world: World, worker: Member, feeder: Member):
        parent, (child,) = await world.parent(feeder, 1)
        await feeder.step(0, world.done(parent, Op.SEAL))
        other = await world.join()
        await worker.claim_one()
        await world.put(world.job(id=copy_of(child)))
        assert await worker.claim(5) == [], "it is not given to who is slow"
        assert ids_of(await other.claim(5)) == [copy_of(child)]
        await other.step(0, world.done(copy_of(child), Op.FAILED))
        assert (await world.found(parent)).children == Progress(1, 0, 0, 0, sealed=True, over=False)
        await worker.step(0, world.done(child, number=1))
        assert await world.broker.enqueue([world.job(id=copy_of(child))]) == [Receipt.CLOSED]
        assert ids_of(await worker.claim(5)) == [parent]

    async def test_who_waits_for_one_hears_of_its_copy(self, world: World, worker: Member, feeder: Member):
        _, (child, _) = await world.parent(feeder, 2)
        await worker.claim_one()
        await world.put(world.job(id=copy_of(child)))
        waiting = asyncio.create_task(world.broker.wait([child], 20.0))
        other = await world.join()
        await other.claim(2)
        await other.step(0, world.done(copy_of(child), value=b"quick"))
        assert await waiting == [Ended(State.SUCCEEDED, b"quick")]
        assert await world.broker.enqueue([world.job(id=copy_of(child))]) == [Receipt.KNOWN]

    async def test_a_parent_that_failed_is_opened_anew(self, world: World, worker: Member, feeder: Member):
        parent, children = await world.parent(feeder, 3)
        await worker.claim(2)
        chunk = world.done(children[0], Op.CHUNK, 0, b"chunk")
        await worker.step(0, chunk, world.done(children[0], number=5), world.done(children[1], Op.FAILED))
        assert ids_of(await worker.claim(5)) == [parent]
        await worker.step(0, world.done(parent, Op.FAILED))
        assert (await world.found(parent)).payload == b"call"
        another = await world.join(role="feeder")
        assert await world.broker.enqueue([world.job(id=parent)]) == [Receipt.KNOWN]
        assert await world.put(world.job(id=parent, hold=another.epoch)) == [parent]
        assert (await world.found(parent)).children == Progress(1, 1, 0, 5, sealed=False, over=False)
        again = await world.broker.enqueue([world.job(id=child) for child in children])
        assert again == [Receipt.KNOWN, Receipt.ACCEPTED, Receipt.ACCEPTED]
        await another.step(0, world.done(parent, Op.SEAL))
        assert ids_of(await worker.claim(5)) == children[1:]
        await worker.step(0, *(world.done(child, number=1) for child in children[1:]))
        assert (await world.found(parent)).children == Progress(3, 3, 0, 7, sealed=True, over=True)
        assert await world.broker.wait([f"{children[0]}:0"], 0) == [Ended(State.SUCCEEDED, b"chunk")]
        assert ids_of(await worker.claim(5)) == [parent]
        await worker.step(0, world.done(parent))
        assert await world.state(parent) is State.SUCCEEDED
        assert await world.broker.enqueue([world.job(id=parent, hold=another.epoch)]) == [Receipt.KNOWN]

    async def test_children_are_not_plain(self, world: World, worker: Member, feeder: Member):
        await world.parent(feeder, 1)
        assert (await worker.claim_one()).plain is False

    async def test_a_retrying_child_is_not_done(self, world: World, worker: Member, feeder: Member):
        parent, (child,) = await world.parent(feeder, 1)
        await feeder.step(0, world.done(parent, Op.SEAL))
        await worker.claim_one()
        await worker.step(0, world.done(child, Op.RETRY, 0))
        assert await world.state(parent) is State.BLOCKED
        assert (await worker.claim_one()).attempt == 2
        await worker.step(0, world.done(child, number=5))
        assert (await world.found(parent)).children == Progress(1, 1, 0, 5, sealed=True, over=True)

    @pytest.mark.parametrize("sealed", [False, True])
    async def test_a_failing_child_releases_its_parent_at_once(
        self, world: World, worker: Member, feeder: Member, sealed: bool
    ):
        parent, children = await world.parent(feeder, 4)
        if sealed:
            await feeder.step(0, world.done(parent, Op.SEAL))
        await worker.claim(3)
        await worker.step(0, world.done(children[0], number=7), world.done(children[1], Op.FAILED))
        progress = (await world.found(parent)).children
        assert progress is not None
        assert (progress.total, progress.failed, progress.units) == (4, 1, 7)
        assert (progress.sealed, progress.over) == (sealed, True)
        assert ids_of(await worker.claim(9)) == [parent], "the child that waits is dropped"
        assert await world.broker.wait(children[:2], 0) == [
            Ended(State.SUCCEEDED, b"record"),
            Ended(State.FAILED, b"record"),
        ]
        assert await world.broker.enqueue([world.job(id=child_id(parent, 9))]) == [Receipt.CLOSED]
        await feeder.step(0, world.done(parent, Op.SEAL))
        assert await world.state(parent) is State.RUNNING
        await worker.step(0, world.done(children[2]), world.done(parent, Op.FAILED))
        assert await world.state(parent) is State.FAILED
        assert await worker.claim(9) == []
        assert (await world.counts()).queued == 0

    async def test_a_child_whose_workers_died_is_a_failed_child(self, world: World, worker: Member, feeder: Member):
        parent, (child,) = await world.parent(feeder, 1)
        await feeder.step(0, world.done(parent, Op.SEAL))
        await worker.claim_one()
        await worker.leave(crashed=True, max_deliveries=1)
        progress = (await world.found(parent)).children
        assert progress is not None
        assert (progress.failed, progress.over) == (1, True)
        (ended,) = await world.broker.wait([child], 0)
        assert ended is not None
        assert unpack_record(ended.record).reason == Reason.WORKER_LOST
        assert (await (await world.join()).claim_one()).id == parent

    async def test_a_crashed_child_runs_again(self, world: World, worker: Member, feeder: Member):
        parent, children = await world.parent(feeder, 2)
        await feeder.step(0, world.done(parent, Op.SEAL))
        await worker.claim(2)
        await worker.leave(crashed=True)
        other = await world.join()
        assert ids_of(await other.claim(2)) == children
        await other.step(0, *(world.done(child) for child in children))
        assert ids_of(await other.claim(2)) == [parent]

    async def test_who_feeds_and_works_dies(self, world: World, worker: Member, feeder: Member):
        parent, _ = await world.parent(feeder)
        (child,) = await world.put(world.job(id=child_id(parent, 0), options={"max_deliveries": 1 - APART}))
        assert (await feeder.claim_one()).id == child
        await feeder.leave(crashed=True)
        assert ids_of(await worker.claim(5)) == [parent]
        progress = (await world.found(parent)).children
        assert progress is not None
        assert (progress.failed, progress.sealed, progress.over) == (1, False, True)

    async def test_repeated_children_are_counted_once(self, world: World, worker: Member, feeder: Member):
        parent, (child,) = await world.parent(feeder, 1)
        job = world.job(id=child)
        assert await world.broker.enqueue([job]) == [Receipt.KNOWN]
        await worker.claim_one()
        assert await world.broker.enqueue([job]) == [Receipt.KNOWN]
        await worker.step(0, world.done(child, number=3))
        assert await world.broker.enqueue([job]) == [Receipt.KNOWN]
        assert (await world.found(parent)).children == Progress(1, 1, 0, 3, sealed=False, over=False)
        assert await worker.claim(5) == []

    async def test_a_late_end_is_counted_once(self, world: World, worker: Member, feeder: Member):
        parent, children = await world.parent(feeder, 2)
        await feeder.step(0, world.done(parent, Op.SEAL))
        await worker.claim(2)
        await worker.step(0, world.done(children[0]), world.done(children[0]))
        await worker.step(0, world.done(children[0], Op.FAILED))
        assert (await world.found(parent)).children == Progress(2, 1, 0, TTL, sealed=True, over=False)

    async def test_children_without_a_parent_are_refused(self, world: World, worker: Member, feeder: Member):
        orphan = world.job(id=child_id(world.new_id(), 0))
        assert await world.broker.enqueue([orphan]) == [Receipt.CLOSED]
        parent, _ = await world.parent(feeder)
        await feeder.step(0, world.done(parent, Op.SEAL))
        await worker.claim_one()
        late = world.job(id=child_id(parent, 0))
        assert await world.broker.enqueue([late]) == [Receipt.CLOSED], "the parent has been released"
        await worker.step(0, world.done(parent))
        assert await world.broker.enqueue([late]) == [Receipt.CLOSED], "the parent is over"
        assert await world.broker.find([orphan.id, late.id]) == [None, None]
        assert await worker.claim(5) == []

    async def test_partials_live_as_long_as_the_parent(self, world: World, worker: Member, feeder: Member):
        parent, children = await world.parent(feeder, 3)
        await feeder.step(0, world.done(parent, Op.SEAL))
        await worker.claim(3)
        await worker.step(0, *(world.done(child, number=0, value=child.encode()) for child in children[:2]))
        first = [Ended(State.SUCCEEDED, child.encode()) for child in children[:2]]
        assert await world.broker.wait(children, 0) == [*first, None]
        await worker.step(0, world.done(children[2], value=b""))
        await worker.claim_one()
        await worker.leave(crashed=True)
        reducer = await world.join()
        assert (await reducer.claim_one()).id == parent
        assert await world.broker.wait(children, 0) == [*first, Ended(State.SUCCEEDED, b"")]
        assert (await world.found(children[0])).state is State.SUCCEEDED
        await reducer.step(0, world.done(parent, Op.RETRY, 0))
        await reducer.claim_one()
        assert await world.broker.wait(children[:1], 0) == first[:1]
        await reducer.step(0, world.done(parent))
        assert await world.broker.find(children) == [None] * 3
        for child in children:
            with pytest.raises(JobNotFound):
                await world.broker.wait([child], 0)

    async def test_chunks(self, world: World, worker: Member, feeder: Member):
        parent, (child, other) = await world.parent(feeder, 2)
        await feeder.step(0, world.done(parent, Op.SEAL))
        await worker.claim(2)
        pieces = [bytes([n]) * 1000 + b"\r\n" for n in range(3)]
        await worker.step(0, *(world.done(child, Op.CHUNK, n, piece) for n, piece in enumerate(pieces)))
        await worker.step(0, world.done(child, Op.CHUNK, 1, pieces[1]), world.done(other, Op.CHUNK, 0, b""))
        assert await world.state(child) is State.RUNNING
        assert await world.state(parent) is State.BLOCKED
        await worker.step(0, world.done(child, value=b"three"), world.done(other))
        await worker.claim_one()
        names = [f"{child}:{n}" for n in range(3)]
        assert [ended.record for ended in await world.broker.wait(names, 0) if ended] == pieces
        (empty,) = await world.broker.wait([f"{other}:0"], 0)
        assert empty is not None
        assert empty.record == b""
        for nobody in (f"{child}:3", f"{other}:1"):
            with pytest.raises(JobNotFound):
                await world.broker.wait([nobody], 0)
        await worker.step(0, world.done(parent))
        with pytest.raises(JobNotFound):
            await world.broker.wait(names[:1], 0)

    async def test_a_job_that_is_no_child_has_no_chunks(self, world: World, worker: Member, feeder: Member):
        parent, (child, _) = await world.parent(feeder, 2)
        await worker.claim(1)
        await worker.step(0, world.done(child))
        with pytest.raises(JobNotFound):
            await world.broker.wait([f"{parent}:0"], 0)

    async def test_a_chunk_of_a_job_that_is_not_held_is_ignored(self, world: World, worker: Member, feeder: Member):
        _, (child,) = await world.parent(feeder, 1)
        await worker.step(0, world.done(child, Op.CHUNK, 0, b"early"))
        with pytest.raises(JobNotFound):
            await world.broker.wait([f"{child}:0"], 0)

    @pytest.mark.parametrize("sealed", [False, True])
    async def test_cancelling_a_parent_ends_all(self, world: World, worker: Member, feeder: Member, sealed: bool):
        parent, children = await world.parent(feeder, 4)
        if sealed:
            await feeder.step(0, world.done(parent, Op.SEAL))
        other = await world.join()
        await worker.claim(2)
        await other.claim(1)
        await worker.step(0, world.done(children[0]))
        assert await world.broker.cancel(parent) is (State.BLOCKED if sealed else State.RUNNING)
        assert await world.broker.wait([parent], 0) == [Ended(State.CANCELLED, b"")]
        await worker.told(parent)
        await other.told(parent)
        if not sealed:
            await feeder.told(parent)
        assert await world.broker.enqueue([world.job(id=child_id(parent, 9))]) == [Receipt.CLOSED]
        await worker.step(0, world.done(children[1]))
        await other.step(0, world.done(children[2], Op.RETRY, 0))
        await feeder.step(0, world.done(parent, Op.SEAL), world.done(parent))
        assert await worker.claim(9) == []
        assert await world.state(parent) is State.CANCELLED
        for child in children:
            with pytest.raises(JobNotFound):
                await world.broker.wait([child], 0)
        depth = await world.broker.depth([world.queue])
        counts = depth.queues[world.queue]
        assert (depth.running, counts.queued, counts.scheduled) == (0, 0, 0)
        assert counts.enqueued == counts.succeeded + counts.cancelled == 5
        assert counts.cancelled >= 3

    async def test_cancelling_a_parent_that_reduces(self, world: World, worker: Member, feeder: Member):
        parent, (child,) = await world.parent(feeder, 1)
        await feeder.step(0, world.done(parent, Op.SEAL))
        await worker.claim_one()
        assert ids_of(await worker.claim(1, world.done(child))) == [parent]
        assert await world.broker.cancel(parent) is State.RUNNING
        await worker.told(parent)
        assert await world.state(parent) is State.RUNNING
        await worker.step(0, world.done(parent, Op.CANCELLED))
        assert await world.state(parent) is State.CANCELLED

    @pytest.mark.parametrize("crashed", [False, True])
    async def test_the_feeder_is_gone(self, world: World, worker: Member, feeder: Member, crashed: bool):
        parent, (child, waiting) = await world.parent(feeder, 2)
        await worker.claim_one()
        assert await feeder.leave(crashed=crashed) == 1
        delivery = await worker.claim_one()
        assert (delivery.id, delivery.deliveries, delivery.attempt) == (parent, int(crashed), 1)
        progress = (await world.found(parent)).children
        assert progress is not None
        assert progress.sealed is False
        assert await world.broker.enqueue([world.job(id=child_id(parent, 2))]) == [Receipt.CLOSED]
        await worker.step(0, world.done(parent, Op.FAILED), world.done(child))
        assert await world.state(parent) is State.FAILED
        assert await worker.claim(5) == []
        assert await world.broker.find([child, waiting]) == [None, None]

    async def test_a_feeder_that_gives_up(self, world: World, worker: Member, feeder: Member):
        parent, children = await world.parent(feeder, 2)
        await feeder.step(0, world.done(parent, Op.FAILED, value=b"no such file"))
        assert await world.broker.wait([parent], 0) == [Ended(State.FAILED, b"no such file")]
        assert await worker.claim(5) == []
        assert await world.broker.find(children) == [None, None]


class TestWait:
    async def test_many_wait_for_one(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(world.broker.wait([job_id], None)) for _ in range(20)]
            await until_waiting(world, job_id)
            await worker.step(0, world.done(job_id))
        assert [task.result() for task in waiting] == [[Ended(State.SUCCEEDED, b"record")]] * 20

    async def test_one_waits_for_many(self, world: World, worker: Member):
        ids = await world.put(count=6)
        await worker.claim(6)
        await worker.step(0, world.done(ids[4], value=b"4"))
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(world.broker.wait(ids, 10))
            for n in (3, 0, 5, 1, 2):
                await until_waiting(world, ids[n])
                assert not waiting.done()
                await worker.step(0, world.done(ids[n], value=b"%d" % n))
        assert waiting.result() == [Ended(State.SUCCEEDED, b"%d" % n) for n in range(6)]

    async def test_the_wait_is_over_first(self, world: World, worker: Member):
        first, second = await world.put(count=2)
        await worker.claim_one()
        await worker.step(0, world.done(first))
        assert await world.broker.wait([first, second], 0.05) == [Ended(State.SUCCEEDED, b"record"), None]
        assert await world.broker.wait([second], 0) == [None]
        assert await world.state(second) is State.QUEUED

    async def test_already_over(self, world: World, worker: Member):
        ids = await world.put(count=2)
        await worker.claim(2)
        await worker.step(0, *(world.done(job_id) for job_id in ids))
        for timeout in (0, 5, None):
            assert await world.broker.wait([ids[0], ids[1], ids[0]], timeout) == [Ended(State.SUCCEEDED, b"record")] * 3

    async def test_the_same_id_twice(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(world.broker.wait([job_id, job_id], 10))
            await until_waiting(world, job_id)
            await worker.step(0, world.done(job_id))
        assert waiting.result() == [Ended(State.SUCCEEDED, b"record")] * 2

    async def test_nobody_knows_it(self, world: World):
        known = await world.put_one()
        for timeout in (0, 5, None):
            for ids in ([world.new_id()], [known, world.new_id()], ["no id at all"]):
                with pytest.raises(JobNotFound):
                    await world.broker.wait(ids, timeout)

    async def test_nothing_to_wait_for(self, world: World):
        assert await world.broker.wait([], None) == []

    async def test_who_waits_is_told_of_a_cancel(self, world: World):
        job_id = await world.put_one()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(world.broker.wait([job_id], 10))
            await until_waiting(world, job_id)
            assert await world.broker.cancel(job_id) is State.QUEUED
        assert waiting.result() == [Ended(State.CANCELLED, b"")]

    async def test_who_waits_is_told_after_retries(self, world: World, worker: Member):
        job_id = await world.put_one()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(world.broker.wait([job_id], 10))
            await worker.claim_one()
            await until_waiting(world, job_id)
            await worker.step(0, world.done(job_id, Op.RETRY, 0))
            await worker.claim_one()
            assert not waiting.done()
            await worker.step(0, world.done(job_id, Op.FAILED, value=b"gave up"))
        assert waiting.result() == [Ended(State.FAILED, b"gave up")]

    async def test_who_gives_up_does_not_disturb_others(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        async with asyncio.TaskGroup() as group:
            gone = group.create_task(world.broker.wait([job_id], None))
            stays = group.create_task(world.broker.wait([job_id], 10))
            await until_waiting(world, job_id)
            gone.cancel()
            await until_waiting(world, job_id)
            await worker.step(0, world.done(job_id))
        assert gone.cancelled()
        assert stays.result() == [Ended(State.SUCCEEDED, b"record")]

    async def test_who_waits_for_a_parent(self, world: World, worker: Member, feeder: Member):
        parent, (child,) = await world.parent(feeder, 1)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(world.broker.wait([parent], 10))
            await until_waiting(world, parent)
            await feeder.step(0, world.done(parent, Op.SEAL))
            await worker.claim_one()
            await worker.claim(1, world.done(child))
            assert not waiting.done()
            await worker.step(0, world.done(parent, value=b"sum"))
        assert waiting.result() == [Ended(State.SUCCEEDED, b"sum")]


class TestFind:
    async def test_queued(self, world: World):
        job_id = await world.put_one(payload=b"the call", priority=7)
        found = await world.found(job_id)
        assert (found.id, found.state, found.queue, found.priority) == (job_id, State.QUEUED, world.queue, 7)
        assert (found.attempt, found.deliveries, found.error, found.payload) == (0, 0, "", b"the call")
        assert (found.due_s, found.record, found.children) == (0, b"", None)

    async def test_scheduled(self, world: World, worker: Member):
        now_s = (await worker.step()).now_ms / 1000
        found = await world.found(await world.put_one(delay_s=60))
        assert found.state is State.SCHEDULED
        assert found.due_s == pytest.approx(now_s + 60, abs=20)

    async def test_running(self, world: World, worker: Member):
        job_id = await world.put_one()
        now_s = (await worker.step(1)).now_ms / 1000
        found = await world.found(job_id)
        assert (found.state, found.attempt) == (State.RUNNING, 1)
        assert found.started_s == pytest.approx(now_s, abs=20)

    async def test_running_again(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        await worker.step(0, world.done(job_id, Op.RETRY, 0, b"once"))
        await worker.claim_one()
        await worker.leave(crashed=True)
        other = await world.join()
        await other.claim_one()
        found = await world.found(job_id)
        assert (found.state, found.attempt, found.deliveries, found.error) == (State.RUNNING, 2, 1, "once")

    async def test_many_at_once(self, world: World, worker: Member):
        over, queued = await world.put(count=2)
        await worker.claim_one()
        await worker.step(0, world.done(over))
        found = await world.broker.find([queued, world.new_id(), over, queued])
        assert [one and one.state for one in found] == [State.QUEUED, None, State.SUCCEEDED, State.QUEUED]
        assert await world.broker.find([]) == []


class TestCancel:
    async def test_queued(self, world: World, worker: Member):
        first, second = await world.put(count=2)
        assert await world.broker.cancel(first) is State.QUEUED
        assert await world.broker.wait([first], 0) == [Ended(State.CANCELLED, b"")]
        assert ids_of(await worker.claim(5)) == [second]
        counts = await world.counts()
        assert (counts.cancelled, counts.queued) == (1, 0)

    async def test_scheduled(self, world: World, worker: Member):
        job_id, other = await world.put(count=2, delay_s=0.03)
        assert await world.broker.cancel(job_id) is State.SCHEDULED
        assert await world.state(job_id) is State.CANCELLED
        assert (await world.counts()).scheduled == 1
        await world.pass_time(0.03)
        assert ids_of(await worker.claim(5)) == [other]

    async def test_retrying(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        await worker.step(0, world.done(job_id, Op.RETRY, 30))
        assert await world.broker.cancel(job_id) is State.RETRYING
        assert await world.state(job_id) is State.CANCELLED
        await world.pass_time(0.03)
        assert await worker.claim(5) == []
        assert (await world.counts()).scheduled == 0

    async def test_running(self, world: World, worker: Member):
        job_id = await world.put_one()
        bystander = await world.join()
        await worker.claim_one()
        assert await world.broker.cancel(job_id) is State.RUNNING
        await worker.told(job_id)
        assert await world.state(job_id) is State.RUNNING
        await worker.step(0, world.done(job_id, Op.CANCELLED, value=b"stopped"))
        assert await world.broker.wait([job_id], 0) == [Ended(State.CANCELLED, b"stopped")]
        assert job_id not in bystander.notices

    async def test_asking_twice(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        assert await world.broker.cancel(job_id) is State.RUNNING
        assert await world.broker.cancel(job_id) is State.RUNNING
        await worker.step(0, world.done(job_id, Op.CANCELLED))
        assert await world.broker.cancel(job_id) is State.CANCELLED
        assert (await world.counts()).cancelled == 1

    @pytest.mark.parametrize("op", ENDS)
    async def test_over(self, world: World, worker: Member, op: Op):
        job_id = await world.put_one()
        await worker.claim_one()
        await worker.step(0, world.done(job_id, op))
        before = await world.counts()
        assert await world.broker.cancel(job_id) is ENDS[op]
        assert await world.broker.wait([job_id], 0) == [Ended(ENDS[op], b"record")]
        assert await world.counts() == before

    async def test_nobody_knows_it(self, world: World):
        assert await world.broker.cancel(world.new_id()) is None

    async def test_it_was_faster(self, world: World, worker: Member):
        job_id = await world.put_one()
        await worker.claim_one()
        await world.broker.cancel(job_id)
        await worker.step(0, world.done(job_id))
        assert await world.state(job_id) is State.SUCCEEDED

    @pytest.mark.parametrize("op", [Op.RETRY, Op.SNOOZE, Op.PUT_BACK, Op.RELEASE])
    async def test_what_was_asked_to_stop_does_not_run_again(self, world: World, worker: Member, op: Op):
        job_id = await world.put_one()
        await worker.claim_one()
        await world.broker.cancel(job_id)
        await worker.step(0, world.done(job_id, op, 0))
        assert await world.state(job_id) is State.CANCELLED
        assert await worker.claim(5) == []
        counts = await world.counts()
        assert (counts.cancelled, counts.retried) == (1, 0)

    async def test_a_child(self, world: World, worker: Member, feeder: Member):
        parent, (child, _) = await world.parent(feeder, 2)
        assert await world.broker.cancel(child) is State.QUEUED
        assert await world.state(child) is State.CANCELLED
        progress = (await world.found(parent)).children
        assert progress is not None
        assert progress.over, "it can never be done, so the parent need not wait"


class TestDelay:
    async def test_after_a_delay(self, world: World, worker: Member):
        job_id = await world.put_one(delay_s=0.06)
        claimed = await worker.step(5)
        assert claimed.deliveries == []
        assert 0 < claimed.next_due_ms - claimed.now_ms <= 60
        counts = await world.counts()
        assert (counts.queued, counts.scheduled) == (0, 1)
        await world.pass_time((claimed.next_due_ms - claimed.now_ms) / 1000)
        claimed = await worker.step(5)
        assert ids_of(claimed.deliveries) == [job_id]
        assert claimed.next_due_ms == -1

    async def test_at_a_date(self, world: World, worker: Member):
        at_s = (await worker.step()).now_ms / 1000 + 0.06
        job_id = await world.put_one(at_s=at_s)
        claimed = await worker.step(5)
        assert (claimed.deliveries, claimed.next_due_ms) == ([], pytest.approx(at_s * 1000, abs=1))
        await world.pass_time((claimed.next_due_ms - claimed.now_ms) / 1000)
        assert ids_of(await worker.claim(5)) == [job_id]

    async def test_a_date_in_the_past_is_now(self, world: World, worker: Member):
        job_id = await world.put_one(at_s=5.0)
        assert ids_of(await worker.claim(5)) == [job_id]

    async def test_the_nearest_of_all_queues(self, world: World, worker: Member):
        queues = [world.queue + letter for letter in "abc"]
        await world.put(world.job(queue=queues[0], delay_s=60), world.job(queue=queues[1], delay_s=30))
        claimed = await worker.step(5, queues=queues)
        assert claimed.next_due_ms == pytest.approx(claimed.now_ms + 30_000, abs=1000)
        (job_id,) = await world.put(world.job(queue=queues[2]))
        claimed = await worker.step(5, queues=queues)
        assert ids_of(claimed.deliveries) == [job_id]
        assert claimed.next_due_ms == pytest.approx(claimed.now_ms + 30_000, abs=1000)
        await world.put(world.job(queue=queues[2]))
        assert (await worker.step(1, queues=queues)).next_due_ms == -1, "it has all that it wants"

    async def test_who_could_take_more_is_noticed(self, world: World, worker: Member):
        first, second = await world.put(count=2)
        claimed = await worker.step(3, idle=True)
        assert ids_of(claimed.deliveries) == [first, second]
        await world.put(count=1)
        await worker.told("")

    async def test_who_sleeps_on_is_noticed_again_and_again(self, world: World, worker: Member):
        await worker.step(3, idle=True)
        for _ in range(3):
            (job_id,) = await world.put(count=1)
            await worker.told("")
            worker.notices.clear()
            assert ids_of((await worker.step(3, idle=True)).deliveries) == [job_id]
            await worker.step(3, world.done(job_id), idle=True)
        await worker.step(0)
        await world.put(count=1)
        await world.broker.depth([])
        assert worker.notices == [], "who wants nothing is not noticed"

    async def test_who_has_its_quota_of_a_queue_is_noticed_for_others_alone(self, world: World, worker: Member):
        full, free = f"{world.queue}full", f"{world.queue}free"
        (job_id,) = await world.put(world.job(queue=full))
        claimed = await worker.step(9, queues={full: 1, free: 1}, idle=True)
        assert ids_of(claimed.deliveries) == [job_id]
        await world.put(world.job(queue=full))
        await world.broker.depth([])
        assert worker.notices == []
        await world.put(world.job(queue=free))
        await worker.told("")

    async def test_in_the_order_of_their_due_times(self, world: World, worker: Member):
        jobs = [world.job(delay_s=delay) for delay in (0.04, 0.01, 0.03, 0.02)]
        urgent = world.job(delay_s=0.045, priority=9)
        await world.put(*jobs, urgent)
        await world.pass_time(0.05)
        deliveries = await worker.claim(9)
        assert ids_of(deliveries) == [urgent.id, jobs[1].id, jobs[3].id, jobs[2].id, jobs[0].id]


class TestIdle:
    async def test_noticed_when_work_comes(self, world: World, worker: Member):
        await worker.step(5, idle=True)
        assert worker.notices == []
        job_id = await world.put_one()
        await worker.told("")
        assert ids_of(await worker.claim(5)) == [job_id]

    async def test_each_of_its_queues_is_watched(self, world: World, worker: Member):
        queues = [world.queue + letter for letter in "abc"]
        for queue in queues:
            worker.notices.clear()
            await worker.step(5, queues=queues, idle=True)
            await world.put(world.job(queue=queue))
            await worker.told("")
            await worker.step(5, queues=queues)

    async def test_noticed_of_a_nearer_due_time(self, world: World, worker: Member):
        await world.put_one(delay_s=60)
        known = (await worker.step(5, idle=True)).next_due_ms
        await world.put_one(delay_s=30)
        await worker.told("")
        assert (await worker.step(5)).next_due_ms < known

    async def test_noticed_of_what_is_released(self, world: World, worker: Member):
        job_id = await world.put_one()
        other = await world.join()
        await other.claim_one()
        await worker.step(5, idle=True)
        await other.step(0, world.done(job_id, Op.RELEASE))
        await worker.told("")

    @pytest.mark.parametrize("crashed", [False, True])
    async def test_noticed_of_what_the_dead_give_back(self, world: World, worker: Member, crashed: bool):
        job_id = await world.put_one()
        other = await world.join()
        await other.claim_one()
        await worker.step(5, idle=True)
        await other.leave(crashed=crashed)
        await worker.told("")
        assert ids_of(await worker.claim(5)) == [job_id]

    async def test_noticed_of_a_released_parent(self, world: World, worker: Member, feeder: Member):
        parent, _ = await world.parent(feeder)
        await worker.step(5, idle=True)
        await feeder.step(0, world.done(parent, Op.SEAL))
        await worker.told("")

    async def test_who_is_idle_no_more_is_noticed_in_nobodys_place(self, world: World, worker: Member):
        await worker.step(5, idle=True)
        await worker.step(0)
        other = await world.join()
        await other.step(5, idle=True)
        await world.put_one()
        await other.told("")

    async def test_no_work_lies_while_a_worker_is_idle(self, world: World, worker: Member):
        other = await world.join()
        await worker.step(5, idle=True)
        await other.step(5, idle=True)
        await world.put(count=2)

        async def one_is_told() -> list[Member]:
            return [member for member in (worker, other) if member.notices]

        first = (await until(one_is_told))[0]
        assert len(await first.claim(1)) == 1
        second = other if first is worker else worker
        await second.told("")
        assert len(await second.claim(1)) == 1


class TestDepth:
    async def test_nothing(self, world: World):
        depth = await world.broker.depth([world.queue])
        assert depth.queues[world.queue] == type(depth.queues[world.queue])()
        assert (depth.running, depth.workers) == (0, {})
        assert (await world.broker.depth([])).queues == {}

    async def test_who_holds_how_many(self, world: World, worker: Member):
        await world.put(count=3)
        other = await world.join()
        await worker.claim(2)
        held = (await world.broker.depth([])).held
        assert (held[worker.epoch], held[other.epoch]) == (2, 0)

    async def test_every_level_is_counted(self, world: World, worker: Member):
        await world.put(*(world.job(priority=n % 10) for n in range(25)))
        await world.put(world.job(queue=world.queue + "b"))
        depth = await world.broker.depth([world.queue, world.queue + "b"])
        assert {name: queue.queued for name, queue in depth.queues.items()} == {world.queue: 25, world.queue + "b": 1}
        assert set((await world.broker.depth([world.queue])).queues) == {world.queue}

    async def test_the_oldest(self, world: World, worker: Member):
        async def oldest_s() -> float:
            return (await world.broker.depth([world.queue])).queues[world.queue].oldest_s

        assert await oldest_s() == 0
        await world.put(count=2)
        await world.pass_time(0.05)
        assert 0.05 <= await oldest_s() < 60
        await worker.claim(2)
        assert await oldest_s() == 0

    async def test_counters_are_exact(self, world: World, worker: Member):
        ids = await world.put(count=9)
        await world.put(count=2, delay_s=60)
        assert await world.broker.cancel(ids[8]) is State.QUEUED
        await worker.claim(8)
        ops = [Op.SUCCEEDED, Op.SUCCEEDED, Op.FAILED, Op.CANCELLED, Op.EXPIRED, Op.RETRY, Op.SNOOZE]
        settled = [world.done(job_id, op, 60_000) for job_id, op in zip(ids, ops, strict=False)]
        await worker.step(0, *settled)
        depth = await world.broker.depth([world.queue])
        counts = depth.queues[world.queue]
        assert (counts.enqueued, counts.succeeded, counts.failed, counts.cancelled) == (11, 2, 1, 2)
        assert (counts.expired, counts.retried, counts.redelivered) == (1, 1, 0)
        assert (counts.queued, counts.scheduled, depth.running) == (0, 4, 1)
        await worker.leave(crashed=True)
        depth = await world.broker.depth([world.queue])
        assert (depth.queues[world.queue].redelivered, depth.queues[world.queue].queued, depth.running) == (1, 1, 0)
        assert worker.epoch not in depth.workers


async def test_values_travel_from_end_to_end(world: World, worker: Member):
    value = {"a": [1, 2.5, None, "ü", b"\x00\xff"], "b": {}}
    job_id = await world.put_one(payload=pack(value))
    delivery = await worker.claim_one()
    assert unpack(delivery.payload) == value
    await worker.step(0, world.done(job_id, value=pack(Record(task="t", attempt=1, value=value))))
    (ended,) = await world.broker.wait([job_id], None)
    assert ended is not None
    assert unpack_record(ended.record) == Record(task="t", attempt=1, value=value)

"""Many jobs on their way in: one round is packed while the one before it travels, and nothing changes by that."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from asyncworker.errors import BrokerDown, QueueFull
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import Ids
from asyncworker.queue.entrance import A_ROUND_TRIP, enter
from asyncworker.queue.job import Job, Receipt

JOBS = 3 * A_ROUND_TRIP + 7


class Entry:
    """A broker's entrance with so much room, which answers one call after the other."""

    def __init__(self, room: int = JOBS) -> None:
        self.room, self.inside, self.calls = room, list[Job](), 0
        self.at_once = self.most_at_once = 0
        self.down_at = 0
        self._turn = asyncio.Lock()

    async def enqueue(self, jobs: Sequence[Job]) -> list[Receipt]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            async with self._turn:
                self.calls += 1
                if self.calls == self.down_at:
                    raise BrokerDown("it is away")
                for _ in range(10):  # a round trip
                    await asyncio.sleep(0)
                fits = min(len(jobs), self.room)
                self.room -= fits
                self.inside += jobs[:fits]
                return [Receipt.ACCEPTED] * fits + [Receipt.FULL] * (len(jobs) - fits)
        finally:
            self.at_once -= 1


def made(number: int = JOBS) -> list[Job]:
    return [Job(job_id, "default", b"") for job_id in Ids().many(number)]


def broker(entry: Entry) -> Broker:
    return entry  # type: ignore[return-value]  # no more of it is used


async def test_all_go_in_once_and_in_order_the_next_packed_while_one_travels() -> None:
    entry, jobs = Entry(), made()
    assert await enter(broker(entry), jobs, on_conflict="return", when_full="block") == [job.id for job in jobs]
    assert entry.inside == jobs
    assert entry.calls == 4
    assert entry.most_at_once == 2, "no more than one waits behind the one that travels"


async def test_where_there_is_no_room_later_rounds_wait_for_earlier_ones() -> None:
    entry, jobs = Entry(room=500), made()
    entering = asyncio.create_task(enter(broker(entry), jobs, on_conflict="return", when_full="block"))
    while len(entry.inside) < len(jobs):
        await asyncio.sleep(0)
        entry.room = max(entry.room, 300)
    await entering
    places = {job.id: place for place, job in enumerate(jobs)}
    rounds = [places[job.id] // A_ROUND_TRIP for job in entry.inside]
    assert sorted(places[job.id] for job in entry.inside) == list(range(JOBS))
    assert all(later - earlier >= -1 for earlier, later in itertools.pairwise(rounds))


async def test_an_error_ends_it_and_leaves_nothing_under_way() -> None:
    entry = Entry()
    entry.down_at = 2
    before = asyncio.all_tasks()
    with pytest.raises(BrokerDown):
        await enter(broker(entry), made(), on_conflict="return", when_full="block")
    assert asyncio.all_tasks() == before
    assert len(entry.inside) <= 2 * A_ROUND_TRIP, "at most the round that travelled beside it"


async def test_who_is_refused_is_told_how_many_found_no_room() -> None:
    with pytest.raises(QueueFull, match=r"500 of 1000 jobs found no room"):
        await enter(broker(Entry(room=500)), made(), on_conflict="return", when_full="reject")


async def test_a_caller_who_gives_up_leaves_nothing_under_way() -> None:
    entry, before = Entry(room=10), asyncio.all_tasks()
    entering = asyncio.create_task(enter(broker(entry), made(), on_conflict="return", when_full="block"))
    while not entry.inside:
        await asyncio.sleep(0)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert asyncio.all_tasks() == before


def test_many_ids_are_as_good_as_one_by_one() -> None:
    ids = Ids()
    for number in (0, 1, 99, 100, 1023, 1024, 5000):
        assert len({*ids.many(number)}) == number
    assert {len(one) for one in ids.many(200)} == {26}

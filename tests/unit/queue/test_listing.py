"""What a walk through many jobs in Redis costs: a bounded number of commands a page, however many jobs there are."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from asyncworker.queue.brokers.redis import open as open_broker
from asyncworker.queue.codec import Ids, born_ms, pack
from asyncworker.queue.job import Job, Op, Record, Settled, State, WorkerCard
from asyncworker.queue.search import Query, Stand, pack_stand, rank, states_of

JOBS, DONE, FAILED = 100_000, 20_000, 300
PAGE = 200
EACH = 9
"""Commands that tell where one job is, that nobody holds."""


class Counted:
    """A broker with many jobs, and a count of all commands that its server executed."""

    def __init__(self, url: str, namespace: str) -> None:
        self.broker = open_broker(url, namespace=namespace)
        self.server = redis.asyncio.Redis.from_url(url)
        self.ids: list[str] = []

    async def fill(self) -> None:
        broker, new = self.broker, Ids()
        jobs = [Job(new(), "q", b"call") for _ in range(JOBS)]
        await broker.enqueue(jobs)
        self.ids = [job.id for job in jobs]
        epoch = await broker.join(WorkerCard("here", 1, ("q",), 1000, 30.0, 0.0), lambda _: None)
        settled: list[Settled] = []
        good, bad = pack(Record("t", queue="q")), pack(Record("t", reason="error", queue="q"))
        for _ in range(DONE // 1000 + 1):
            want = 1000 if len(settled) < 1000 else 0
            ended = settled
            settled = []
            claimed = await broker.step(epoch, ended, {"q": 1000}, 1000 if ended or want else 0)
            for number, delivery in enumerate(claimed.deliveries):
                fails = number < FAILED * 1000 // DONE
                op, record = (Op.FAILED, bad) if fails else (Op.SUCCEEDED, good)
                settled.append(Settled(delivery.id, op, "q", 600, record, plain=not fails))
        await broker.step(epoch, settled, {}, 0)
        await broker.reap(epoch, "", crashed=False)

    async def commands(self) -> dict[str, int]:
        stats = await self.server.info("commandstats")
        return {name.removeprefix("cmdstat_"): of["calls"] for name, of in stats.items()}

    async def page(self, query: Query, cursor: str = "") -> tuple[list[str], str, int]:
        """Return the ids of a page, its cursor, and how many commands it took."""
        before = await self.commands()
        page = await self.broker.jobs(query, cursor, PAGE)
        after = await self.commands()
        ran = {name: calls - before.get(name, 0) for name, calls in after.items() if calls > before.get(name, 0)}
        assert not ran.keys() & {"keys", "scan", "hscan", "sscan", "zscan"}
        return [one.id for one in page.jobs], page.cursor, sum(ran.values()) - ran.get("info", 0)


@pytest.fixture(scope="module")
async def many(redis_url: str) -> AsyncIterator[Counted]:
    many = Counted(redis_url, "many-jobs")
    await many.fill()
    yield many
    await many.broker.close()
    await many.server.flushdb()
    await many.server.aclose()


async def test_failures_are_found_among_many_others(many: Counted) -> None:
    query, found, cursor = Query(states_of(["failed"])), [], ""
    while True:
        ids, cursor, commands = await many.page(query, cursor)
        assert commands < PAGE * EACH + 60
        found += ids
        if not cursor:
            break
    assert len(found) == len(set(found)) == FAILED + FAILED * 1000 // DONE
    assert found == sorted(found)


@pytest.mark.parametrize("depth", [0, 40_000, 78_000])
async def test_a_page_from_the_depth_of_a_queue(many: Counted, depth: int) -> None:
    waiting = many.ids[-JOBS + DONE + 1000 :]
    stand = Stand(rank(State.QUEUED), "r:q:5", waiting[depth], str(depth))
    moved = Stand(rank(State.QUEUED), "r:q:5", waiting[depth], str(depth + 500))
    for cursor in map(pack_stand, (stand, moved)):
        ids, _, commands = await many.page(Query(states_of(["queued"])), cursor)
        assert ids == waiting[depth + 1 : depth + 1 + PAGE]
        assert commands < PAGE * EACH + 60


async def test_results_of_a_moment(many: Counted) -> None:
    moment = born_ms(many.ids[5_000]) / 1000
    meant = [one for one in many.ids[:DONE] if born_ms(one) / 1000 == moment]
    query = Query(states_of(["succeeded"]), since_s=moment, until_s=moment + 0.001)
    ids, cursor, commands = await many.page(query)
    assert ids == [one for one in meant if one in set(ids)]
    assert len(ids) > PAGE // 2
    assert commands < PAGE * EACH + 300
    while cursor:
        more, cursor, _ = await many.page(query, cursor)
        ids += more
    assert set(ids) <= set(meant)
    assert len(ids) == len(set(ids)) > len(meant) * 0.9

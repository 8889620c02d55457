"""Rates conform to the algorithm to the microsecond, and limits hold whatever happens; in memory and in Redis."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncworker.queue.brokers import memory, redis
from asyncworker.queue.job import Op
from asyncworker.queue.limit import Limit, Rate
from tests.support.brokers import Member, World
from tests.support.clock import FrozenClock
from tests.support.redis_script import LIBRARY, Raw, Script

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))

rates = st.builds(
    Rate,
    st.sampled_from([1, 3, 7, 10, 250]),
    per=st.sampled_from([0.25, 1.0, 60.0]),
    burst=st.sampled_from([1, 2, 5]),
)
arrivals = st.lists(st.tuples(st.sampled_from([0, 0, 1, 40, 700, 90_000]), st.integers(0, 4)), min_size=1, max_size=12)


def started(of: Rate, jobs: list[tuple[int, float]]) -> list[int]:
    """Return when each of these jobs, (ms, cost), may start, first come first served: GCRA, in whole microseconds."""
    spoken_for, last, times = 0, 0, []
    for arrived, cost in jobs:
        take, room = cost * of.unit_us, of.burst * of.unit_us
        earliest = -(-(spoken_for + take - room) // 1000)
        last = max(arrived, last, int(earliest))
        spoken_for = max(spoken_for, last * 1000) + int(take)
        times.append(last)
    return times


def timed(jobs: list[tuple[int, int]], of: Rate) -> list[tuple[int, float]]:
    times = itertools.accumulate(wait for wait, _ in jobs)
    return [(at, min(cost, of.burst)) for at, (_, cost) in zip(times, jobs, strict=True)]


def options(of: Rate, cost: float) -> dict[str, Any]:
    return {"rate": ["task", *of.numbers, None, cost]}


@given(rates, arrivals)
@QUICK
def test_gates_in_memory_conform_to_gcra(of: Rate, jobs: list[tuple[int, int]]):
    async def run() -> list[int]:
        clock = FrozenClock()
        world = World(memory.open(clock=clock), clock)
        worker = await world.join()
        begin = (await worker.step()).now_ms
        times: dict[str, int] = {}
        calls = timed(jobs, of)
        for n, (at, cost) in enumerate(calls):
            clock.advance(begin / 1000 + at / 1000 - clock.now())
            await world.put(world.job(id=f"{n:026}", options=options(of, cost)))
            until = begin + calls[n + 1][0] if n + 1 < len(calls) else None
            while len(times) < len(calls):
                claimed = await worker.step(99)
                times |= {one.id: claimed.now_ms - begin for one in claimed.deliveries}
                due = claimed.next_due_ms
                if not claimed.deliveries and (due < 0 or (until is not None and due >= until)):
                    break
                if not claimed.deliveries:
                    clock.advance((due + 0.25) / 1000 - clock.now())
        await world.close()
        return [times[job_id] for job_id in sorted(times)]

    with asyncio.Runner() as runner:
        assert runner.run(run()) == started(of, timed(jobs, of))


@pytest.fixture(scope="module")
def raw(redis_url: str) -> Iterator[Raw]:
    raw = Raw(redis_url)
    raw.load()
    yield raw
    raw.close()


@given(rates, arrivals)
@QUICK
def test_gates_in_redis_conform_to_gcra(redis_url: str, raw: Raw, of: Rate, jobs: list[tuple[int, int]]):
    s = Script(redis_url, raw, LIBRARY)
    s.join()
    begin, times, calls = s.now, dict[str, int](), timed(jobs, of)
    for n, (at, cost) in enumerate(calls):
        s.now = begin + at
        s.put(s.job(options=options(of, cost)))
        until = begin + calls[n + 1][0] if n + 1 < len(calls) else None
        while len(times) < len(calls):
            _, now, due, ids, *_ = s.step("e1", 99)
            times |= dict.fromkeys(ids, now - begin)
            if not ids and (due < 0 or (until is not None and due >= until)):
                break
            s.now = s.now if ids else due
    assert [times[job_id] for job_id in sorted(times)] == started(of, calls)


@given(rates, arrivals)
@QUICK
def test_no_window_holds_more_than_the_rate_and_its_burst(of: Rate, jobs: list[tuple[int, int]]):
    times = started(of, [(at, 1.0) for at, _ in timed(jobs, of)])
    for begin in times:
        within = sum(1 for at in times if begin <= at < begin + of.per * 1000)
        assert within <= of.count + of.burst - 1 + 1e-9 or within <= of.burst


LIMITS = [Limit(2, key="key", per_key=1, name="few"), Limit(3, key="key", per_key=2, name="few")]
steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(4, 6)),
    st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(4, 6)),
    st.tuples(st.just("many"), st.sampled_from("abc"), st.integers(4, 6)),
    st.tuples(st.just("plain")),
    st.tuples(st.just("claim"), st.integers(0, 1), st.integers(1, 4)),
    st.tuples(st.just("settle"), st.integers(0, 1), st.sampled_from([Op.SUCCEEDED, Op.FAILED, Op.RETRY, Op.RELEASE])),
    st.tuples(st.just("twice"), st.integers(0, 1)),
    st.tuples(st.just("crash"), st.integers(0, 1), st.booleans()),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
)


class Rig:
    """Two workers on one broker, and the jobs that are limited, by key."""

    def __init__(self, world: World, of: Limit) -> None:
        self.world = world
        self.of = of
        self.keys: dict[str, str] = {}
        self.members: list[Member] = []
        self.hands: list[list[str]] = [[], []]
        self.asked: set[str] = set()

    async def begin(self) -> None:
        self.members = [await self.world.join(), await self.world.join()]

    async def put(self, key: str, priority: int = 5) -> str:
        made = await self.world.put_one(options={"limit": [self.of.name, *self.of.numbers, key]}, priority=priority)
        self.keys[made] = key
        return made

    async def claim(self, who: int, want: int, *settled: Any) -> list[str]:
        claimed = [one.id for one in await self.members[who].claim(want, *settled)]
        self.hands[who] += claimed
        running = Counter(job_id for hand in self.hands for job_id in hand if job_id in self.keys)
        running_by_key = Counter(self.keys[job_id] for job_id in running)
        assert running.total() <= self.of.most, "the limit is exceeded"
        assert max(running_by_key.values(), default=0) <= self.of.per_key, "the limit of a key is exceeded"
        return claimed

    async def do(self, kind: str, *about: Any) -> None:
        if kind == "put":
            await self.put(*about)
        elif kind == "many":
            for _ in range(8):
                await self.put(*about)
        elif kind == "plain":
            await self.world.put()
        elif kind == "claim":
            await self.claim(*about)
        elif kind == "cancel":
            if self.keys:
                await self.world.broker.cancel(list(self.keys)[about[0] % len(self.keys)])
        elif kind == "crash":
            who, crashed = about
            await self.members[who].leave(crashed=crashed, max_deliveries=3)
            self.members[who] = await self.world.join()
            self.hands[who].clear()
        elif self.hands[about[0]]:
            who, op = about[0], Op.SUCCEEDED if kind == "twice" else about[1]
            done = self.world.done(self.hands[who].pop(0), op, 0)
            await self.claim(who, 0, *[done] * (1 + (kind == "twice")))

    async def end(self) -> None:
        """Let all end, and find that no permit was lost."""
        for _ in range(500):
            idle = True
            for who in range(2):
                done = [self.world.done(job_id) for job_id in self.hands[who]]
                self.hands[who].clear()
                idle &= not await self.claim(who, 9, *done) and not done
            if idle:
                break
        depth = (await self.world.counts(), (await self.world.broker.depth([])).running)
        assert (depth[0].queued, depth[0].scheduled, depth[0].blocked, depth[1]) == (0, 0, 0, 0), "somebody starves"
        fresh = [await self.put(f"{n}") for n in range(self.of.most or 0)]
        assert sorted(await self.claim(0, 9)) == sorted(fresh), "a permit was lost"


@pytest.mark.parametrize("kind", ["memory", "redis"])
@given(st.sampled_from(LIMITS), st.lists(steps, min_size=5, max_size=40))
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_limits_hold_and_nothing_is_lost(redis_url: str, kind: str, of: Limit, program: list[tuple[Any, ...]]):
    async def run() -> None:
        clock = FrozenClock()
        opened: dict[str, Callable[[], Any]] = {
            "memory": lambda: memory.open(clock=clock),
            "redis": lambda: redis.open(redis_url, namespace=f"gates-{next(_numbers)}"),
        }
        world = World(opened[kind](), clock if kind == "memory" else None)
        try:
            rig = Rig(world, of)
            await rig.begin()
            for action in program:
                await rig.do(*action)
            await rig.end()
        finally:
            await world.close()

    with asyncio.Runner() as runner:
        runner.run(run())


_numbers = itertools.count()

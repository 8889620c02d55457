"""Random graphs of jobs on both brokers: each runs once, after all that it waits for, and ends as the policy says.

Workers die, steps are repeated because their answers were lost, waiting and running jobs are cancelled; a model says how
each job must end from how those before it did.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncworker.queue.brokers import memory, redis
from asyncworker.queue.brokers.redis import RedisBroker
from asyncworker.queue.codec import unpack_record
from asyncworker.queue.job import Delivery, Ended, Job, Op, Settled, State
from tests.support.brokers import TTL, Member, World
from tests.support.clock import FrozenClock

QUEUES = ("p", "q")
OVER = {
    Op.SUCCEEDED: State.SUCCEEDED,
    Op.FAILED: State.FAILED,
    Op.CANCELLED: State.CANCELLED,
    Op.EXPIRED: State.EXPIRED,
}
ENDS = (*[Op.SUCCEEDED] * 6, *list(OVER)[1:], Op.RETRY, Op.RELEASE)
_number = itertools.count()


@dataclass(frozen=True)
class Node:
    """One job of a graph: those before it are given by how far back they stand."""

    back: tuple[int, ...]
    queue: str
    allow_failure: bool
    inputs: bool
    ends: tuple[Op, ...]


nodes = st.builds(
    Node,
    back=st.lists(st.integers(1, 6), max_size=4, unique=True).map(tuple),
    queue=st.sampled_from(QUEUES),
    allow_failure=st.booleans(),
    inputs=st.booleans(),
    ends=st.lists(st.sampled_from(ENDS), min_size=1, max_size=3).map(tuple),
)
turns = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "work", "work", "work", "work", "again", "die", "cancel"]),
        st.integers(0, 30),
        st.integers(1, 5),
    ),
    max_size=40,
)


class Run:
    """One graph on one broker."""

    def __init__(self, world: World, graph: list[Node]) -> None:
        self.world = world
        self.graph = graph
        self.ids = [world.new_id() for _ in graph]
        self.numbers = {job_id: n for n, job_id in enumerate(self.ids)}
        self.put_in = 0
        self.tries = [0] * len(graph)
        self.over: dict[int, State] = {}  # by the model
        self.asked: set[int] = set()  # cancelled while they ran
        self.hands: list[dict[str, Delivery]] = []
        self.members: list[Member] = []

    def before(self, n: int) -> list[int]:
        return [n - back for back in self.graph[n].back if back <= n]

    async def begin(self) -> None:
        for _ in range(2):
            self.members.append(await self.world.join(*QUEUES))
            self.hands.append({})

    async def turn(self, what: str, which: int, count: int) -> None:
        if what == "put":
            await self.put(count)
        elif what == "cancel" and self.put_in:
            await self.cancel(which % self.put_in)
        elif what == "die":
            await self.die(which % 2)
        elif what in {"work", "again"}:
            await self.work(which % 2, count, again=what == "again")

    async def put(self, count: int) -> None:
        jobs = []
        for n in range(self.put_in, min(self.put_in + count, len(self.graph))):
            node, before = self.graph[n], self.before(n)
            options: dict[str, Any] = {"allow_failure": node.allow_failure}
            if node.inputs and before:
                options["inputs"] = len(before)
            after = tuple(self.ids[one] for one in before)
            jobs.append(Job(self.ids[n], node.queue, b"call", options=options, after=after))
        receipts = await self.world.broker.enqueue(jobs)
        assert receipts == ["ok"] * len(jobs)
        self.put_in += len(jobs)
        self.settle_model()

    async def cancel(self, n: int) -> None:
        state = await self.world.broker.cancel(self.ids[n])
        if n in self.over:
            assert state is self.over[n]
            return
        held = any(self.ids[n] in hand for hand in self.hands)
        assert (state is State.RUNNING) == held
        if held:
            self.asked.add(n)
        else:
            self.end(n, State.CANCELLED)

    async def die(self, who: int) -> None:
        held = [self.numbers[job_id] for job_id in self.hands[who]]
        await self.members[who].leave(crashed=True, max_deliveries=100)
        self.hands[who].clear()
        for n in sorted(held):
            if n in self.asked:
                self.end(n, State.CANCELLED)
        self.members[who] = await self.world.join(*QUEUES)

    async def work(self, who: int, want: int, *, again: bool = False) -> None:
        settled = []
        hand, member = self.hands[who], self.members[who]
        for job_id, delivery in list(hand.items())[:want]:
            n = self.numbers[job_id]
            ends = self.graph[n].ends
            op = Op.SUCCEEDED if self.tries[n] >= len(ends) else ends[self.tries[n]]
            self.tries[n] += 1
            number = 0 if op is Op.RETRY else TTL
            plain = delivery.plain and op is Op.SUCCEEDED
            settled.append(Settled(job_id, op, delivery.queue, number, f"record {n}".encode(), plain))
            del hand[job_id]
        queues = dict.fromkeys(QUEUES, want)
        claimed = await member.step(want, *settled, queues=queues)
        for one in settled:
            n = self.numbers[one.id]
            if one.op in OVER:
                self.end(n, OVER[one.op])
            elif n in self.asked:
                self.end(n, State.CANCELLED)
        for delivery in claimed.deliveries:
            await self.check(delivery)
            hand[delivery.id] = delivery
        if again and isinstance(self.world.broker, RedisBroker):  # as after a lost answer
            self.world.broker._members[member.epoch].seq -= 1
            repeated = await member.step(want, *settled, queues=queues)
            assert repeated.held == set(hand)

    async def check(self, delivery: Delivery) -> None:
        """See that a job may run now, and that it is given what it asked for."""
        n = self.numbers[delivery.id]
        assert n not in self.over, "it is over"
        assert not any(delivery.id in hand for hand in self.hands), "it runs already"
        before = self.before(n)
        assert all(one in self.over for one in before), "too early"
        assert self.graph[n].allow_failure or all(self.over[one] is State.SUCCEEDED for one in before)
        names = [f"{delivery.id}.{place}" for place in range(delivery.options.get("inputs", 0))]
        for one, ended in zip(before, await self.world.broker.wait(names, 0), strict=False):
            assert isinstance(ended, Ended)
            assert ended.state is self.over[one]
            if ended.state is State.SUCCEEDED:
                assert ended.record == f"record {one}".encode()

    def end(self, n: int, state: State) -> None:
        assert n not in self.over, "it ended twice"
        self.over[n] = state
        self.settle_model()

    def settle_model(self) -> None:
        """Let those fail that cannot run any more."""
        for n in range(self.put_in):
            doomed = any(self.over.get(one, State.SUCCEEDED) is not State.SUCCEEDED for one in self.before(n))
            if n not in self.over and doomed and not self.graph[n].allow_failure:
                self.over[n] = State.FAILED

    async def compare(self) -> None:
        found = await self.world.broker.find(self.ids[: self.put_in])
        for n, one in enumerate(found):
            assert one is not None
            before = self.before(n)
            assert (one.state.terminal, one.state if one.state.terminal else None) == (n in self.over, self.over.get(n))
            waiting = [self.ids[k] for k in before if k not in self.over]
            if n in self.over:
                record = unpack_record(one.record) if one.record[:1] == b"\x99" else None
                by_others = record is not None and record.reason == "dependency"
                assert not by_others or not self.graph[n].allow_failure
                continue
            assert (one.state is State.BLOCKED) == bool(waiting)
            assert list(one.waits_for) == waiting
            if before:
                assert one.after is not None
                assert (one.after.total, one.after.done) == (len(before), len(before) - len(waiting))

    async def end_all(self) -> None:
        """Let all that can run end, and count."""
        await self.put(len(self.graph))
        for _ in range(4 * len(self.graph) + 4):
            for who in range(2):
                await self.work(who, 5)
        await self.compare()
        assert len(self.over) == len(self.graph), "stuck"
        depth = await self.world.broker.depth(QUEUES)
        counts = depth.queues.values()
        assert sum(queue.enqueued for queue in counts) == len(self.graph)
        for state in set(OVER.values()):
            expected = sum(1 for one in self.over.values() if one is state)
            assert sum(getattr(queue, state.value) for queue in counts) == expected
        assert (depth.running, [queue.queued + queue.scheduled for queue in counts]) == (0, [0, 0])


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@given(graph=st.lists(nodes, min_size=2, max_size=14), turns=turns)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_graphs_end_as_they_must(
    request: pytest.FixtureRequest,
    kind: str,
    runner: asyncio.Runner,
    graph: list[Node],
    turns: list[tuple[str, int, int]],
):
    async def run() -> None:
        clock = FrozenClock()
        if kind == "memory":
            world = World(memory.open(clock=clock), clock)
        else:
            url = request.getfixturevalue("redis_url")
            world = World(redis.open(url, namespace=f"graphs-{next(_number)}"), None)
        try:
            it = Run(world, graph)
            await it.begin()
            for turn in turns:
                await it.turn(*turn)
                await it.compare()
            await it.end_all()
        finally:
            await world.close()

    runner.run(run())

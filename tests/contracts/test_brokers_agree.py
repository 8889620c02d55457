"""Whatever is done to them, the broker in this process and the one on Redis answer the same.

Random programs are run on both side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncworker.errors import DecodeError, JobNotFound
from asyncworker.queue.admin import Admin
from asyncworker.queue.brokers import memory, redis
from asyncworker.queue.codec import unpack_record
from asyncworker.queue.job import Op, child_id, parent_of
from asyncworker.queue.limit import Limit
from tests.support.brokers import TTL, Member, World
from tests.support.clock import FrozenClock

FAR_MS = 60_000
ENDS = (Op.SUCCEEDED, Op.FAILED, Op.CANCELLED, Op.EXPIRED)
TWO = Limit(2, key="key", per_key=1, name="two")
OPS = (
    *ENDS,
    Op.SUCCEEDED,
    Op.SUCCEEDED,
    Op.RETRY,
    Op.SNOOZE,
    Op.PUT_BACK,
    Op.RELEASE,
    Op.CHUNK,
    Op.CHECKPOINT,
    Op.OPEN,
    Op.SEAL,
)

number = st.integers(0, 40)
actions = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 9), st.sampled_from([0, 0, 0, 60])),
    st.tuples(st.just("unique"), st.sampled_from("kl"), st.sampled_from([0, 0, 60])),
    st.tuples(st.just("limited"), st.sampled_from("ab"), st.integers(4, 5), st.sampled_from([0, 0, 60])),
    st.tuples(st.just("limited"), st.sampled_from("ab"), st.integers(4, 5), st.sampled_from([0, 0, 60])),
    st.tuples(st.just("parent"), number),
    st.tuples(st.just("child"), number, number),
    st.tuples(
        st.just("after"), number, number, st.sampled_from([{}, {"allow_failure": True}, {"inputs": 2}]), st.booleans()
    ),
    st.tuples(st.just("again"), number),
    st.tuples(st.just("step"), number, st.integers(1, 4), st.lists(st.sampled_from([None, *OPS]), max_size=6)),
    st.tuples(st.just("step"), number, st.integers(1, 4), st.lists(st.sampled_from([None, *OPS]), max_size=6)),
    st.tuples(st.just("cancel"), number),
    st.tuples(st.just("leave"), number, st.booleans()),
    st.tuples(st.just("pause"), st.booleans()),
    st.tuples(st.just("wait"), number),
)


class Pair:
    """Two worlds to which the same is done."""

    def __init__(self, worlds: list[World]) -> None:
        self.worlds = worlds
        self.ids: list[str] = []
        self.parents: list[str] = []
        self.members: list[list[Member]] = []
        self.hands: list[dict[str, bool]] = []  # id -> whether it is still being cut

    async def both(self, act: Any) -> Any:
        """Do something in both worlds and return what both answer."""
        answers = []
        for n, world in enumerate(self.worlds):
            try:
                answers.append(await act(n, world))
            except JobNotFound:
                answers.append(JobNotFound)
        assert answers[0] == answers[1]
        return answers[0]

    async def begin(self) -> None:
        for _ in range(3):
            self.members.append([await world.join() for world in self.worlds])
            self.hands.append({})

    async def put(self, job_id: str, **more: Any) -> None:
        hold = more.pop("hold", None)

        async def enqueue(n: int, world: World) -> Any:
            holder = {"hold": self.members[hold][n].epoch} if hold is not None else {}
            job = world.job(id=job_id, queue="q", **more, **holder)
            return await world.broker.enqueue([job])

        (receipt,) = await self.both(enqueue)
        if receipt == "ok":
            self.ids.append(job_id)
            if hold is not None:
                self.parents.append(job_id)
                self.hands[hold][job_id] = True

    async def do(self, action: tuple[Any, ...]) -> None:
        kind, *about = action
        if kind == "put":
            await self.put(self.worlds[0].new_id(), priority=about[0], delay_s=about[1])
        elif kind == "unique":
            await self.put(self.worlds[0].new_id(), options={"unique": about[0]}, delay_s=about[1])
        elif kind == "limited":
            options = {"limit": [TWO.name, *TWO.numbers, about[0]]}
            await self.put(self.worlds[0].new_id(), options=options, priority=about[1], delay_s=about[2])
        elif kind == "parent":
            await self.put(self.worlds[0].new_id(), hold=about[0] % 3)
        elif kind == "after":
            await self.after(*about)
        elif kind == "child":
            if self.parents:
                await self.put(child_id(self.parents[about[0] % len(self.parents)], about[1] % 5))
        elif kind == "step":
            await self.step(about[0] % 3, about[1], about[2])
        elif kind == "pause":
            await self.pause(about[0])
        elif kind == "leave":
            await self.leave(about[0] % 3, about[1])
        elif self.ids:  # again, cancel or wait
            job_id = self.ids[about[0] % len(self.ids)]
            await {"again": self.put, "cancel": self.cancel, "wait": self.wait}[kind](job_id)

    async def after(self, first: int, second: int, options: dict[str, Any], late: bool) -> None:
        """Enqueue a job that waits for two others; children, which go when their parent does, are not waited for."""
        if former := [job_id for job_id in self.ids if parent_of(job_id) is None]:
            after = dict.fromkeys(former[place % len(former)] for place in (first, second))
            delay_s = 60 if late else 0
            await self.put(self.worlds[0].new_id(), after=tuple(after), options=options, delay_s=delay_s)

    async def cancel(self, job_id: str) -> None:
        await self.both(lambda n, world: world.broker.cancel(job_id))

    async def pause(self, paused: bool) -> None:
        async def switch(n: int, world: World) -> None:
            admin = world.broker
            assert isinstance(admin, Admin)
            await (admin.pause if paused else admin.resume)("q")

        await self.both(switch)

    async def wait(self, job_id: str) -> None:
        await self.both(lambda n, world: self.look(world, job_id))
        await self.both(lambda n, world: world.broker.wait([f"{job_id}:1"], 0))
        await self.both(lambda n, world: world.broker.wait([f"{job_id}.1"], 0))

    async def look(self, world: World, job_id: str) -> Any:
        (ended,) = await world.broker.wait([job_id], 0)
        return ended and (ended.state, undated(ended.record))

    async def step(self, who: int, want: int, ops: list[Op | None]) -> None:
        hand = self.hands[who]
        settled = []
        for job_id, op in zip(list(hand), ops, strict=False):
            fits = op not in {Op.SEAL, Op.CHUNK, Op.OPEN} or (op is Op.SEAL and hand[job_id])
            if op is Op.CHUNK and parent_of(job_id):
                settled.append((job_id, op, 1))
            elif op is Op.CHECKPOINT:
                settled.append((job_id, op, 0))
            elif op is Op.OPEN:  # of one that is no parent, or takes children already, nothing comes
                settled.append((job_id, op, 0))
                hand[job_id] = job_id in self.parents
            elif op and fits and (not hand[job_id] or op in {Op.SEAL, Op.FAILED}):
                settled.append((job_id, op, FAR_MS if op in {Op.SNOOZE, Op.PUT_BACK} else 0 if op is Op.RETRY else TTL))
                del hand[job_id]

        async def step(n: int, world: World) -> Any:
            done = [world.done(job_id, op, number) for job_id, op, number in settled]
            claimed = await self.members[who][n].step(want, *done, queues=["q"])
            return [
                (d.id, d.payload, d.priority, d.attempt, d.deliveries, d.put_back, d.checkpoint)
                for d in claimed.deliveries
            ]

        for job_id, *_ in await self.both(step):
            for others in self.hands:
                others.pop(job_id, None)  # a parent that was released out of its feeder's hands
            hand[job_id] = False

    async def leave(self, who: int, crashed: bool) -> None:
        hand = self.hands[who]
        if list(hand) != sorted(hand):
            return  # in which order they come back is asked of jobs that are claimed as they are aged
        await self.both(lambda n, world: self.count_left(n, who, crashed))
        self.members[who] = [await world.join() for world in self.worlds]
        hand.clear()

    async def count_left(self, n: int, who: int, crashed: bool) -> None:
        await self.members[who][n].leave(crashed=crashed, max_deliveries=2)

    async def compare(self) -> None:
        """Look at every job, and count."""

        async def look(n: int, world: World) -> Any:
            found = await world.broker.find(self.ids)
            return [
                one
                and (one.id, one.state, undated(one.record))
                + (
                    (one.attempt, one.deliveries, one.payload, one.priority, one.children, one.after, one.waits_for)
                    if not one.state.terminal
                    else ()
                )
                for one in found
            ]

        await self.both(look)

    async def end(self) -> None:
        """Let all that can run end, and compare the counts."""
        await self.pause(False)
        for _ in range(60):
            for who in range(3):
                await self.step(who, 4, [Op.SEAL if is_open else Op.SUCCEEDED for is_open in self.hands[who].values()])
        await self.compare()
        for job_id in self.ids:
            await self.cancel(job_id)

        async def count(n: int, world: World) -> Any:
            await self.members[0][n].step(1, queues=["q"])
            depth = await world.broker.depth(["q"])
            counts = depth.queues["q"]
            ended = counts.succeeded + counts.failed + counts.cancelled + counts.expired
            assert counts.enqueued == ended + counts.queued + counts.scheduled + counts.blocked + depth.running
            return counts.enqueued, counts.queued, counts.scheduled, counts.retried, counts.redelivered, counts.blocked

        await self.both(count)


def undated(record: bytes) -> Any:
    """Return what a record tells, but for when it ended: each broker has a clock of its own."""
    try:
        return msgspec.structs.replace(unpack_record(record), ended_s=0)
    except DecodeError:
        return record


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@given(st.lists(actions, min_size=5, max_size=40))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_memory_and_redis_agree(redis_url: str, runner: asyncio.Runner, program: list[tuple[Any, ...]]):
    runner.run(agree(redis_url, program))


@pytest.mark.long
@pytest.mark.timeout(900)
@given(st.lists(actions, min_size=5, max_size=40))
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
def test_memory_and_redis_agree_on_many_programs(
    redis_url: str, runner: asyncio.Runner, program: list[tuple[Any, ...]]
):
    runner.run(agree(redis_url, program))


async def agree(redis_url: str, program: list[tuple[Any, ...]]) -> None:
    """Run a program on both, and compare after each action."""
    clock = FrozenClock()
    worlds = [World(memory.open(clock=clock), clock)]
    worlds.append(World(redis.open(redis_url, namespace=f"agree-{worlds[0].new_id()}"), None))
    try:
        pair = Pair(worlds)
        await pair.begin()
        for action in program:
            await pair.do(action)
            await pair.compare()
        await pair.end()
    finally:
        for world in worlds:
            await world.close()

"""How tests get a broker of each kind, and the few moves that every test of brokers makes."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import pytest

from asyncworker import registry
from asyncworker.queue.admin import Admin
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import Ids
from asyncworker.queue.job import (
    Claimed,
    Delivery,
    Found,
    Job,
    Op,
    QueueDepth,
    Receipt,
    Settled,
    State,
    WorkerCard,
    child_id,
)
from tests.support.clock import FrozenClock

T = TypeVar("T")
PATIENCE = 10.0
TTL = 600
_number = itertools.count()


@dataclass(frozen=True)
class Make:
    """How to open one kind: a fixed URL, or the name of the fixture that yields it.

    ``frozen``: it takes the test's clock. ``long``: with ``--long`` only.
    """

    scheme: str
    url: str = ""
    fixture: str = ""
    frozen: bool = False
    long: bool = False

    def open(self, request: pytest.FixtureRequest, clock: FrozenClock | None) -> Broker:
        url = self.url or request.getfixturevalue(self.fixture)
        more = {"clock": clock} if clock else {}
        return registry.find("broker", self.scheme).open(url, namespace=f"test-{next(_number)}", **more)


MAKES = {
    "memory": Make("memory", url="memory://", frozen=True),
    "redis": Make("redis", fixture="redis_url"),
    "redis-debian": Make("redis", fixture="debian_redis_url"),
    "redis-limited": Make("redis", fixture="limited_redis_url", long=True),  # as a user with our rights alone
    "embedded": Make("embedded", url="embedded://", long=True),  # a server a test, and all verbs are those of redis
}


def makes() -> list[Any]:
    """Return a parameter for every broker of the room; a newcomer is opened by ``<name>://`` until it is listed above."""
    known = registry.names("broker")
    listed = {name: make for name, make in MAKES.items() if make.scheme in known}
    newcomers = sorted(set(known) - {make.scheme for make in MAKES.values()})
    all_of_them = listed | {name: Make(name, url=f"{name}://") for name in newcomers}
    return [pytest.param(one, id=name, marks=[pytest.mark.long] * one.long) for name, one in all_of_them.items()]


async def until(look: Callable[[], Awaitable[T]], patience: float = PATIENCE) -> T:
    """Look again and again until there is something to see, and return it."""
    deadline = time.monotonic() + patience
    while not (seen := await look()):
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.002)
    return seen


def admin_of(world: World) -> Admin:
    """Return the broker as those see it who look after queues."""
    assert isinstance(world.broker, Admin)
    return world.broker


@dataclass(eq=False)
class Member:
    """A worker that does only what a test says."""

    world: World
    epoch: str
    notices: list[str] = field(default_factory=list)

    async def step(
        self, want: int = 0, *settled: Settled, queues: Sequence[str] | Mapping[str, int] = (), idle: bool = False
    ) -> Claimed:
        """Settle and claim; of *queues* (the world's own, when none is given) *want* each, or as many as it says."""
        if not isinstance(queues, Mapping):
            queues = dict.fromkeys(queues or [self.world.queue], want)
        return await self.world.broker.step(self.epoch, settled, queues, want, idle=idle)

    async def claim(
        self, want: int = 1, *settled: Settled, queues: Sequence[str] | Mapping[str, int] = ()
    ) -> list[Delivery]:
        return (await self.step(want, *settled, queues=queues)).deliveries

    async def claim_one(self) -> Delivery:
        (delivery,) = await self.claim(1)
        return delivery

    async def beat(self) -> Any:
        return await asyncio.to_thread(self.world.broker.beat, self.epoch)

    async def leave(self, *, crashed: bool = False, **more: int) -> int:
        return await self.world.broker.reap(self.epoch, "", crashed=crashed, **more)

    async def told(self, word: str) -> None:
        async def look() -> bool:
            return word in self.notices

        await until(look)


class World:
    """One broker, a queue that no other test uses, and who works on it."""

    def __init__(self, broker: Broker, clock: FrozenClock | None) -> None:
        self.broker = broker
        self.clock = clock
        self.queue = f"q{next(_number)}"
        self.new_id = Ids()
        self._members: list[Member] = []

    async def join(self, *queues: str, lease_s: float = 30.0, role: str = "worker") -> Member:
        member = Member(self, "")
        card = WorkerCard(
            host="here",
            pid=7,
            queues=queues or (self.queue,),
            concurrency=3,
            lease_s=lease_s,
            started_s=1.5,
            version="1",
            role=role,
        )
        member.epoch = await self.broker.join(card, member.notices.append)
        self._members.append(member)
        return member

    def job(self, payload: bytes = b"call", id: str = "", **more: Any) -> Job:
        return Job(**{"id": id or self.new_id(), "queue": self.queue, "payload": payload} | more)

    async def put(self, *jobs: Job, count: int = 1, **more: Any) -> list[str]:
        """Enqueue jobs (or *count* new ones) and return their ids."""
        jobs = jobs or tuple(self.job(**more) for _ in range(count))
        assert await self.broker.enqueue(jobs) == [Receipt.ACCEPTED] * len(jobs)
        return [job.id for job in jobs]

    async def put_one(self, **more: Any) -> str:
        (job_id,) = await self.put(**more)
        return job_id

    async def parent(self, feeder: Member, children: int = 0) -> tuple[str, list[str]]:
        """Enqueue a parent in the feeder's hands, and its children."""
        parent = await self.put_one(hold=feeder.epoch)
        jobs = [self.job(id=child_id(parent, part)) for part in range(children)]
        return parent, await self.put(*jobs) if jobs else []

    def done(self, job_id: str, op: Op = Op.SUCCEEDED, number: int = TTL, value: bytes = b"record") -> Settled:
        return Settled(job_id, op, self.queue, number, value)

    async def found(self, job_id: str) -> Found:
        (found,) = await self.broker.find([job_id])
        assert found is not None, "nobody knows this job"
        return found

    async def state(self, job_id: str) -> State:
        return (await self.found(job_id)).state

    async def counts(self) -> QueueDepth:
        """Return what the broker counts of the world's queue, but for how long the oldest job waits."""
        depth = await self.broker.depth([self.queue])
        return msgspec.structs.replace(depth.queues[self.queue], oldest_s=0)

    async def pass_time(self, seconds: float) -> None:
        """Return when the broker's clock has moved on by *seconds*."""
        if self.clock:
            self.clock.advance(seconds)
            return
        member = await self.join()
        goal = (await member.step()).now_ms + seconds * 1000

        async def look() -> bool:
            return (await member.step()).now_ms >= goal

        await until(look, PATIENCE + seconds)

    async def close(self) -> None:
        for member in self._members:
            await member.leave()
        await self.broker.close()

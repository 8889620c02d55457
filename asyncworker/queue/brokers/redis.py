"""``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://`` and ``redis+cluster://``: the broker that lives in Redis (7.0 or newer) or Valkey.

What lies in Redis, and what each call does there, stands in ``lua/``, its layout in ``lua/layout.lua``; here is the other end of the wire. Calls
that change something carry a number, so that repeating one, which is what follows any error, applies it once. Steps
are repeated until they are answered; all other calls give up with `BrokerDown` after ``patience`` seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import pkgutil
import re
import secrets
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BadParameters, BrokerDown, JobNotFound, LeaseLost, SettingsError
from asyncworker.events import Bus
from asyncworker.queue import parcel
from asyncworker.queue.addresses.address import address_of
from asyncworker.queue.admin import Plans
from asyncworker.queue.body import pack_body
from asyncworker.queue.brokers.broker import Answer, Look, Notice
from asyncworker.queue.codec import pack
from asyncworker.queue.durability import DISK, LEVELS, REPLICA, Assurance
from asyncworker.queue.inbox import Inbox
from asyncworker.queue.job import (
    APART,
    MAX_DELIVERIES,
    Claimed,
    Depth,
    Ended,
    Found,
    Job,
    Missing,
    Receipt,
    Settled,
    State,
    Twin,
    WorkerCard,
)
from asyncworker.queue.lane import Waiter
from asyncworker.queue.listing import page
from asyncworker.queue.member import Member
from asyncworker.queue.producer import BlockingProducer, Producer
from asyncworker.queue.script import ANSWER_S, Script, facts
from asyncworker.queue.search import MOST, Page, Query

PARTS = (
    "layout",
    "bodies",
    "places",
    "limits",
    "ends",
    "graphs",
    "enqueue",
    "step",
    "epochs",
    "looks",
    "people",
    "register",
)
TEXT = "\n".join((pkgutil.get_data(__name__, f"lua/{part}.lua") or b"").decode() for part in PARTS)
"""The functions: one library, so a part knows those before it."""
READS = frozenset(re.findall(r"^register\('(\w+)', \w+, 'no-writes'\)", TEXT, re.MULTILINE))
"""Functions that a server runs that takes no writes."""
MOST_LOOKS = 200
"""Ids that one call looks up."""
LOOKS = {"no": 0, "yes": 1, "others": 2}
WAITAOF_SINCE = (7, 2)


class RedisBroker:
    """Carry jobs through Redis; see `Broker` for what each verb promises.

    Connections are opened when first used: one each to step, to send jobs, to look, to listen, and a blocking one
    for `beat`.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "asyncworker",
        bus: Bus | None = None,
        clock: Clock = SYSTEM,
        patience: float = 5.0,
    ) -> None:
        if not namespace or set(namespace) & set("{} \r\n"):
            raise SettingsError(f"a namespace is a word without braces, not {namespace!r}")
        self._tag = f"{{{namespace}:0}}:"
        self._address = address_of(url, self._tag)
        self._name = secrets.token_hex(8)
        self._patience = patience
        key = f"{self._tag}b"
        self._script = Script(self._address, TEXT, key, patience=patience, bus=bus or Bus(), clock=clock, reads=READS)
        self._looking = self._script.wire()
        self._beating = self._script.caller()
        self._senders = {"memory": Producer(self._script)}
        self._blocking = BlockingProducer(self._script)
        self._inbox = Inbox(self._address, self._heard, self._resumed, min(ANSWER_S, patience))
        self._members: dict[str, Member] = {}
        self._waiters: dict[str, set[asyncio.Future[Ended | None]]] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<RedisBroker {self._address}>"

    async def join(self, card: WorkerCard, notice: Notice) -> str:
        epoch = f"h{secrets.token_hex(12)}"  # h: it may be handed jobs
        self._members[epoch] = Member(epoch, notice, self._script, partial(self._forget, epoch))
        try:
            await self._listen(epoch)
            await self._ask("join", epoch, pack(card), round(card.lease_s * 1000))
        except BaseException:
            await self._forget(epoch)
            raise
        return epoch

    async def enqueue(self, jobs: Sequence[Job]) -> list[Answer]:
        batches = parcel.batches(jobs)
        asked = {job.durable for job in jobs}
        level = max(asked, key=LEVELS.index, default=LEVELS[0])
        lane = (self._senders.get(level) or await self._sender(level)).lane
        if len(batches) == 1:
            return await lane(batches[0])
        return [receipt for batch in batches for receipt in await lane(batch)]

    def enqueue_blocking(self, job: Job) -> Answer:
        if job.durable != "memory":
            raise BadParameters(f"durable={job.durable!r} is for coroutines: enqueue it by await")
        return self._blocking.send([parcel.parcel(job)])[0]

    def post(self, job: Job, waiter: Waiter[Answer]) -> None:
        self._senders["memory"].lane.post([parcel.parcel(job)], waiter)

    async def _sender(self, level: str) -> Producer:
        """Return who sends what must be as safe as *level*.

        Raises:
            SettingsError: this server cannot say that something is on disk.
        """
        assured: Assurance | None = REPLICA if level == "replica" else DISK
        if level == "disk":
            about = facts(await self._script.ask(self._looking, "INFO"))
            if about.get("aof_enabled") != "1":
                raise SettingsError(f"durable='disk' needs a server with appendonly yes, which {self._address} is not")
            if tuple(map(int, about["redis_version"].split(".")[:2])) < WAITAOF_SINCE:
                said = await self._script.ask(self._looking, "CONFIG", "GET", "appendfsync")
                if said[1] != b"always":
                    raise SettingsError(
                        f"durable='disk' needs Redis 7.2, Valkey 7.2 or appendfsync always, which {self._address} is not"
                    )
                assured = None
        return self._senders.setdefault(level, Producer(self._script, assured))

    async def step(
        self, epoch: str, settled: Sequence[Settled], queues: Mapping[str, int], want: int, *, idle: bool = False
    ) -> Claimed:
        member = self._members.get(epoch)
        if member is not None and (handed := member.take(settled, queues, want)) is not None:
            return handed
        return await self.begin(epoch, settled, queues, want, idle=idle)

    def begin(
        self, epoch: str, settled: Sequence[Settled], queues: Mapping[str, int], want: int, *, idle: bool
    ) -> Coroutine[Any, Any, Claimed]:
        member = self._members.get(epoch)
        return _lost() if member is None else member.step(settled, queues, want, idle=idle)

    def handed(self, epoch: str, queues: Mapping[str, int]) -> Claimed | None:
        member = self._members.get(epoch)
        return None if member is None else member.take((), queues, 1)

    def beat(self, epoch: str, *, look: Look = "yes") -> Mapping[str, str] | None:
        answer = self._beating.once("beat", epoch, LOOKS[look])
        if answer[0] == -1:
            raise LeaseLost
        if len(answer) == 1:
            return None
        texts = [text.decode() for text in answer[1]]
        return dict(zip(texts[::2], texts[1::2], strict=True))

    async def reap(self, epoch: str, seen: str, *, crashed: bool, max_deliveries: int = MAX_DELIVERIES + APART) -> int:
        held: int = await self._ask("reap", epoch, seen, int(crashed), max_deliveries)
        if not seen:
            await self._forget(epoch)
        return held

    async def wait(self, ids: Sequence[str], timeout: float | None) -> list[Ended | None]:
        if timeout == 0:
            answers = await self._outcomes("look", ids)
            return [answers[job_id] for job_id in ids]
        await self._listen(self._name)
        loop = asyncio.get_running_loop()
        waits: dict[str, asyncio.Future[Ended | None]] = {job_id: loop.create_future() for job_id in ids}
        for job_id, future in waits.items():
            self._waiters.setdefault(job_id, set()).add(future)
        try:
            answers = await self._outcomes("wait", list(waits))
            pending = [future for job_id, future in waits.items() if answers[job_id] is None]
            if len(pending) == 1:
                with suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await pending[0]  # a turn of the loop sooner than by `asyncio.wait`
            elif pending:
                await asyncio.wait(pending, timeout=timeout)
        finally:
            for job_id, future in waits.items():
                self._waiters[job_id].discard(future)
                if not self._waiters[job_id]:
                    del self._waiters[job_id]
        if self._closed:
            raise BrokerDown("the broker was closed")
        told = {
            job_id: future.result()
            for job_id, future in waits.items()
            if answers[job_id] is None and future.done() and not future.cancelled()
        }
        answers.update(told)
        if untold := [job_id for job_id, ended in told.items() if ended is None]:
            answers.update(await self._outcomes("look", untold))
        return [answers[job_id] for job_id in ids]

    async def find(self, ids: Sequence[str]) -> list[Found | None]:
        found: list[Found | None] = []
        for some in _slices(ids):
            found += map(parcel.found, some, await self._ask("find", *some))
        return found

    async def running(self, parent: str) -> list[str]:
        return [child.decode() for child in await self._ask("running", parent)]

    async def cancel(self, job_id: str) -> State | None:
        state: bytes | None = await self._ask("cancel", job_id)
        return (parcel.STATES.get(state) or State(state.decode())) if state else None

    async def depth(self, queues: Sequence[str]) -> Depth:
        return parcel.depth(queues, await self._ask("depth", *queues))

    async def regulate(self, numbers: Mapping[str, Sequence[float]]) -> None:
        words = itertools.chain.from_iterable((name, pack(list(some))) for name, some in numbers.items())
        await self._ask("regulate", *words)

    async def queues(self) -> list[str]:
        fields = itertools.chain.from_iterable(await self._ask("queues"))
        return sorted({field.decode()[:-2] for field in fields})

    async def pause(self, queue: str) -> None:
        await self._ask("switch", queue, "p", 1)

    async def resume(self, queue: str) -> None:
        await self._ask("switch", queue, "p", "")

    async def bound(self, queue: str, most: int | None) -> None:
        await self._ask("switch", queue, "b", "" if most is None else most)

    async def strike(self, name: str, text: bytes | None) -> bool:
        return bool(await self._ask("strike", name, text or b""))

    async def strikes(self) -> dict[str, bytes]:
        return (await self.plans()).strikes

    async def schedule(self, name: str, text: bytes | None) -> bool:
        return bool(await self._ask("schedule", name, text or b""))

    async def schedules(self) -> tuple[dict[str, bytes], dict[str, int]]:
        plans = await self.plans()
        return plans.schedules, plans.ticks

    async def plans(self) -> Plans:
        schedules, ticks, strikes = map(_pairs, await self._ask("plans") or ((), (), ()))
        return Plans(schedules, {name: int(tick) for name, tick in ticks.items()}, strikes)

    async def fire(self, name: str, tick_ms: int, job: Job) -> Receipt | Twin | Missing | None:
        return parcel.fired(await self._ask("fire", name, tick_ms, job.queue, job.id, pack_body(job)))

    async def jobs(self, query: Query, cursor: str = "", limit: int = MOST) -> Page:
        return await page(self._ask, self.find, query, cursor, limit)

    async def dead(self) -> list[str]:
        return sorted(job_id.decode() for job_id in await self._ask("dead"))

    async def replay(self, ids: Sequence[str]) -> list[bool]:
        return [bool(lives) for some in _slices(ids) for lives in await self._ask("replay", *some)]

    async def purge(self, ids: Sequence[str]) -> None:
        for some in _slices(ids):
            await self._ask("purge", *some)

    async def close(self) -> None:
        self._closed = True
        await self._script.close()
        for future in itertools.chain.from_iterable(self._waiters.values()):
            if not future.done():
                future.set_result(None)
        await self._inbox.close()
        for sender in self._senders.values():
            await sender.lane.close()

    async def _ask(self, verb: str, *args: Any) -> Any:
        return await self._script.call(self._looking, verb, args)

    async def _outcomes(self, verb: str, ids: Sequence[str]) -> dict[str, Ended | None]:
        outcomes: dict[str, Ended | None] = {}
        for some in _slices(ids):
            for job_id, said in zip(some, await self._ask(verb, self._name, *some), strict=True):
                if said is None:
                    raise JobNotFound(f"no job has the id {job_id}")
                outcomes[job_id] = Ended(parcel.STATES[said[:1]], said[1:]) if said else None
        return outcomes

    async def _listen(self, name: str) -> None:
        channel = f"{self._tag}in:{name}"
        if self._inbox.hears(channel):
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._inbox.listen(channel)
        except TimeoutError as exc:
            raise BrokerDown(f"{self._address} does not answer") from exc

    async def _forget(self, epoch: str) -> None:
        if member := self._members.pop(epoch, None):
            member.close()
            await self._inbox.leave(f"{self._tag}in:{epoch}")

    def _heard(self, channel: str, message: bytes) -> None:
        name = channel[len(self._tag) + 3 :]
        kind, rest = message[:1], message[1:]
        if member := self._members.get(name):
            if kind == b"w":
                member.stirred.add(rest.decode())
                member.notice("")
            elif kind == b"j":
                member.hand(rest)
            else:
                member.notice(rest.decode())
        elif kind == b"v":
            job_id, _, record = rest[1:].partition(b" ")
            self._tell(job_id.decode(), Ended(parcel.STATES[rest[:1]], record))
        elif kind == b"o":
            self._tell(rest.decode(), None)

    def _tell(self, job_id: str, ended: Ended | None) -> None:
        """Tell who waits; None is: it is over, look how."""
        for future in self._waiters.get(job_id, ()):
            if not future.done():
                future.set_result(ended)

    async def _resumed(self) -> None:
        """After messages may have been missed: let workers look, and ask again for those who wait."""
        for epoch, member in list(self._members.items()):
            member.stirred |= member.asleep
            member.notice("")
            for job_id in await self._ask("asked", epoch):
                member.notice(job_id.decode())
        for some in _slices(list(self._waiters)):
            for job_id, said in zip(some, await self._ask("wait", self._name, *some), strict=True):
                if said is None or said:
                    self._tell(job_id, None)


def open(  # the room's word, as in `registry`
    url: str, *, namespace: str = "asyncworker", bus: Bus | None = None, clock: Clock = SYSTEM
) -> RedisBroker:
    """Return a broker on the Redis at *url*; nothing is connected before it is used.

    Raises:
        SettingsError: a URL or namespace that cannot be used.
    """
    return RedisBroker(url, namespace=namespace, bus=bus, clock=clock)


async def _lost() -> Claimed:
    raise LeaseLost


def _pairs(said: Sequence[bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in zip(said[::2], said[1::2], strict=True)}


def _slices(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), MOST_LOOKS):
        yield ids[start : start + MOST_LOOKS]

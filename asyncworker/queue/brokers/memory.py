"""``memory://``: the broker that lives in this process, and dies with it.

Each `open` is a world of its own: two engines share nothing. All verbs run in one event loop; `beat` alone may
be called from another thread, and touches only what the lock guards.

Where a job lies says what state it is in: in a level of its queue, among its queue's delayed jobs, in the hands
of an epoch, or nowhere (blocked). ``_lift`` takes it from where it is, ``_ready``, ``_later`` and ``_hand`` lay it
down, and each job ends through ``_leave``. Nothing is searched: every step costs O(jobs moved).
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import threading
from bisect import bisect_left, insort
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BrokerDown, JobNotFound, JobTooBig, LeaseLost
from asyncworker.events import Bus
from asyncworker.queue.brokers.broker import Notice
from asyncworker.queue.codec import MAX_PAYLOAD_BYTES, pack
from asyncworker.queue.job import (
    PRIORITIES,
    Claimed,
    Delivery,
    Depth,
    Ended,
    Found,
    Job,
    Op,
    Progress,
    QueueDepth,
    Reason,
    Receipt,
    Record,
    Settled,
    State,
    WorkerCard,
    parent_of,
)

CANCELLED_TTL = 3600
FAILED_TTL = 7 * 86400
LOWEST_FIRST = 16
_ENDS = {
    Op.SUCCEEDED: State.SUCCEEDED,
    Op.FAILED: State.FAILED,
    Op.CANCELLED: State.CANCELLED,
    Op.EXPIRED: State.EXPIRED,
}


@dataclass(slots=True, eq=False)
class _Family:
    """A parent's children: those not over by id, what is counted of the others, and what they left."""

    live: dict[str, _Entry] = field(default_factory=dict)
    kept: dict[str, Found] = field(default_factory=dict)
    total: int = 0
    done: int = 0
    failed: int = 0
    units: int = 0
    sealed: bool = False
    over: bool = False

    def progress(self) -> Progress:
        return Progress(self.total, self.done, self.failed, self.units, self.sealed, self.over)


@dataclass(slots=True, eq=False)
class _Epoch:
    """One member of the fleet."""

    card: WorkerCard
    notice: Notice
    held: dict[str, _Entry] = field(default_factory=dict)
    claims: int = 0


@dataclass(slots=True, eq=False)
class _Entry:
    """A job that is not over."""

    job: Job
    order: int
    born_ms: int
    state: State = State.QUEUED
    holder: _Epoch | None = None
    started_ms: int = 0
    due_ms: int = 0
    spent: int = 0
    deliveries: int = 0
    put_back: int = 0
    cancel_asked: bool = False
    error: str = ""
    family: _Family | None = None

    def found(self, state: State, record: bytes = b"") -> Found:
        return Found(
            id=self.job.id,
            state=state,
            queue=self.job.queue,
            priority=self.job.priority,
            attempt=self.spent + (self.holder is not None),
            deliveries=self.deliveries,
            started_s=self.started_ms / 1000,
            due_s=self.due_ms / 1000,
            error=self.error,
            payload=b"" if state.terminal else self.job.payload,
            record=record,
            children=self.family.progress() if self.family else None,
        )

    def delivery(self) -> Delivery:
        return Delivery(
            id=self.job.id,
            queue=self.job.queue,
            payload=self.job.payload,
            priority=self.job.priority,
            options=self.job.options,
            attempt=self.spent + 1,
            deliveries=self.deliveries,
            put_back=self.put_back,
            cancel_asked=self.cancel_asked,
            plain=parent_of(self.job.id) is None and self.family is None,
        )


class _Queue:
    """The waiting jobs of one queue: ten levels oldest first, and the delayed ones by due time."""

    def __init__(self) -> None:
        self.levels: tuple[OrderedDict[str, _Entry], ...] = tuple(OrderedDict() for _ in PRIORITIES)
        self.delayed: list[tuple[int, int, _Entry]] = []
        self.counts: Counter[str] = Counter()

    def depth(self, now_ms: int) -> QueueDepth:
        oldest = [next(iter(level.values())).born_ms for level in self.levels if level]
        return QueueDepth(
            queued=sum(map(len, self.levels)),
            scheduled=len(self.delayed),
            oldest_s=(now_ms - min(oldest, default=now_ms)) / 1000,
            **self.counts,
        )


class MemoryBroker:
    """Carry jobs inside one process; see `Broker` for what each verb promises."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._order = itertools.count()
        self._queues: defaultdict[str, _Queue] = defaultdict(_Queue)
        self._jobs: dict[str, _Entry] = {}
        self._over: dict[str, Found] = {}
        self._expiry: list[tuple[float, str]] = []
        self._epochs: dict[str, _Epoch] = {}
        self._idle: dict[str, frozenset[str]] = {}
        self._waiters: defaultdict[str, set[asyncio.Future[Ended | None]]] = defaultdict(set)
        self._beats: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()  # guards _beats, the only thing that beat touches
        self._closed = False

    async def join(self, card: WorkerCard, notice: Notice) -> str:
        epoch = secrets.token_hex(12)
        self._epochs[epoch] = _Epoch(card, notice)
        with self._lock:
            self._beats[epoch] = 0, round(card.lease_s * 1000)
        return epoch

    async def enqueue(self, jobs: Sequence[Job]) -> list[Receipt]:
        await asyncio.sleep(0)  # a producer that never pauses must not starve its own process's workers
        for job in jobs:
            if len(job.payload) > MAX_PAYLOAD_BYTES:
                raise JobTooBig(f"job {job.id} has {len(job.payload)} bytes of {MAX_PAYLOAD_BYTES}")
        return [self._take(job) for job in jobs]

    async def step(
        self, epoch: str, settled: Sequence[Settled], queues: Mapping[str, int], want: int, *, idle: bool = False
    ) -> Claimed:
        await asyncio.sleep(0)
        member = self._epochs.get(epoch)
        if member is None:
            raise LeaseLost
        self._idle.pop(epoch, None)
        released: list[_Entry] = []
        for one in settled:
            if entry := member.held.get(one.id):
                self._settle(entry, one, released)
        self._give_back(released)
        now_ms = self._now_ms()
        for name in queues:
            self._promote(self._queues[name], now_ms)
        deliveries = self._claim(member, queues, want, now_ms)
        for name in queues:
            if any(self._queues[name].levels):
                self._wake(name)  # who was noticed may have had no room for all that came
        if deliveries:
            return Claimed(now_ms, -1, deliveries)
        if idle:
            self._idle[epoch] = frozenset(queues)
        dues = [self._queues[name].delayed[0][0] for name in queues if self._queues[name].delayed]
        return Claimed(now_ms, min(dues, default=-1), deliveries)

    def beat(self, epoch: str) -> Mapping[str, str] | None:
        with self._lock:
            if epoch not in self._beats:
                raise LeaseLost
            count, lease_ms = self._beats[epoch]
            self._beats[epoch] = count + 1, lease_ms
            return {name: self._beat_text(name) for name in self._beats}  # one process: all are its sweepers

    async def reap(self, epoch: str, seen: str, *, crashed: bool, max_deliveries: int = 3) -> int:
        with self._lock:
            if epoch not in self._beats or seen not in {"", self._beat_text(epoch)}:
                return -1
            del self._beats[epoch]
        member = self._epochs.pop(epoch)
        self._idle.pop(epoch, None)
        held = list(member.held.values())
        for entry in held:
            entry.deliveries += crashed
            if entry.holder is not member:
                continue  # it went with its parent, or was released by its child, in this very loop
            if entry.cancel_asked:
                self._end(entry, State.CANCELLED, CANCELLED_TTL)
            elif crashed and entry.deliveries >= entry.job.options.get("max_deliveries", max_deliveries):
                text = f"{entry.deliveries} workers died with this job in hand"
                record = Record(attempt=entry.spent + 1, reason=Reason.WORKER_LOST, error_text=text)
                self._end(entry, State.FAILED, FAILED_TTL, pack(record))
            else:
                self._queues[entry.job.queue].counts["redelivered"] += crashed
        self._give_back(list(member.held.values()))
        for name in set().union(*self._idle.values()):
            self._wake(name)  # the dead may have taken a notice with them
        return len(held)

    async def wait(self, ids: Sequence[str], timeout: float | None) -> list[Ended | None]:
        await asyncio.sleep(0)
        over = {job_id: self._ended(job_id) for job_id in ids}
        for job_id, found in over.items():
            if found is None and job_id not in self._jobs:
                raise JobNotFound(f"no job has the id {job_id}")
        answers = {job_id: Ended(found.state, found.record) if found else None for job_id, found in over.items()}
        if timeout == 0 or None not in answers.values():
            return [answers[job_id] for job_id in ids]
        loop = asyncio.get_running_loop()
        waiting = {job_id: loop.create_future() for job_id, answer in answers.items() if answer is None}
        for job_id, future in waiting.items():
            self._waiters[job_id].add(future)
        try:
            await asyncio.wait(waiting.values(), timeout=timeout)
        finally:
            for job_id, future in waiting.items():
                self._waiters[job_id].discard(future)
                if not self._waiters[job_id]:
                    del self._waiters[job_id]
        if self._closed:
            raise BrokerDown("the broker was closed")
        answers.update((job_id, future.result()) for job_id, future in waiting.items() if future.done())
        return [answers[job_id] for job_id in ids]

    async def find(self, ids: Sequence[str]) -> list[Found | None]:
        return [
            entry.found(entry.state) if (entry := self._jobs.get(job_id)) else self._ended(job_id) for job_id in ids
        ]

    async def cancel(self, job_id: str) -> State | None:
        entry = self._jobs.get(job_id)
        if entry is None:
            found = self._ended(job_id)
            return found.state if found else None
        state, holder, family = entry.state, entry.holder, entry.family
        entry.cancel_asked = True
        if holder is None or (family and not family.over):
            self._end(entry, State.CANCELLED, CANCELLED_TTL)
        if holder:
            holder.notice(job_id)
        return state

    async def depth(self, queues: Sequence[str]) -> Depth:
        now_ms = self._now_ms()
        return Depth(
            queues={
                name: self._queues[name].depth(now_ms) if name in self._queues else QueueDepth() for name in queues
            },
            running=sum(len(member.held) for member in self._epochs.values()),
            workers={epoch: member.card for epoch, member in self._epochs.items()},
        )

    async def close(self) -> None:
        self._closed = True
        for future in itertools.chain(*self._waiters.values()):
            future.set_result(None)
        with self._lock:
            self._beats.clear()
        for table in (self._queues, self._jobs, self._over, self._epochs, self._idle, self._waiters):
            table.clear()

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)

    def _beat_text(self, epoch: str) -> str:
        count, lease_ms = self._beats[epoch]
        return f"{count}:{lease_ms}"

    def _take(self, job: Job) -> Receipt:
        """Take one job in: a parent into its feeder's hands, all others to wait."""
        if job.id in self._jobs or self._ended(job.id):
            return Receipt.KNOWN
        now_ms = self._now_ms()
        entry = _Entry(job, next(self._order), now_ms)
        family, feeder = self._family_of(job.id), self._epochs.get(job.hold)
        if (parent_of(job.id) and (family is None or family.over)) or (job.hold and feeder is None):
            return Receipt.CLOSED
        self._jobs[job.id] = entry
        self._queues[job.queue].counts["enqueued"] += 1
        if family:
            family.live[job.id] = entry
            family.total += 1
        due_ms = max(now_ms + round(job.delay_s * 1000), round(job.at_s * 1000))
        if feeder:
            entry.family = _Family()
            self._hand(entry, feeder, now_ms)
        elif due_ms > now_ms:
            self._later(entry, due_ms)
        else:
            self._ready(entry)
        return Receipt.ACCEPTED

    def _settle(self, entry: _Entry, one: Settled, released: list[_Entry]) -> None:
        """Apply one settlement; what goes back to the head of its queue is added to *released*."""
        family = entry.family
        match one.op:
            case Op.CHUNK:
                if home := self._family_of(one.id):
                    chunk = f"{one.id}:{one.number}"
                    home.kept[chunk] = Found(chunk, State.SUCCEEDED, record=one.value)
            case Op.SEAL:
                if family and not family.over:
                    family.sealed = True
                    self._lift(entry)
                    entry.state = State.BLOCKED
                    self._release_if_over(entry, family)
            case Op.SUCCEEDED | Op.FAILED | Op.CANCELLED | Op.EXPIRED:
                self._end(entry, _ENDS[one.op], one.number, one.value)
            case _ if entry.cancel_asked:
                self._end(entry, State.CANCELLED, CANCELLED_TTL)
            case Op.RELEASE:
                released.append(entry)
            case _:
                entry.spent += one.op is Op.RETRY
                entry.put_back += one.op is Op.PUT_BACK
                entry.error = one.value.decode(errors="replace")
                self._queues[entry.job.queue].counts["retried"] += one.op is Op.RETRY
                self._lift(entry)
                self._later(entry, self._now_ms() + one.number)

    def _promote(self, queue: _Queue, now_ms: int) -> None:
        """Move what is due to the ends of its levels, in the order in which it became due."""
        count = bisect_left(queue.delayed, now_ms + 1, key=lambda item: item[0])
        due, queue.delayed = queue.delayed[:count], queue.delayed[count:] if count else queue.delayed
        for _, _, entry in due:
            self._ready(entry)

    def _claim(self, member: _Epoch, queues: Mapping[str, int], want: int, now_ms: int) -> list[Delivery]:
        """Hand up to *want* ready jobs to *member*; children of a parent that needs them no more are dropped."""
        deliveries: list[Delivery] = []
        if not want:
            return deliveries
        member.claims += 1
        order = 1 if member.claims % LOWEST_FIRST == 0 else -1
        for name, most in queues.items():
            top = min(want, len(deliveries) + most)
            for level in self._queues[name].levels[::order]:
                while level and len(deliveries) < top:
                    entry = next(iter(level.values()))
                    family = self._family_of(entry.job.id)
                    if family and family.over:
                        self._leave(entry, State.CANCELLED)
                        del family.live[entry.job.id]
                        continue
                    self._lift(entry)
                    self._hand(entry, member, now_ms)
                    deliveries.append(entry.delivery())
        return deliveries

    def _give_back(self, entries: list[_Entry]) -> None:
        """Put jobs back at the heads of their levels, the first of them foremost. A feeder's job will now run."""
        for entry in reversed(entries):
            if entry.family:
                entry.family.over = True
            self._lift(entry)
            self._ready(entry, head=True)

    def _hand(self, entry: _Entry, member: _Epoch, now_ms: int) -> None:
        entry.state, entry.holder, entry.started_ms = State.RUNNING, member, now_ms
        member.held[entry.job.id] = entry

    def _ready(self, entry: _Entry, *, head: bool = False) -> None:
        entry.state, entry.due_ms = State.QUEUED, 0
        level = self._queues[entry.job.queue].levels[entry.job.priority]
        level[entry.job.id] = entry
        if head:
            level.move_to_end(entry.job.id, last=False)
        self._wake(entry.job.queue)

    def _later(self, entry: _Entry, due_ms: int) -> None:
        entry.state, entry.due_ms = State.RETRYING if entry.spent else State.SCHEDULED, due_ms
        delayed = self._queues[entry.job.queue].delayed
        insort(delayed, (due_ms, entry.order, entry))
        if delayed[0][2] is entry:
            self._wake(entry.job.queue)

    def _lift(self, entry: _Entry) -> None:
        """Take a job away from where it lies."""
        queue = self._queues[entry.job.queue]
        if entry.holder:
            del entry.holder.held[entry.job.id]
            entry.holder = None
        elif entry.state is State.QUEUED:
            del queue.levels[entry.job.priority][entry.job.id]
        elif entry.state in {State.SCHEDULED, State.RETRYING}:
            del queue.delayed[bisect_left(queue.delayed, (entry.due_ms, entry.order))]

    def _leave(self, entry: _Entry, state: State, record: bytes = b"") -> Found:
        """Let a job be over: the one way out. What becomes of its children and its result is the caller's."""
        found = entry.found(state, record)
        self._lift(entry)
        del self._jobs[entry.job.id]
        self._queues[entry.job.queue].counts[state] += 1
        for future in self._waiters.get(entry.job.id, ()):
            if not future.done():
                future.set_result(Ended(state, record))
        return found

    def _end(self, entry: _Entry, state: State, number: int, record: bytes = b"") -> None:
        """End a job. A child's result lies with its parent; others' for *number* seconds."""
        found = self._leave(entry, state, record)
        job_id = entry.job.id
        if parent := self._jobs.get(parent_of(job_id) or ""):
            assert parent.family is not None, "only a parent has children"
            home = parent.family
            del home.live[job_id]
            home.kept[job_id] = found
            home.done += 1
            home.failed += state is not State.SUCCEEDED
            home.units += number if state is State.SUCCEEDED else 0
            self._release_if_over(parent, home)
        elif number > 0:
            self._forget_expired()
            self._over[job_id] = found
            heappush(self._expiry, (self._clock.monotonic() + number, job_id))
        if entry.family:
            children = entry.family.live.values()
            holders = {id(child.holder): child.holder for child in children if child.holder}
            for child in children:
                self._leave(child, State.CANCELLED)
            for holder in holders.values():
                holder.notice(job_id)

    def _release_if_over(self, parent: _Entry, family: _Family) -> None:
        if not family.over and (family.failed or (family.sealed and family.done == family.total)):
            family.over = True
            self._lift(parent)
            self._ready(parent)

    def _family_of(self, job_id: str) -> _Family | None:
        parent = self._jobs.get(parent_of(job_id) or "")
        return parent.family if parent else None

    def _ended(self, job_id: str) -> Found | None:
        self._forget_expired()
        family = self._family_of(job_id)
        return family.kept.get(job_id) if family else self._over.get(job_id)

    def _forget_expired(self) -> None:
        now = self._clock.monotonic()
        while self._expiry and self._expiry[0][0] <= now:
            del self._over[heappop(self._expiry)[1]]

    def _wake(self, queue: str) -> None:
        """Notice one idle epoch that watches *queue*; it passes the notice on when it cannot take all."""
        for epoch, watched in self._idle.items():
            if queue in watched:
                del self._idle[epoch]
                self._epochs[epoch].notice("")
                return


def open(  # the room's word, as in `registry`
    url: str = "memory://", *, namespace: str = "asyncworker", bus: Bus | None = None, clock: Clock = SYSTEM
) -> MemoryBroker:
    """Return a broker that only this process sees, and only through this object."""
    del url, namespace, bus  # nothing to reach, nobody to be told apart from, no connection to be disrupted
    return MemoryBroker(clock)

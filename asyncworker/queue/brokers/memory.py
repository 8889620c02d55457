"""``memory://``: the broker that lives in this process, and dies with it.

Each `open` is a world of its own: two engines share nothing. All verbs run in one event loop; `beat` alone may
be called from another thread, and touches only what the lock guards.

Where a job lies says in what state it is: in a level of its queue, among its queue's delayed jobs, in the hands
of an epoch, or nowhere (blocked). `_lift` takes it from where it is, `_ready`, `_later` and `_hand` lay it down,
and `_leave` is the one way out. Nothing is searched for: each verb costs what it moves.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import threading
from bisect import bisect_left, bisect_right, insort
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BrokerDown, DecodeError, JobNotFound, JobTooBig, LeaseLost
from asyncworker.events import Bus
from asyncworker.queue.admin import Admin, Plans
from asyncworker.queue.brokers.broker import Broker, Look, Notice
from asyncworker.queue.codec import MAX_PAYLOAD_BYTES, pack, unpack, unpack_call, unpack_record
from asyncworker.queue.gate import Gates, is_late, is_limited
from asyncworker.queue.job import (
    APART,
    MAX_DELIVERIES,
    PRIORITIES,
    Claimed,
    Delivery,
    Depth,
    Ended,
    Found,
    Job,
    Missing,
    Op,
    Progress,
    QueueDepth,
    Reason,
    Receipt,
    Record,
    Settled,
    State,
    Twin,
    WorkerCard,
    copy_of,
    original_of,
    parent_of,
)
from asyncworker.queue.search import MOST, Page, Query, Stand, pack_stand, rank, read_stand

CANCELLED_TTL_S = 3600
LOST_TTL_S = 7 * 86400
MOST_DEAD = 10_000
DIGITS = 8
"""Of a partition's number, at most."""
MOST_HELD_UP = 1000
"""Jobs that one step may find held up: a long backlog of one limit must not stall the others."""
SHOWN = 10
HOW = {State.FAILED: "failed", State.CANCELLED: "was cancelled", State.EXPIRED: "has expired"}
LOWEST_FIRST_EVERY = 16
ENDS = {
    Op.SUCCEEDED: State.SUCCEEDED,
    Op.FAILED: State.FAILED,
    Op.CANCELLED: State.CANCELLED,
    Op.EXPIRED: State.EXPIRED,
}


class MemoryBroker(Broker, Admin):
    """Carry jobs inside one process; `Broker` says what each verb promises."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._order = itertools.count()
        self._queues: defaultdict[str, _Queue] = defaultdict(_Queue)
        self._jobs: dict[str, _Entry] = {}
        self._over: dict[str, Found] = {}
        self._expiry: list[tuple[float, str]] = []  # a heap: what of _over is forgotten next
        self._epochs: dict[str, _Epoch] = {}
        self._idle: dict[str, set[str]] = {}  # who sleeps, and the queues it watches
        self._dead: dict[str, _Entry] = {}
        self._resting: dict[str, _Entry] = {}  # parents that failed, and may be opened anew
        self._roll: list[tuple[int, str]] = []  # while somebody walks: all jobs, as they were when a walk began
        self._gates = Gates(self._call_up, self._arm)
        self._called: list[_Entry] | None = None  # while jobs are claimed: who has been called up meanwhile
        self._twins: dict[str, str] = {}  # unique key -> the job that has it
        self._beats: dict[str, tuple[int, int]] = {}  # how many, and the lease in ms
        self._schedules: dict[str, bytes] = {}
        self._strikes: dict[str, bytes] = {}
        self._ticks: dict[str, int] = {}  # of each schedule the last one that fired, in ms
        self._lock = threading.Lock()  # for _beats
        self._ending: deque[tuple[Found, list[_Entry]]] = deque()  # who ended, and who is to hear of it
        self._closed = False

    async def join(self, card: WorkerCard, notice: Notice) -> str:
        epoch = secrets.token_hex(12)
        self._epochs[epoch] = _Epoch(card, notice)
        with self._lock:
            self._beats[epoch] = 0, round(card.lease_s * 1000)
        return epoch

    async def enqueue(self, jobs: Sequence[Job]) -> list[Receipt | Twin | Missing]:
        await asyncio.sleep(0)  # who enqueues without a pause must not starve the workers of its own process
        for job in jobs:
            if len(job.payload) > MAX_PAYLOAD_BYTES:
                raise JobTooBig(f"job {job.id} has {len(job.payload)} bytes; {MAX_PAYLOAD_BYTES} may be carried")
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
        self._relay()
        self._give_back(released)
        now_ms = self._now_ms()
        deliveries, more = self._claim(member, queues, want, now_ms)
        self._relay()
        if len(deliveries) >= want:
            return Claimed(now_ms, -1, deliveries)
        if idle:
            taken = Counter(delivery.queue for delivery in deliveries)
            self._idle[epoch] = {name for name, most in queues.items() if most > taken[name]}
        dues = [due_ms for name in queues if (due_ms := self._queues[name].next_due_ms) is not None]
        return Claimed(now_ms, now_ms if more else min(dues, default=-1), deliveries)

    def beat(self, epoch: str, *, look: Look = "yes") -> Mapping[str, str] | None:
        with self._lock:
            if epoch not in self._beats:
                raise LeaseLost
            count, lease_ms = self._beats[epoch]
            self._beats[epoch] = count + 1, lease_ms
            looks = look == "yes" or (look == "others" and len(self._beats) > 1)
            return {name: f"{count}:{ms}" for name, (count, ms) in self._beats.items()} if looks else None

    async def reap(self, epoch: str, seen: str, *, crashed: bool, max_deliveries: int = MAX_DELIVERIES + APART) -> int:
        with self._lock:
            beat = self._beats.get(epoch)
            if beat is None or seen not in {"", "{}:{}".format(*beat)}:
                return -1
            del self._beats[epoch]
        member = self._epochs.pop(epoch)
        self._idle.pop(epoch, None)
        held = list(member.held.values())
        for entry in held:
            if entry.holder is not member:
                continue  # its child released it, in this very loop
            entry.deliveries += crashed
            if entry.cancel_asked:
                self._end(entry, State.CANCELLED, CANCELLED_TTL_S)
            elif crashed and entry.deliveries >= entry.lethal(max_deliveries):
                text = f"{entry.deliveries} workers died with this job in hand"
                record = entry.failure(entry.spent + 1, Reason.WORKER_LOST, text, self._clock.now())
                self._end(entry, State.FAILED, LOST_TTL_S, record)
            else:
                self._queues[entry.job.queue].counts["redelivered"] += crashed
        self._relay()
        self._give_back(list(member.held.values()))
        for name in set().union(*self._idle.values()):
            self._wake(name)  # it may have taken a notice with it
        return len(held)

    async def wait(self, ids: Sequence[str], timeout: float | None) -> list[Ended | None]:
        told = [self._told(job_id) for job_id in ids]
        if told:
            await asyncio.wait(set(told), timeout=timeout)
        if self._closed:
            raise BrokerDown("the broker was closed")
        return [future.result() if future.done() else None for future in told]

    async def find(self, ids: Sequence[str]) -> list[Found | None]:
        entries = map(self._jobs.get, ids)
        return [entry.found() if entry else self._ended(job_id) for job_id, entry in zip(ids, entries, strict=True)]

    async def running(self, parent: str) -> list[str]:
        held = (member.held for member in self._epochs.values())
        return [job_id for jobs in held for job_id in jobs if parent_of(job_id) == parent]

    async def cancel(self, job_id: str) -> State | None:
        entry = self._jobs.get(job_id)
        if entry is None:
            found = self._ended(job_id)
            return found.state if found else None
        state, holder = entry.state, entry.holder
        entry.cancel_asked = True
        if holder is None or (entry.family and not entry.family.over):
            self._end(entry, State.CANCELLED, CANCELLED_TTL_S)
            self._relay()
        if holder:
            holder.notice(job_id)
        return state

    async def depth(self, queues: Sequence[str]) -> Depth:
        now_ms = self._now_ms()
        return Depth(
            queues={name: self._queues.get(name, _Queue()).depth(now_ms, self._gates.waiting[name]) for name in queues},
            running=sum(len(member.held) for member in self._epochs.values()),
            workers={epoch: member.card for epoch, member in self._epochs.items()},
            held={epoch: len(member.held) for epoch, member in self._epochs.items()},
        )

    async def regulate(self, numbers: Mapping[str, Sequence[float]]) -> None:
        self._gates.regulate(numbers, self._now_ms())

    async def queues(self) -> list[str]:
        return sorted(name for name, queue in self._queues.items() if queue.counts or queue.paused or queue.most)

    async def pause(self, queue: str) -> None:
        self._queues[queue].paused = True

    async def resume(self, queue: str) -> None:
        self._queues[queue].paused = False
        for _ in self._epochs:
            self._wake(queue)

    async def bound(self, queue: str, most: int | None) -> None:
        self._queues[queue].most = most

    async def schedule(self, name: str, text: bytes | None) -> bool:
        known = name in self._schedules
        if text is None:
            self._schedules.pop(name, None)
            self._ticks.pop(name, None)
            return known
        self._schedules[name] = text
        self._ticks.setdefault(name, self._now_ms())
        return not known

    async def strike(self, name: str, text: bytes | None) -> bool:
        if text is None:
            return self._strikes.pop(name, None) is not None
        known = name in self._strikes
        self._strikes[name] = text
        return not known

    async def strikes(self) -> dict[str, bytes]:
        return dict(self._strikes)

    async def schedules(self) -> tuple[dict[str, bytes], dict[str, int]]:
        return dict(self._schedules), dict(self._ticks)

    async def plans(self) -> Plans:
        return Plans(dict(self._schedules), dict(self._ticks), dict(self._strikes))

    async def fire(self, name: str, tick_ms: int, job: Job) -> Receipt | Twin | Missing | None:
        if tick_ms <= self._ticks.get(name, 0):
            return None
        receipt = self._take(job)
        if receipt is not Receipt.FULL:
            self._ticks[name] = tick_ms
        return receipt

    async def jobs(self, query: Query, cursor: str = "", limit: int = MOST) -> Page:
        stand = read_stand(cursor)
        if stand is None or not self._roll:
            self._forget_expired()
            over = ((rank(found.state), found.id) for found in self._over.values())
            self._roll = sorted([*over, *((rank(entry.state), job_id) for job_id, entry in self._jobs.items())])
        ranks = {rank(state) for state in query.states}
        first = bisect_left(self._roll, (min(ranks), ""))
        last = bisect_left(self._roll, (max(ranks) + 1, ""))
        if stand:
            first = bisect_right(self._roll, (stand.rank, stand.after))
        lot = self._roll[first : min(first + max(limit, 1), last)]
        found = zip(lot, await self.find([job_id for _, job_id in lot]), strict=True)
        jobs = [one for (level, _), one in found if one and query.fits(one) and rank(one.state) == level]
        if first + len(lot) < last:
            return Page(jobs, pack_stand(Stand(lot[-1][0], after=lot[-1][1])))
        self._roll = []
        return Page(jobs)

    async def dead(self) -> list[str]:
        self._forget_expired()
        return sorted(self._dead)

    async def replay(self, ids: Sequence[str]) -> list[bool]:
        self._forget_expired()
        for job_id in ids:
            entry = self._dead.get(job_id)
            if entry and not self._refusal(entry.job):
                self._forget(job_id)
                self._take(msgspec.structs.replace(entry.job, delay_s=0.0, at_s=0.0), entry.links)
        return [job_id in self._jobs for job_id in ids]

    async def purge(self, ids: Sequence[str]) -> None:
        for job_id in self._dead.keys() & set(ids):
            self._forget(job_id)

    async def close(self) -> None:
        self._closed = True
        for entry in self._jobs.values():
            if entry.told:
                entry.told.set_result(None)
        with self._lock:
            self._beats.clear()
        for table in (
            self._queues,
            self._jobs,
            self._over,
            self._expiry,
            self._epochs,
            self._idle,
            self._twins,
            self._dead,
            self._resting,
        ):
            table.clear()

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)

    # ── the life of a job ──

    def _take(self, job: Job, links: _Links | None = None) -> Receipt | Twin | Missing:
        """Take one job in: a parent into its feeder's hands, any other to wait; *links*: what a dead letter waited for."""
        if job.id in self._jobs or self._ended(job.id):
            return Receipt.ACCEPTED if self._revive(job) else Receipt.KNOWN
        if renewed := self._renew(job):
            return renewed
        family, feeder = self._family(job.id), self._epochs.get(job.hold)
        if (job.hold and not feeder) or (parent_of(job.id) and not self._is_taking(job.id)):
            return Receipt.CLOSED
        if (original := original_of(job.id)) and original not in self._jobs:
            return Receipt.KNOWN
        if not (family or feeder) and (why := self._refusal(job)):
            return why
        if links is None and job.after:
            if unknown := [former for former in job.after if former not in self._jobs and not self._ended(former)]:
                return Missing(unknown[0])
            links = _Links({former: place for place, former in enumerate(job.after)}, len(job.after))
        if key := job.options.get("unique"):
            self._twins[key] = job.id
        now_ms = self._now_ms()
        entry = self._jobs[job.id] = _Entry(job, next(self._order), now_ms)
        self._queues[job.queue].counts["enqueued"] += 1
        if family and not original:
            family.count("total", 1)
        if feeder:
            entry.family = _Family()
            self._hand(entry, feeder, now_ms)
            return Receipt.ACCEPTED
        due_ms = max(now_ms + round(job.delay_s * 1000), round(job.at_s * 1000))
        if links:
            self._hold_back(entry, links, due_ms)
        else:
            self._later(entry, due_ms, now_ms)
        return Receipt.ACCEPTED

    def _revive(self, job: Job) -> bool:
        """Open a parent anew that failed; those of its children that succeeded stay."""
        feeder, entry = self._epochs.get(job.hold), self._resting.get(job.id)
        if feeder is None or entry is None or entry.family is None:
            return False
        del self._resting[job.id]
        kept = entry.family.kept
        parts = {name: one for name, one in kept.items() if ":" in name or _is_part(one)}
        done = sum(1 for name in parts if ":" not in name)
        self._over.pop(job.id)
        self._expiry = [one for one in self._expiry if one[1] != job.id]
        heapify(self._expiry)
        family = _Family(kept=parts, total=done, done=done, units=entry.family.units)
        renewed = self._jobs[job.id] = _Entry(entry.job, next(self._order), self._now_ms(), family=family)
        self._queues[job.queue].counts["enqueued"] += 1
        self._hand(renewed, feeder, self._now_ms())
        return True

    def _renew(self, job: Job) -> Twin | None:
        """Let a debounced call take the place of the one of its key that waits for its time, under that one's id."""
        twin = self._jobs.get(self._twins.get(job.options.get("unique") or "", ""))
        if (
            twin is None
            or twin.links
            or twin.state is not State.SCHEDULED
            or not (job.options.get("debounce") and job.delay_s)
        ):
            return None
        self._lift(twin)
        twin.job, twin.born_ms = msgspec.structs.replace(job, id=twin.job.id), self._now_ms()
        self._later(twin, twin.born_ms + round(job.delay_s * 1000), twin.born_ms)
        return Twin(twin.job.id)

    def _hold_back(self, entry: _Entry, links: _Links, due_ms: int) -> None:
        """Let a job wait for those of its formers that are not over; one asked for again has lost those who succeeded."""
        entry.links, entry.state = links, State.BLOCKED
        links.due_ms, links.failed, links.over = due_ms, 0, False
        entry.started_ms = self._now_ms()
        over: list[Found] = []
        for former in links.awaited:
            if before := self._jobs.get(former):
                before.followers.append(entry)
            else:
                over.append(self._ended(former) or Found(former, State.EXPIRED))
        if not links.awaited:
            self._set_free(entry, links)
        for found in over:
            self._hear(entry, found)
            self._relay()

    def _hear(self, entry: _Entry, found: Found) -> None:
        """Tell a job how one ended that it waits for: the last lets it go, one that failed ends it unless it allows that."""
        links = entry.links
        if links is None or self._jobs.get(entry.job.id) is not entry or found.id not in links.awaited:
            return
        options = entry.job.options
        if found.state is not State.SUCCEEDED:
            links.failed += 1
            if not options.get("allow_failure"):
                record = entry.failure(0, Reason.DEPENDENCY, _blame(found), self._clock.now())
                self._end(entry, State.FAILED, LOST_TTL_S, record)
                return
        name = f"{entry.job.id}.{links.awaited.pop(found.id)}"
        if "input" in options or "inputs" in options:
            links.kept[name] = found
        links.done += 1
        if not links.awaited:
            self._set_free(entry, links)

    def _set_free(self, entry: _Entry, links: _Links) -> None:
        """Let a job come that waits for nobody any more."""
        links.over, entry.started_ms = True, 0
        self._later(entry, links.due_ms, self._now_ms())

    def _relay(self) -> None:
        """Tell the jobs that wait for those that ended, and so on."""
        while self._ending:
            found, followers = self._ending.popleft()
            for follower in followers:
                self._hear(follower, found)

    def _refusal(self, job: Job) -> Receipt | Twin | Missing | None:
        """Return why a job that comes from outside cannot be taken in now."""
        twin = self._twins.get(job.options.get("unique") or "")
        if twin and not job.options.get("debounce"):
            return Twin(twin)
        queue = self._queues[job.queue]
        waiting = queue.queued + len(queue.delayed) + self._gates.waiting[job.queue]
        return Receipt.FULL if queue.most is not None and waiting >= queue.most and not job.after else None

    def _settle(self, entry: _Entry, one: Settled, released: list[_Entry]) -> None:
        """Apply one settlement; what goes back to the head of its queue is added to *released*."""
        match one.op:
            case Op.CHUNK:
                if family := self._family(one.id):
                    chunk = f"{one.id}:{one.number}"
                    family.kept[chunk] = Found(chunk, State.SUCCEEDED, record=one.value)
            case Op.CHECKPOINT:
                entry.checkpoint = one.value.decode()
            case Op.PROGRESS:
                entry.progress = one.value.decode()
            case Op.SEAL:
                if entry.family and not entry.family.over:
                    entry.family.sealed = True
                    self._lift(entry)
                    entry.state = State.BLOCKED
                    self._release_if_over(entry, entry.family)
            case Op.OPEN:
                if entry.family:
                    entry.family.over, entry.family.steps = False, entry.family.steps or 0
            case Op.SUCCEEDED | Op.FAILED | Op.CANCELLED | Op.EXPIRED:
                self._end(entry, ENDS[one.op], one.number, one.value)
            case _ if entry.cancel_asked:
                self._end(entry, State.CANCELLED, CANCELLED_TTL_S)
            case Op.RELEASE | Op.GATE:
                if one.op is Op.GATE:
                    options, payload = unpack(one.value)
                    entry.job = msgspec.structs.replace(entry.job, options=options, payload=payload)
                released.append(entry)
            case _:
                self._let_go(entry)
                entry.spent += one.op is Op.RETRY
                entry.put_back += one.op is Op.PUT_BACK
                entry.error = one.value.decode(errors="replace")
                self._queues[entry.job.queue].counts["retried"] += one.op is Op.RETRY
                self._lift(entry)
                now_ms = self._now_ms()
                self._later(entry, now_ms + one.number, now_ms)

    def _promote(self, queue: _Queue, now_ms: int) -> None:
        """Move what is due to the ends of its levels, in the order in which it became due."""
        count = bisect_left(queue.delayed, (now_ms + 1,))
        due = queue.delayed[:count]
        del queue.delayed[:count]
        for *_, entry in due:
            self._ready(entry)
        for gate in queue.rung(now_ms):
            self._gates.stir(gate, now_ms)

    def _claim(self, member: _Epoch, queues: Mapping[str, int], want: int, now_ms: int) -> tuple[list[Delivery], bool]:
        """Hand up to *want* ready jobs to *member*; children that their parent no longer needs are dropped.

        Returns:
            the deliveries, and whether it stopped looking because too many are held up.
        """
        deliveries: list[Delivery] = []
        member.claims += want > 0
        way = -1 if member.claims % LOWEST_FIRST_EVERY else 1  # levels are numbered from the lowest
        left, looks = dict(queues), MOST_HELD_UP
        others: list[_Entry] = []
        while True:
            self._called = []
            for name in queues:
                self._promote(self._queues[name], now_ms)
                before = len(deliveries)
                top = min(want, before + left[name])
                for level in () if self._queues[name].paused else self._queues[name].levels[::way]:
                    while level and len(deliveries) < top and looks:
                        entry = next(iter(level.values()))
                        if parent_of(entry.job.id) and not self._is_taking(entry.job.id):
                            self._leave(entry, State.CANCELLED)
                            if (family := self._family(entry.job.id)) and family.steps is not None:
                                family.steps -= 1
                            continue
                        self._lift(entry)
                        if original_of(entry.job.id) in member.held:
                            others.append(entry)
                        elif self._admits(entry, now_ms):
                            self._hand(entry, member, now_ms)
                            deliveries.append(entry.delivery())
                        else:
                            entry.state = State.BLOCKED
                            looks -= 1
                left[name] -= len(deliveries) - before
            called, self._called = self._called, None
            for entry in called:
                self._ahead(entry)
            if not (called and looks) or len(deliveries) == want:
                for entry in others:
                    self._ready(entry)
                return deliveries, not looks

    def _admits(self, entry: _Entry, now_ms: int) -> bool:
        job = entry.job
        if not is_limited(job):
            return True
        late = is_late(job, now_ms, entry.born_ms, fresh=not (entry.spent or entry.deliveries))
        return self._gates.admit(job, now_ms, late=late)

    def _let_go(self, entry: _Entry) -> None:
        if is_limited(entry.job):
            self._gates.let_go(entry.job, self._now_ms())

    def _call_up(self, job_id: str) -> None:
        """Lay a job that waits for a limit where it will be claimed next."""
        entry = self._jobs[job_id]
        if self._called is None:
            self._ahead(entry)
        else:
            self._called.append(entry)

    def _arm(self, queue: str, gate: str, due_ms: int) -> None:
        self._queues[queue].ring(gate, due_ms)
        if self._queues[queue].next_due_ms == due_ms:
            self._wake(queue)

    def _give_back(self, entries: list[_Entry]) -> None:
        """Put jobs back at the heads of their levels, the first of them foremost."""
        for entry in reversed(entries):
            self._let_go(entry)
            self._lift(entry)
            self._ahead(entry)

    def _ahead(self, entry: _Entry) -> None:
        self._ready(entry)
        self._queues[entry.job.queue].levels[entry.job.priority].move_to_end(entry.job.id, last=False)

    def _hand(self, entry: _Entry, member: _Epoch, now_ms: int) -> None:
        entry.state, entry.holder, entry.started_ms = State.RUNNING, member, now_ms
        member.held[entry.job.id] = entry

    def _ready(self, entry: _Entry) -> None:
        entry.state, entry.due_ms = State.QUEUED, 0
        if entry.family:
            entry.family.over = True  # the feeder has gone, or all children have
        self._queues[entry.job.queue].levels[entry.job.priority][entry.job.id] = entry
        self._wake(entry.job.queue)

    def _later(self, entry: _Entry, due_ms: int, now_ms: int) -> None:
        if due_ms <= now_ms:
            return self._ready(entry)
        entry.state, entry.due_ms = State.RETRYING if entry.spent else State.SCHEDULED, due_ms
        delayed = self._queues[entry.job.queue].delayed
        insort(delayed, (due_ms, entry.order, entry))
        if delayed[0][2] is entry:
            self._wake(entry.job.queue)
        return None

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
        """Let a job be over. What becomes of its children and of its result is the caller's."""
        found = entry.found(state, record)
        self._lift(entry)
        del self._jobs[entry.job.id]
        if (key := entry.job.options.get("unique")) and self._twins.get(key) == entry.job.id:
            del self._twins[key]
        self._queues[entry.job.queue].counts[state] += 1
        if entry.told:
            entry.told.set_result(Ended(state, record))
        if entry.followers:
            self._ending.append((found, entry.followers))
        return found

    def _end(self, entry: _Entry, state: State, number: int, record: bytes = b"") -> None:
        """End a job. A child's result stays with its parent, any other for *number* seconds."""
        self._let_go(entry)
        found = self._leave(entry, state, record)
        if parent_of(found.id):
            self._come_home(found, number)
        else:
            self._forget_expired()
            if state is State.FAILED and number > 0 and entry.family:
                self._resting[found.id] = entry
                found = msgspec.structs.replace(found, payload=entry.job.payload)
            elif state is State.FAILED and number > 0:
                self._dead[found.id] = entry
                found = msgspec.structs.replace(found, payload=entry.job.payload)
                if len(self._dead) > MOST_DEAD:
                    del self._dead[next(iter(self._dead))]
            self._over[found.id] = found
            heappush(self._expiry, (self._clock.monotonic() + number, found.id))
        if entry.family:
            for member in self._epochs.values():  # its children go when they are settled, or would be claimed
                member.notice(found.id)

    def _come_home(self, child: Found, units: int) -> None:
        """Count a child that ended; nothing to do where its parent is gone."""
        parent = self._jobs.get(parent_of(child.id) or "")
        if parent and (family := parent.family):
            original = original_of(child.id)
            if original and child.state is not State.SUCCEEDED:
                return
            self._outdo(original or copy_of(child.id), child)
            child = msgspec.structs.replace(child, id=original or child.id)
            family.kept[child.id] = child
            family.count("done", -1)
            family.failed += child.state is not State.SUCCEEDED
            family.units += units if child.state is State.SUCCEEDED else 0
            self._release_if_over(parent, family)

    def _outdo(self, job_id: str, by: Found) -> None:
        """Strike off the slower of two that did the same."""
        if entry := self._jobs.get(job_id):
            holder, told, entry.told = entry.holder, entry.told, None
            self._leave(entry, State.CANCELLED)
            if told:
                told.set_result(Ended(by.state, by.record))
            if holder:
                holder.notice(job_id)

    def _release_if_over(self, parent: _Entry, family: _Family) -> None:
        all_done = parent.state is State.BLOCKED and family.done == family.total and not family.steps
        if not family.over and (family.failed or all_done):
            self._lift(parent)
            self._ready(parent)

    def _is_taking(self, child: str) -> bool:
        """Return whether a child's parent takes children: until it is released or over."""
        family = self._family(child)
        return family is not None and not family.over

    def _family(self, job_id: str) -> _Family | None:
        """Return the family in which a child, or its chunk, is."""
        parent = self._jobs.get(parent_of(job_id) or "")
        return parent.family if parent else None

    # ── what is left of it, and who is told ──

    def _ended(self, job_id: str) -> Found | None:
        self._forget_expired()
        name = parent_of(job_id) or ""
        parent = self._jobs.get(name) or self._resting.get(name)
        if parent and (kin := parent.family or parent.links):
            return kin.kept.get(job_id)
        return self._over.get(job_id)

    def _forget_expired(self) -> None:
        now = self._clock.monotonic()
        while self._expiry and self._expiry[0][0] <= now:
            _, job_id = heappop(self._expiry)
            del self._over[job_id]
            self._dead.pop(job_id, None)
            self._resting.pop(job_id, None)

    def _forget(self, job_id: str) -> None:
        del self._dead[job_id], self._over[job_id]
        self._expiry = [one for one in self._expiry if one[1] != job_id]
        heapify(self._expiry)

    def _told(self, job_id: str) -> asyncio.Future[Ended | None]:
        """Return the future that all who wait for a job share."""
        entry, found = self._jobs.get(job_id), self._ended(job_id)
        if entry is None and found is None:
            raise JobNotFound(f"no job has the id {job_id}")
        if entry and entry.told:
            return entry.told
        told = asyncio.get_running_loop().create_future()
        if entry:
            entry.told = told
        elif found:
            told.set_result(Ended(found.state, found.record))
        return told

    def _wake(self, queue: str) -> None:
        """Notice one idle epoch that watches *queue*: one for each job that comes."""
        for epoch, watched in self._idle.items():
            if queue in watched:
                del self._idle[epoch]
                return self._epochs[epoch].notice("")
        return None


@dataclass(slots=True, eq=False)
class _Entry:
    """A job that is not over."""

    job: Job
    order: int
    born_ms: int
    state: State = State.QUEUED
    holder: _Epoch | None = None
    family: _Family | None = None
    links: _Links | None = None
    followers: list[_Entry] = field(default_factory=list)
    told: asyncio.Future[Ended | None] | None = None
    started_ms: int = 0
    due_ms: int = 0
    spent: int = 0
    deliveries: int = 0
    put_back: int = 0
    cancel_asked: bool = False
    error: str = ""
    checkpoint: str = ""
    progress: str = ""

    def lethal(self, most: int) -> int:
        """Return after how many deliveries it is given up."""
        own = self.job.options.get("max_deliveries")
        return most if own is None else own + APART

    def failure(self, attempt: int, reason: Reason, text: str, now_s: float) -> bytes:
        """Return the record of a failure that no worker wrote down."""
        try:
            task, *_ = unpack_call(self.job.payload)
        except DecodeError:
            task = ""
        return pack(
            Record(
                task=task,
                attempt=attempt,
                ended_s=now_s,
                reason=reason,
                error_text=text,
                queue=self.job.queue,
            )
        )

    def found(self, end: State | None = None, record: bytes = b"") -> Found:
        return Found(
            id=self.job.id,
            state=end or self.state,
            queue=self.job.queue,
            priority=self.job.priority,
            attempt=self.spent + (self.holder is not None),
            deliveries=self.deliveries,
            started_s=self.started_ms / 1000,
            due_s=self.due_ms / 1000,
            error=self.error,
            payload=b"" if end else self.job.payload,
            record=record,
            progress="" if end else self.progress,
            children=self.family.progress() if self.family else None,
            after=self.links.progress() if self.links and not end else None,
            waits_for=tuple(itertools.islice(self.links.awaited, SHOWN)) if self.links and not end else (),
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
            enqueued_ms=self.born_ms,
            plain=not (self.family or self.links or parent_of(self.job.id)),
            checkpoint=self.checkpoint,
        )


@dataclass(slots=True, eq=False)
class _Epoch:
    """One member of the fleet, and what it holds in the order in which it was handed out."""

    card: WorkerCard
    notice: Notice
    held: dict[str, _Entry] = field(default_factory=dict)
    claims: int = 0


@dataclass(slots=True, eq=False)
class _Family:
    """A parent's children: what those left that are over (chunks too), and the broker's counts.

    ``steps``: of its reduction, those not over, once the parent was opened again; they are not counted beside the others.
    """

    kept: dict[str, Found] = field(default_factory=dict)
    total: int = 0
    done: int = 0
    failed: int = 0
    units: int = 0
    sealed: bool = False
    over: bool = False
    steps: int | None = None

    def count(self, name: str, step: int) -> None:
        """Count a child that comes or ends: as *name*, or by *step* among the steps."""
        if self.steps is None:
            setattr(self, name, getattr(self, name) + 1)
        else:
            self.steps += step

    def progress(self) -> Progress:
        return Progress(self.total, self.done, self.failed, self.units, self.sealed, self.over)


@dataclass(slots=True, eq=False)
class _Links:
    """What a job was to wait for: those not over (or failed) by their places, and how the others ended."""

    awaited: dict[str, int]
    total: int
    kept: dict[str, Found] = field(default_factory=dict)
    done: int = 0
    failed: int = 0
    due_ms: int = 0
    over: bool = False

    def progress(self) -> Progress:
        return Progress(self.total, self.done, self.failed, 0, sealed=True, over=self.over)


def _is_part(child: Found) -> bool:
    """Return whether this is a partition that succeeded: the numbers of steps have more digits."""
    return child.state is State.SUCCEEDED and len(child.id.rpartition(".")[2]) <= DIGITS


def _blame(found: Found) -> str:
    """Return why a job is not to run: the first that failed, however many have failed since because of it."""
    record = _record(found.record)
    if record.reason == Reason.DEPENDENCY:
        return record.error_text
    return f"job {found.id} {HOW[found.state]}"


def _record(data: bytes) -> Record:
    try:
        return unpack_record(data)
    except DecodeError:
        return Record()


class _Queue:
    """The waiting jobs of one queue: ten levels, oldest first, and the delayed ones by due time."""

    def __init__(self) -> None:
        self.levels: tuple[OrderedDict[str, _Entry], ...] = tuple(OrderedDict() for _ in PRIORITIES)
        self.delayed: list[tuple[int, int, _Entry]] = []
        self.bells: list[tuple[int, str]] = []  # a heap: when which gate is to be looked at
        self.rings: dict[str, int] = {}  # the same by gate; what differs in the heap is no longer true
        self.counts: Counter[str] = Counter()
        self.paused = False
        self.most: int | None = None

    @property
    def queued(self) -> int:
        return sum(map(len, self.levels))

    @property
    def next_due_ms(self) -> int | None:
        """When the next delayed job is due, or a gate is to be looked at."""
        while self.bells and self.rings.get(self.bells[0][1]) != self.bells[0][0]:
            heappop(self.bells)
        dues = [heap[0][0] for heap in (self.bells, self.delayed) if heap]
        return min(dues, default=None)

    def ring(self, gate: str, due_ms: int) -> None:
        """Let this gate be looked at then, and no other time."""
        if self.rings.get(gate) != due_ms:
            self.rings[gate] = due_ms
            heappush(self.bells, (due_ms, gate))

    def rung(self, now_ms: int) -> list[str]:
        """Return the gates that are to be looked at now."""
        gates = []
        while self.bells and self.bells[0][0] <= now_ms:
            due_ms, gate = heappop(self.bells)
            if self.rings.get(gate) == due_ms:
                del self.rings[gate]
                gates.append(gate)
        return gates

    def depth(self, now_ms: int, blocked: int) -> QueueDepth:
        born = [next(iter(level.values())).born_ms for level in self.levels if level]
        oldest_s = (now_ms - min(born, default=now_ms)) / 1000
        return QueueDepth(
            self.queued, len(self.delayed), oldest_s, self.paused, self.most, blocked=blocked, **self.counts
        )


def open(
    url: str = "memory://", *, namespace: str = "asyncworker", bus: Bus | None = None, clock: Clock = SYSTEM
) -> MemoryBroker:
    """Return a broker that lives as long as this object."""
    del url, namespace, bus  # nothing to reach or to be told apart from, no connection that could break
    return MemoryBroker(clock)

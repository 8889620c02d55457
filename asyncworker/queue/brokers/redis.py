"""``redis://``, ``rediss://`` and ``unix://``: the broker that lives in Redis (7.0 or newer) or Valkey.

What lies in Redis, and what each call does there, stands in ``redis.lua``; here is the other end of the wire. Calls
that change something carry a number, so that repeating one, which is what follows any error, applies it once. Steps
are repeated until they are answered; all other calls give up with `BrokerDown` after ``patience`` seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files
from typing import Any

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import (
    BadParameters,
    BrokerDown,
    BrokerError,
    DecodeError,
    JobNotFound,
    LeaseLost,
    SettingsError,
)
from asyncworker.events import BrokerDisrupted, BrokerRestored, Bus
from asyncworker.queue.body import check_size, delivery, pack_body, read_note, split_body
from asyncworker.queue.brokers.broker import Notice
from asyncworker.queue.codec import born_ms, pack, unpack_record
from asyncworker.queue.job import (
    ID_LENGTH,
    Claimed,
    Depth,
    Ended,
    Found,
    Job,
    Op,
    Progress,
    QueueDepth,
    Receipt,
    Settled,
    State,
    WorkerCard,
)
from asyncworker.queue.lane import Lane
from asyncworker.queue.wire import (
    ERRORS,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    Address,
    Inbox,
    Wire,
    is_unloaded,
    mapped,
)

ANSWER_S = 5.0
"""How long one answer may take; then its connection is given up."""
MOST_JOBS = 1000
MOST_BYTES = 16 * 2**20
"""Jobs and bytes that one call takes in, and ids that one call looks up: longer scripts stall everybody else."""
MOST_LOOKS = 200
LOWEST_FIRST = 16
"""One step in so many asks the lowest priority first, so that no level starves."""
OLDEST = 7

_TEXT = files(__package__).joinpath("redis.lua").read_text("utf-8")
LIBRARY = f"asyncworker_{blake2b(_TEXT.encode(), digest_size=5).hexdigest()}"
"""The function library's name: a hash of its text, so that versions live side by side."""

_STATES = {b"s": State.SUCCEEDED, b"f": State.FAILED, b"c": State.CANCELLED, b"e": State.EXPIRED}
_RECEIPTS = {"k": Receipt.KNOWN, "c": Receipt.CLOSED}
_TEXTS = frozenset({Op.RETRY, Op.SNOOZE, Op.PUT_BACK})
_read_card = msgspec.msgpack.Decoder(WorkerCard).decode

_Parcel = tuple[tuple[str, int], bool, tuple[Any, ...]]
"""A job on its way: queue and priority; whether it needs a part of a call for itself; what is sent."""


def library(name: str, text: str = _TEXT) -> str:
    """Return the function library as it is loaded, on the script's own line numbers plus one."""
    return f"#!lua name={name}\nlocal LIBRARY = '{name}' {text}"


@dataclass(slots=True, eq=False)
class _Member:
    """An epoch of ours: the number of its last step, and whether it may still be among the idle ones."""

    notice: Notice
    seq: int = 0
    asleep: bool = False


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
        self._address = Address(url)
        self._tag = f"{{{namespace}:0}}:"
        self._bus = bus or Bus()
        self._clock = clock
        self._patience = patience
        self._answer_s = min(ANSWER_S, patience)
        self._wires = self._stepping, self._sending, self._looking = [Wire(self._address) for _ in range(3)]
        self._beating = self._address.blocking(self._answer_s)
        self._name = secrets.token_hex(8)
        self._inbox = Inbox(self._address, self._heard, self._resumed, self._answer_s)
        self._members: dict[str, _Member] = {}
        self._waiters: dict[str, set[asyncio.Future[Ended | None]]] = {}
        self._lane: Lane[_Parcel, Receipt] = Lane(self._send, MOST_JOBS)
        self._seq = 0
        self._checked = False
        self._closed = False
        self._down_since: float | None = None

    def __repr__(self) -> str:
        return f"<RedisBroker {self._address}>"

    async def join(self, card: WorkerCard, notice: Notice) -> str:
        epoch = secrets.token_hex(12)
        self._members[epoch] = _Member(notice)
        try:
            await self._listen(epoch)
            await self._ask("join", epoch, pack(card), round(card.lease_s * 1000))
        except BaseException:
            await self._forget(epoch)
            raise
        return epoch

    async def enqueue(self, jobs: Sequence[Job]) -> list[Receipt]:
        for job in jobs:
            check_size(job)
        receipts: list[Receipt] = []
        for batch in _batches(jobs):
            receipts += await self._lane(batch)
        return receipts

    async def step(
        self, epoch: str, settled: Sequence[Settled], queues: Mapping[str, int], want: int, *, idle: bool = False
    ) -> Claimed:
        member = self._members.get(epoch)
        if member is None:
            raise LeaseLost
        member.seq += 1
        lowest_first = int(member.seq % LOWEST_FIRST == 0)
        args: list[Any] = [epoch, member.seq, want, lowest_first, int(idle), int(member.asleep), len(queues)]
        args += itertools.chain.from_iterable(queues.items())
        args += _settlements(settled)
        try:
            answer = await self._call(self._stepping, "step", args)
        except BaseException:
            member.seq += 1  # nobody knows whether this step was applied: a gap makes the next answer say what is held
            raise
        if answer[0] == -1:
            await self._forget(epoch)
            raise LeaseLost
        if len(answer) == 1:
            raise BrokerError("somebody else steps with this epoch")
        code, now_ms, due_ms, names, bodies, notes = answer
        member.asleep = code != 1 or (idle and not names)
        ids = [name.decode() for name in names]
        deliveries = list(map(delivery, ids, bodies, notes or itertools.repeat(None)))
        return Claimed(now_ms, due_ms, deliveries, None if code == 1 else frozenset(ids))

    def beat(self, epoch: str) -> Mapping[str, str] | None:
        command = ("FCALL", f"{LIBRARY}_beat", 1, f"{self._tag}b", 0, epoch)
        try:
            try:
                answer: Any = self._beating.execute_command(*command)
            except ERRORS as exc:
                if not is_unloaded(exc):
                    raise
                self._beating.execute_command("FUNCTION", "LOAD", "REPLACE", library(LIBRARY))
                answer = self._beating.execute_command(*command)
        except ERRORS as exc:
            raise mapped(exc, self._address) from exc
        if answer[0] == -1:
            raise LeaseLost
        if len(answer) == 1:
            return None
        texts = [text.decode() for text in answer[1]]
        return dict(zip(texts[::2], texts[1::2], strict=True))

    async def reap(self, epoch: str, seen: str, *, crashed: bool, max_deliveries: int = 3) -> int:
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
            if pending:
                await asyncio.wait(pending, timeout=timeout)
        finally:
            for job_id, future in waits.items():
                self._waiters[job_id].discard(future)
                if not self._waiters[job_id]:
                    del self._waiters[job_id]
        if self._closed:
            raise BrokerDown("the broker was closed")
        told = {job_id: waits[job_id].result() for job_id in ids if answers[job_id] is None and waits[job_id].done()}
        answers.update(told)
        if untold := [job_id for job_id, ended in told.items() if ended is None]:
            answers.update(await self._outcomes("look", untold))
        return [answers[job_id] for job_id in ids]

    async def find(self, ids: Sequence[str]) -> list[Found | None]:
        found: list[Found | None] = []
        for some in _slices(ids):
            found += map(_found, some, await self._ask("find", *some))
        return found

    async def cancel(self, job_id: str) -> State | None:
        state: bytes | None = await self._ask("cancel", job_id)
        return (_STATES.get(state) or State(state.decode())) if state else None

    async def depth(self, queues: Sequence[str]) -> Depth:
        now_ms, running, workers, said = await self._ask("depth", *queues)
        return Depth(
            queues={name: _queue_depth(now_ms, *one) for name, one in zip(queues, said, strict=True)},
            running=running,
            workers={epoch.decode(): _read_card(card) for epoch, card in zip(workers[::2], workers[1::2], strict=True)},
        )

    async def close(self) -> None:
        self._closed = True
        for wire in self._wires:
            await wire.close()
        for future in itertools.chain.from_iterable(self._waiters.values()):
            if not future.done():
                future.set_result(None)
        await self._inbox.close()
        await self._lane.close()
        self._beating.close()

    async def _ask(self, verb: str, *args: Any) -> Any:
        return await self._call(self._looking, verb, args, self._patience)

    async def _call(self, wire: Wire, verb: str, args: Iterable[Any], patience: float | None = None) -> Any:
        """Call a function, again and again until it is answered or *patience* is over."""
        command = ("FCALL", f"{LIBRARY}_{verb}", 1, f"{self._tag}b", 0, *args)
        end = None if patience is None else self._clock.monotonic() + patience
        pause, unloaded = FIRST_PAUSE_S, False
        timeout = self._answer_s
        while not self._closed:
            try:
                if not self._checked:
                    await self._check(wire, timeout)
                if unloaded:
                    await wire("FUNCTION", "LOAD", "REPLACE", library(LIBRARY), timeout=timeout)
                answer = await wire(*command, timeout=timeout)
            except ERRORS as exc:
                if is_unloaded(exc) and not unloaded:
                    unloaded = True
                    continue
                error = mapped(exc, self._address)
                if not isinstance(error, BrokerDown):
                    raise error from exc
                self._disrupted(error)
                if end is not None:
                    timeout = min(self._answer_s, end - pause - self._clock.monotonic())
                    if timeout <= 0:
                        raise error from exc
            else:
                if self._down_since is not None:
                    self._restored(self._down_since)
                return answer
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)
        raise BrokerDown("the broker was closed")

    async def _check(self, wire: Wire, timeout: float) -> None:
        """Refuse a server that lacks what the script needs, or may forget jobs."""
        lines = (await wire("INFO", timeout=timeout)).decode(errors="replace").splitlines()
        about = dict(line.split(":", 1) for line in lines if ":" in line)
        version = about.get("redis_version", "0")
        if int(version.partition(".")[0]) < OLDEST:
            raise SettingsError(f"{self._address} is Redis {version}: Redis 7.0 or Valkey 7.2 or newer is needed")
        policy = about.get("maxmemory_policy", "noeviction")
        if about.get("maxmemory", "0") != "0" and policy != "noeviction":
            raise SettingsError(f"{self._address} may evict jobs ({policy}): set maxmemory-policy to noeviction")
        self._checked = True

    def _disrupted(self, error: BrokerDown) -> None:
        if self._down_since is None:
            self._down_since = self._clock.monotonic()
            for wire in self._wires:
                wire.renew()
            self._bus.emit(BrokerDisrupted(broker=str(self._address), error=str(error)))

    def _restored(self, since: float) -> None:
        self._down_since = None
        self._bus.emit(BrokerRestored(broker=str(self._address), outage_s=self._clock.monotonic() - since))

    async def _send(self, batch: list[_Parcel]) -> list[Receipt]:
        """Make one call: jobs that are ready in runs, by queue and priority, and the others one by one."""
        self._seq += 1
        numbers: list[list[int]] = []
        parts: list[list[Any]] = []
        runs: dict[tuple[str, int], int] = {}
        for number, (where, alone, words) in enumerate(batch):
            if alone:
                runs.clear()  # what comes later must not overtake
                parts.append([*where, 0, *words])
                numbers.append([number])
            elif (run := runs.get(where)) is None:
                runs[where] = len(parts)
                parts.append([*where, 1, *words])
                numbers.append([number])
            else:
                part = parts[run]
                part[2] += 1
                part += words
                numbers[run].append(number)
        args = itertools.chain((self._name, self._seq), *parts)
        answer = await self._call(self._sending, "enqueue", args, self._patience)
        if answer[0] != 1:
            raise BrokerError("somebody else sends on this lane")
        receipts = [Receipt.ACCEPTED] * len(batch)
        if answer[1]:
            order = list(itertools.chain(*numbers))
            for refused in answer[1].decode().split(","):
                receipts[order[int(refused[:-1])]] = _RECEIPTS[refused[-1]]
        return receipts

    async def _outcomes(self, verb: str, ids: Sequence[str]) -> dict[str, Ended | None]:
        outcomes: dict[str, Ended | None] = {}
        for some in _slices(ids):
            for job_id, said in zip(some, await self._ask(verb, self._name, *some), strict=True):
                if said is None:
                    raise JobNotFound(f"no job has the id {job_id}")
                outcomes[job_id] = Ended(_STATES[said[:1]], said[1:]) if said else None
        return outcomes

    async def _listen(self, name: str) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._inbox.listen(f"{self._tag}in:{name}")
        except TimeoutError as exc:
            raise BrokerDown(f"{self._address} does not answer") from exc

    async def _forget(self, epoch: str) -> None:
        if self._members.pop(epoch, None):
            await self._inbox.leave(f"{self._tag}in:{epoch}")

    def _heard(self, channel: str, message: bytes) -> None:
        name = channel[len(self._tag) + 3 :]
        kind, rest = message[:1], message[1:]
        if member := self._members.get(name):
            member.notice(rest.decode())
        elif kind == b"v":
            job_id, _, record = rest[1:].partition(b" ")
            self._tell(job_id.decode(), Ended(_STATES[rest[:1]], record))
        elif kind == b"o":
            self._tell(rest.decode(), None)

    def _tell(self, job_id: str, ended: Ended | None) -> None:
        """Tell who waits; None is: it is over, look how."""
        for future in self._waiters.get(job_id, ()):
            if not future.done():
                future.set_result(ended)

    async def _resumed(self) -> None:
        """After messages may have been missed: let workers look, and ask again for those who wait."""
        for member in list(self._members.values()):
            member.notice("")
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


def _slices(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), MOST_LOOKS):
        yield ids[start : start + MOST_LOOKS]


def _parcel(job: Job) -> _Parcel:
    """Pack a job for its way into the broker.

    Raises:
        BadParameters: something of it does not fit.
    """
    body = pack_body(job)
    where = job.queue, job.priority
    if not (job.delay_s or job.at_s or job.hold or len(job.id) > ID_LENGTH):
        return where, False, (job.id, body)
    if not (math.isfinite(job.delay_s) and math.isfinite(job.at_s)):
        raise BadParameters(f"job {job.id} has a delay or date that is no time")
    return where, True, (job.id, body, round(job.delay_s * 1000), round(job.at_s * 1000), job.hold)


def _batches(jobs: Sequence[Job]) -> Iterator[list[_Parcel]]:
    """Pack jobs, as many to a call as one may take."""
    batch: list[_Parcel] = []
    size = 0
    for job in jobs:
        parcel = _parcel(job)
        size += len(job.payload)
        if len(batch) == MOST_JOBS or (batch and size > MOST_BYTES):
            yield batch
            batch, size = [], len(job.payload)
        batch.append(parcel)
    if batch:
        yield batch


def _settlements(settled: Sequence[Settled]) -> list[Any]:
    """Return a step's arguments about what ended: runs of plain successes, then the others one by one."""
    runs: dict[tuple[str, int], list[Any]] = {}
    others: list[Any] = []
    released: list[Settled] = []
    for one in settled:
        if one.plain and one.op is Op.SUCCEEDED:
            where = one.queue, one.number
            if (run := runs.get(where)) is None:
                run = runs[where] = []
            run += one.id, one.value
        elif one.op is Op.RELEASE:
            released.append(one)
        else:
            text = one.value.decode(errors="replace") if one.op in _TEXTS else one.value
            others += one.id, one.op.value, one.number, text
    for one in reversed(released):  # each goes before the one before
        others += one.id, one.op.value, 0, b""
    args: list[Any] = [len(runs)]
    for (queue, ttl_s), run in runs.items():
        args += queue, ttl_s, len(run) // 2
        args += run
    return args + others


def _found(job_id: str, said: list[Any]) -> Found | None:
    if not said:
        return None
    if state := _STATES.get(said[0]):
        return _over(job_id, state, said[1])
    state, note, at_s = State(said[0].decode()), read_note(said[2]), float(said[3]) / 1000
    try:
        queue, priority, _, _, payload = split_body(said[1])
    except DecodeError:
        queue, priority, payload = "", 0, b""
    running = state is State.RUNNING
    return Found(
        id=job_id,
        state=state,
        queue=queue,
        priority=priority,
        attempt=note.attempts + running,
        deliveries=note.deliveries,
        started_s=at_s if running or state is State.BLOCKED else 0.0,
        due_s=at_s if state in {State.SCHEDULED, State.RETRYING} else 0.0,
        error=(said[4] or b"").decode(errors="replace") or note.error,
        payload=payload,
        children=_progress(*said[5]) if said[5][0] else None,
    )


def _over(job_id: str, state: State, record: bytes) -> Found:
    try:
        said = unpack_record(record)
    except DecodeError:
        return Found(job_id, state, record=record)
    return Found(job_id, state, attempt=said.attempt, started_s=said.started_s, error=said.error_text, record=record)


def _progress(total: bytes, done: bytes, failed: bytes, units: bytes, sealed: bytes, state: bytes) -> Progress:
    return Progress(int(total), int(done), int(failed), int(units), sealed == b"1", state == b"over")


def _queue_depth(
    now_ms: int, queued: int, scheduled: int, heads: list[bytes | None], counters: list[bytes | None]
) -> QueueDepth:
    born = [born_ms(head.decode()) for head in heads if head] if queued else []
    return QueueDepth(
        queued, scheduled, max(0, now_ms - min(born, default=now_ms)) / 1000, *(int(count or 0) for count in counters)
    )

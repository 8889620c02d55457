"""What travels to the functions of ``brokers/lua`` and what comes back: arguments, answers; nothing but data."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from asyncworker.errors import BadParameters, DecodeError
from asyncworker.queue.body import AFTER, LIMITED, OPTIONS, delivery, pack_body, pack_tail, read_note, split_body
from asyncworker.queue.codec import born_ms, unpack, unpack_record
from asyncworker.queue.job import (
    DEFAULT_PRIORITY,
    ID_LENGTH,
    Claimed,
    Depth,
    Found,
    Job,
    Missing,
    Op,
    Progress,
    QueueDepth,
    Receipt,
    Settled,
    State,
    Twin,
    WorkerCard,
)

MOST_JOBS = 1000
MOST_BYTES = 16 * 2**20
"""Jobs and bytes that one call takes in: a longer script stalls everybody else."""
STATES = {b"s": State.SUCCEEDED, b"f": State.FAILED, b"c": State.CANCELLED, b"e": State.EXPIRED}

Parcel = tuple[tuple[str, int], bool, tuple[Any, ...]]
"""A job on its way: queue and priority; whether it stands alone or may go with others in a run; what is sent."""

_RECEIPTS = {"k": Receipt.KNOWN, "c": Receipt.CLOSED, "f": Receipt.FULL}
_OTHERS: dict[str, type[Twin | Missing]] = {"u": Twin, "m": Missing}
_refusals = re.compile(r"(\d+)([a-z])([\w.]*)").findall
_GIVEN_BACK = frozenset({Op.RELEASE, Op.GATE})
_TEXTS = frozenset({Op.RETRY, Op.SNOOZE, Op.PUT_BACK})
_read_card = msgspec.msgpack.Decoder(WorkerCard).decode


def parcel(job: Job) -> Parcel:
    """Pack a job.

    Raises:
        JobTooBig, BadParameters: something of it does not fit.
    """
    body = pack_body(job)
    where = job.queue, job.priority
    if body[1] & ~LIMITED <= OPTIONS and not (job.delay_s or job.at_s or len(job.id) > ID_LENGTH):
        return where, False, (job.id, body)
    if not (math.isfinite(job.delay_s) and math.isfinite(job.at_s)):
        raise BadParameters(f"job {job.id} has a delay or date that is no time")
    after = (len(job.after), *job.after) if job.after else ()
    return where, True, (job.id, body, round(job.delay_s * 1000), round(job.at_s * 1000), job.hold, *after)


def batches(jobs: Sequence[Job]) -> list[list[Parcel]]:
    """Pack jobs, as many to a call as one may take.

    Raises:
        JobTooBig, BadParameters: one of them cannot travel.
    """
    packed = list(map(parcel, jobs))
    if len(jobs) <= MOST_JOBS and sum([len(job.payload) for job in jobs]) <= MOST_BYTES:
        return [packed] if packed else []
    made: list[list[Parcel]] = []
    size = 0
    for job, one in zip(jobs, packed, strict=True):
        size += len(job.payload)
        if not made or len(made[-1]) == MOST_JOBS or size > MOST_BYTES:
            made.append([])
            size = len(job.payload)
        made[-1].append(one)
    return made


def runs(batch: Sequence[Parcel]) -> tuple[list[Any], list[int]]:
    """Return an ENQUEUE's arguments, and the numbers of the parcels in the order in which they stand there.

    Those of one queue and priority go together, but none overtakes one that stands alone.
    """
    parts: list[list[Any]] = []
    numbers: list[list[int]] = []
    running: dict[tuple[str, int], int] = {}
    for number, (where, alone, words) in enumerate(batch):
        if alone:
            running.clear()
            parts.append([*where, 0, *words])
            numbers.append([number])
        elif (run := running.get(where)) is None:
            running[where] = len(parts)
            parts.append([*where, 1, *words])
            numbers.append([number])
        else:
            part = parts[run]
            part[2] += 1
            part += words
            numbers[run].append(number)
    if len(parts) == 1:
        return parts[0], numbers[0]
    return list(itertools.chain.from_iterable(parts)), list(itertools.chain.from_iterable(numbers))


def receipts(refused: bytes, order: Sequence[int]) -> list[Receipt | Twin | Missing]:
    """Read an ENQUEUE's answer, of jobs that stood there in this order."""
    answers: list[Receipt | Twin | Missing] = [Receipt.ACCEPTED] * len(order)
    for number, why, other in _refusals(refused.decode()) if refused else ():
        answers[order[int(number)]] = _OTHERS[why](other) if other else _RECEIPTS[why]
    return answers


def fired(said: bytes) -> Receipt | Twin | Missing | None:
    """Read a FIRE's answer."""
    why, other = said[:1].decode(), said[1:].decode()
    if not why:
        return Receipt.ACCEPTED
    return None if why == "b" else Twin(other) if other else _RECEIPTS[why]


def settlements(settled: Sequence[Settled]) -> list[Any]:
    """Return a STEP's arguments about what ended: runs of plain successes, then the others one by one."""
    plain: dict[tuple[str, int], list[Any]] = {}
    others: list[Any] = []
    released: list[Settled] = []
    for one in settled:
        if one.plain and one.op is Op.SUCCEEDED:
            where = one.queue, one.number
            if (run := plain.get(where)) is None:
                run = plain[where] = []
            run += one.id, one.value
        elif one.op in _GIVEN_BACK:
            released.append(one)
        else:
            value = one.value.decode(errors="replace") if one.op in _TEXTS else one.value
            others += one.id, one.op.value, one.number, value
    for one in reversed(released):  # each goes before the one before
        others += one.id, one.op.value, 0, pack_tail(*unpack(one.value)) if one.op is Op.GATE else b""
    args: list[Any] = [len(plain)]
    for (queue, ttl_s), run in plain.items():
        args += queue, ttl_s, len(run) // 2
        args += run
    return args + others


def claimed(answer: Sequence[Any]) -> Claimed:
    """Read a STEP's answer."""
    code, now_ms, due_ms, names, bodies, notes = answer
    ids = [name.decode() for name in names]
    deliveries = list(map(delivery, ids, bodies, notes or itertools.repeat(None)))
    return Claimed(now_ms, due_ms, deliveries, None if code == 1 else frozenset(ids))


def found(job_id: str, said: Sequence[Any]) -> Found | None:
    """Read what FIND says of one job."""
    if not said:
        return None
    if state := STATES.get(said[0]):
        return _over(job_id, state, *said[1:])
    word, body, note, at_ms, error, counts, *waits = said
    state, known, at_s = State(word.decode()), read_note(note), float(at_ms) / 1000
    try:
        queue, priority, flags, _, payload = split_body(body)
    except DecodeError:
        queue, priority, flags, payload = "", 0, 0, b""
    progress = _progress(*counts) if counts[0] else None
    running = state is State.RUNNING
    return Found(
        id=job_id,
        state=state,
        queue=queue,
        priority=priority,
        attempt=known.attempts + running,
        deliveries=known.deliveries,
        started_s=at_s if running or state is State.BLOCKED else 0.0,
        due_s=at_s if state in {State.SCHEDULED, State.RETRYING} else 0.0,
        error=(error or b"").decode(errors="replace") or known.error,
        payload=payload,
        progress=known.progress,
        children=None if flags & AFTER else progress,
        after=progress if flags & AFTER else None,
        waits_for=tuple(one.decode() for one in waits[0]) if waits else (),
    )


def _over(job_id: str, state: State, record: bytes, body: bytes | None, deliveries: bytes | None) -> Found:
    queue, priority, _, _, payload = split_body(body) if body else ("", DEFAULT_PRIORITY, 0, {}, b"")
    found = Found(job_id, state, queue, priority, deliveries=int(deliveries or 0), payload=payload, record=record)
    try:
        said = unpack_record(record)
    except DecodeError:
        return found
    return msgspec.structs.replace(
        found, queue=queue or said.queue, attempt=said.attempt, started_s=said.started_s, error=said.error_text
    )


def _progress(total: bytes, done: bytes, failed: bytes, units: bytes, sealed: bytes, state: bytes) -> Progress:
    return Progress(int(total), int(done), int(failed), int(units), sealed == b"1", state == b"over")


def depth(names: Sequence[str], answer: Sequence[Any]) -> Depth:
    """Read what DEPTH says of queues of these names."""
    now_ms, running, workers, queues = answer
    epochs = [epoch.decode() for epoch in workers[::3]]
    return Depth(
        queues={name: _queue_depth(now_ms, *one) for name, one in zip(names, queues, strict=True)},
        running=running,
        workers=dict(zip(epochs, map(_read_card, workers[1::3]), strict=True)),
        held=dict(zip(epochs, workers[2::3], strict=True)),
    )


def _queue_depth(
    now_ms: int,
    queued: int,
    scheduled: int,
    heads: list[bytes | None],
    counters: list[bytes | None],
    switches: list[bytes | None],
) -> QueueDepth:
    paused, most = switches
    born = [born_ms(head.decode()) for head in heads if head] if queued else []
    oldest_s = max(0, now_ms - min(born, default=now_ms)) / 1000
    bound = None if most is None else int(most)
    numbers = (int(count or 0) for count in counters)
    return QueueDepth(queued, scheduled, oldest_s, paused is not None, bound, *numbers)

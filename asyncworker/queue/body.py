"""How a job lies in a broker of bytes: one string, its body. The layout stands in ``brokers/lua/layout.lua``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from asyncworker.errors import BadParameters, DecodeError, JobTooBig
from asyncworker.queue.codec import MAX_PAYLOAD_BYTES, pack, unpack
from asyncworker.queue.job import ID_LENGTH, PRIORITIES, Delivery, Job

VERSION = b"1"
OPTIONS = 1
PARENT = 2
TIMED = 4
UNIQUE = 8
LIMITED = 128
AFTER = 16


class Note(msgspec.Struct, frozen=True, gc=False):
    """What has happened to a job so far, as the scripts note it."""

    attempts: int = msgspec.field(default=0, name="a")
    deliveries: int = msgspec.field(default=0, name="d")
    put_back: int = msgspec.field(default=0, name="p")
    cancel_asked: int = msgspec.field(default=0, name="c")
    error: str = msgspec.field(default="", name="e")
    enqueued_ms: int = msgspec.field(default=0, name="b")
    checkpoint: str = msgspec.field(default="", name="k")
    progress: str = msgspec.field(default="", name="h")


NOTHING = Note()
_decode_note = msgspec.msgpack.Decoder(Note).decode


@lru_cache(1024)
def _head(queue: str, priority: int, flags: int) -> bytes:
    name = queue.encode()
    if not 0 < len(name) < 256:
        raise BadParameters(f"a queue's name has 1 to 255 bytes, not {len(name)}")
    if priority not in PRIORITIES:
        raise BadParameters(f"priorities are 0 to 9, not {priority}")
    return VERSION + bytes([flags, 48 + priority, len(name)]) + name


@lru_cache(1024)
def _read_head(head: bytes) -> tuple[str, int, int]:
    return head[4:].decode(), head[2] - 48, head[1]


def pack_body(job: Job) -> bytes:
    """Pack what the broker keeps of a job.

    Raises:
        JobTooBig: the payload has more than `MAX_PAYLOAD_BYTES`. BadParameters: a queue, priority or options that do not fit.
    """
    if len(job.payload) > MAX_PAYLOAD_BYTES:
        raise JobTooBig(f"job {job.id} takes {len(job.payload)} bytes; at most {MAX_PAYLOAD_BYTES} travel")
    flags = (PARENT if job.hold else 0) | (AFTER if job.after else 0)
    if not job.options:
        return _head(job.queue, job.priority, flags) + job.payload
    tail = pack_tail(job.options, job.payload)
    flags |= OPTIONS
    if "expires" in job.options or "deadline" in job.options:
        flags |= TIMED
    if job.options.get("unique"):
        flags |= UNIQUE
    if "limit" in job.options or "rate" in job.options:
        flags |= LIMITED
    return _head(job.queue, job.priority, flags) + tail


def pack_tail(options: Mapping[str, Any], payload: bytes) -> bytes:
    """Pack what follows on the head of a body with options.

    Raises:
        BadParameters: too many options.
    """
    packed = pack(options)
    if len(packed) > 0xFFFF:
        raise BadParameters(f"the options of a job take {len(packed)} bytes; at most 65,535 travel")
    return len(packed).to_bytes(2, "big") + packed + payload


def split_body(body: bytes) -> tuple[str, int, int, dict[str, Any], bytes]:
    """Return queue, priority, flags, options and payload.

    Raises:
        DecodeError: no body of ours.
    """
    try:
        start = 4 + body[3]
        queue, priority, flags = _read_head(body[:start])
        options = {}
        if flags & OPTIONS:
            start += 2
            end = start + int.from_bytes(body[start - 2 : start], "big")
            options = unpack(body[start:end])
            start = end
    except (IndexError, UnicodeDecodeError) as exc:
        raise DecodeError("these bytes are no job") from exc
    if body[:1] != VERSION or type(options) is not dict:
        raise DecodeError("this job was written by another version of asyncworker")
    return queue, priority, flags, options, body[start:]


def read_note(note: bytes | None) -> Note:
    """Return a job's note; bytes that are none are nothing."""
    if not note:
        return NOTHING
    try:
        return _decode_note(note)
    except msgspec.DecodeError:
        return NOTHING


def delivery(job_id: str, body: bytes, note: bytes | None) -> Delivery:
    """Return what a worker gets. A body that this version cannot read names no queue: the worker leaves it to others."""
    said = NOTHING
    try:
        if note is None and body[:2] == b"1\0":
            start = 4 + body[3]
            queue, priority, _ = _read_head(body[:start])
            return Delivery(job_id, queue, body[start:], priority, plain=len(job_id) == ID_LENGTH)
        said = read_note(note)
        queue, priority, flags, options, payload = split_body(body)
    except (DecodeError, IndexError, UnicodeDecodeError):
        return Delivery(job_id, "", b"", put_back=said.put_back, cancel_asked=bool(said.cancel_asked), plain=False)
    return Delivery(
        id=job_id,
        queue=queue,
        payload=payload,
        priority=priority,
        options=options,
        attempt=said.attempts + 1,
        deliveries=said.deliveries,
        put_back=said.put_back,
        enqueued_ms=said.enqueued_ms,
        cancel_asked=bool(said.cancel_asked),
        plain=not flags & (PARENT | UNIQUE | LIMITED | AFTER) and len(job_id) == ID_LENGTH,
        checkpoint=said.checkpoint,
    )

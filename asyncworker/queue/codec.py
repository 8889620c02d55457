"""Ids and bytes: how jobs are named, and how calls and records are packed. MessagePack only, never pickle.

An id is 26 characters of base 32 that sort by age: 9 of time (ms), 3 of shard, 12 random, 2 of a counter; so
a job's age and shard can be read from its id, and 32 neighbours share one result bucket.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from asyncworker.errors import BadParameters, DecodeError
from asyncworker.queue.job import Record

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUE = {letter: value for value, letter in enumerate(ALPHABET)}
_TAILS = [a + b for a in ALPHABET for b in ALPHABET]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_decode_call = msgspec.msgpack.Decoder(tuple[str, list[Any], dict[str, Any]]).decode
_decode_record = msgspec.msgpack.Decoder(Record).decode

MAX_PAYLOAD_BYTES = 16 * 2**20
"""The largest call or record that travels: Redis' own limit is 512 MB, a script's patience far lower."""


def base32(value: int, digits: int) -> str:
    """Return the lowest ``5 * digits`` bits of *value* in our alphabet, highest first."""
    text = ""
    for _ in range(digits):
        text = ALPHABET[value & 31] + text
        value >>= 5
    return text


_process = [os.getpid()]
"""This process, which need not be asked for each time."""
os.register_at_fork(after_in_child=lambda: _process.__setitem__(0, os.getpid()))


FEW = 100
"""Fewer ids than this are taken from a block that is begun; more are worth one of their own."""


class Ids:
    """Make ids, 1,024 to a random block; a block is given up after a second, so that its time stays true.

    Threads may share a maker; a forked child begins a block of its own.
    """

    def __init__(self, shard: int = 0) -> None:
        self._shard = base32(shard, 3)
        self._block: Iterator[str] = iter(())
        self._until = 0.0
        self._pid = 0

    def __call__(self) -> str:
        """Return one id. Cost: 0.3 us, and 10 us for the first of a block."""
        while True:
            if time.monotonic() < self._until and _process[0] == self._pid and (made := next(self._block, "")):
                return made
            self._block = map(self._head().__add__, _TAILS)
            self._until, self._pid = time.monotonic() + 1, _process[0]

    def many(self, number: int) -> list[str]:
        """Return so many ids. Cost: 0.1 us each."""
        if number < FEW:
            return [self() for _ in range(number)]
        made: list[str] = []
        while len(made) < number:
            made += map(self._head().__add__, _TAILS[: number - len(made)])
        return made

    def _head(self) -> str:
        return base32(int(time.time() * 1000), 9) + self._shard + base32(int.from_bytes(os.urandom(8), "big"), 12)


def born_ms(job_id: str) -> int:
    """Return when an id was made, in ms since the epoch, by its maker's clock. Children have their parent's."""
    return _number(job_id[:9])


@lru_cache(64)  # a maker gives a thousand neighbours one time
def _number(text: str) -> int:
    value = 0
    for letter in text:
        value = value << 5 | _VALUE.get(letter, 0)
    return value


def is_id(text: str) -> bool:
    """Return whether *text* has the form of an id (also of a child's)."""
    head, dot, part = text.partition(".")
    return len(head) == 26 and _VALUE.keys() >= set(head) and (not dot or (part.isascii() and part.isdigit()))


def pack_call(task: str, args: tuple[Any, ...] | list[Any], kwargs: dict[str, Any]) -> bytes:
    """Pack one call.

    Raises:
        BadParameters: an argument that MessagePack cannot carry.
    """
    try:
        return _encode((task, args, kwargs))
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise BadParameters(f"the arguments of {task!r} cannot travel: {exc}") from exc


def unpack_call(payload: bytes) -> tuple[str, list[Any], dict[str, Any]]:
    """Unpack one call; any bytes give a call or `DecodeError`."""
    try:
        return _decode_call(payload)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError, MemoryError) as exc:
        raise DecodeError(f"the payload is no call: {exc}") from exc


def pack(value: Any, most: int | None = MAX_PAYLOAD_BYTES) -> bytes:
    """Pack any plain value.

    Raises:
        BadParameters: MessagePack cannot carry it, or it takes more bytes than *most* (None: any number may).
    """
    try:
        data = _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise BadParameters(f"this value cannot travel: {exc}") from exc
    if most is not None and len(data) > most:
        raise BadParameters(f"this value takes {len(data)} bytes; at most {most} travel")
    return data


def unpack(data: bytes) -> Any:
    """Unpack a plain value; any bytes give a value or `DecodeError`."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError, MemoryError) as exc:
        raise DecodeError(f"these bytes are no value: {exc}") from exc


def unpack_record(data: bytes) -> Record:
    """Unpack how a job ended; empty bytes are an empty record."""
    if not data:
        return Record()
    try:
        return _decode_record(data)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError, MemoryError) as exc:
        raise DecodeError(f"these bytes are no record: {exc}") from exc

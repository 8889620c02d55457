"""Segment: memory that one process fills once and others read, without a copy through a pipe.

It has no name: it is an open file in memory that goes from process to process through a unix socket, so the system
frees it with the last who holds it, however that one ends. On Linux it is sealed: nobody can change it, and nobody can
shorten it under a reader, who would die of that.

Where messages wait for a reader, a segment has a name meanwhile, in a folder that ends with its owner (`share.place`).

Freight is what travels so: values that are buffers. ``bytes`` arrive as bytes and a ``bytearray`` as a bytearray, which
is one copy; whatever else has the buffer protocol (a memoryview, an array, numpy's arrays) as a read-only memoryview of
its format and shape, which is none: ``numpy.asarray(view)`` is free, too.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from asyncworker.errors import BadParameters, DecodeError

WORTH = 256 * 1024
"""``bytes`` shorter than this go through the socket with everything else: `bench/bench_ipc.py`."""

_HEAD = struct.Struct("<8sQI")
_MAGIC = b"asyncwk1"
_ALIGNED = 64


class Freight(msgspec.Struct, frozen=True, array_like=True):
    """One value in a segment: its place among the values, where it lies there, and what it was.

    ``format`` is one of the `struct` module's letters.
    """

    place: int
    start: int
    bytes_: int
    kind: Literal["bytes", "bytearray", "memoryview"]
    format: str = "B"
    shape: tuple[int, ...] = ()


def load(values: Sequence[Any], file: Path | None = None) -> tuple[list[Any], list[Freight], int]:
    """Take what is freight out of *values*, into a new segment: without a name, or in a new *file*.

    Returns:
        the values, with None in place of freight; the freight; the segment's file descriptor, -1 where there is none.

    Raises:
        BadParameters: a buffer's format is none of the simple ones, so it has no way to arrive. OSError: no memory left.
    """
    rest, freight, views, end = list(values), [], [], _ALIGNED
    for place, value in enumerate(values):
        if (isinstance(value, bytes) and len(value) < WORTH) or (view := _view(value)) is None:
            continue
        flat = view if view.c_contiguous else memoryview(view.tobytes())
        kind: Any = type(value).__name__ if type(value) in (bytes, bytearray) else "memoryview"
        freight.append(Freight(place, end, view.nbytes, kind, view.format, tuple(view.shape or ())))
        views.append((end, flat.cast("B") if flat.ndim != 1 or flat.format != "B" else flat))
        rest[place] = None
        end += -(-view.nbytes // _ALIGNED) * _ALIGNED
    return rest, freight, _fill(views, end, file) if freight else -1


def unload(values: Sequence[Any], freight: Iterable[Freight], descriptor: int) -> list[Any]:
    """Put freight back where it was taken from. The descriptor is closed; views keep the memory while they live.

    Raises:
        DecodeError: this is no segment, or the freight does not lie in it.
    """
    whole, freight = list(values), list(freight)
    if descriptor < 0:
        if freight:
            raise DecodeError("a segment was announced, and none came")
        return whole
    memory = _mapped(descriptor)
    for one in freight:
        if not (0 <= one.place < len(whole) and one.start >= _ALIGNED and 0 <= one.bytes_ <= len(memory) - one.start):
            raise DecodeError("freight lies outside its segment")
        part = memory[one.start : one.start + one.bytes_]
        whole[one.place] = bytes(part) if one.kind == "bytes" else _shaped(part, one)
    return whole


def _shaped(part: memoryview, one: Freight) -> bytearray | memoryview:
    if one.kind == "bytearray":
        return bytearray(part)
    cast: Any = part.cast
    shape = () if math.prod(one.shape) == 0 else (one.shape,)  # there is nothing to look at in a shape of nothing
    try:
        return memoryview(cast(one.format, *shape))
    except (TypeError, ValueError) as exc:
        raise DecodeError(f"no buffer of format {one.format!r} and shape {one.shape}: {exc}") from exc


def _view(value: Any) -> memoryview | None:
    try:
        view = memoryview(value)
    except TypeError:
        return None
    if len(view.format) != 1:
        raise BadParameters(f"a buffer of format {view.format!r} cannot travel: make it one of a plain type")
    return view


def _fill(views: Sequence[tuple[int, memoryview]], end: int, file: Path | None) -> int:
    head = _HEAD.pack(_MAGIC, end, 0)
    head = _HEAD.pack(_MAGIC, end, zlib.crc32(head))
    made = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = _nameless() if file is None else os.open(file, made, 0o600)
    try:
        os.ftruncate(descriptor, end)
        os.pwrite(descriptor, head, 0)
        for start, view in views:
            done = 0
            while done < len(view):
                done += os.pwrite(descriptor, view[done:], start + done)
        if file is None and hasattr(fcntl, "F_ADD_SEALS"):
            seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        if file is not None:
            file.unlink()
        raise
    return descriptor


def _nameless() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("asyncworker", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    descriptor, path = tempfile.mkstemp(prefix="asyncworker-")
    os.unlink(path)  # noqa: PTH108 - a text from mkstemp
    return descriptor


def _mapped(descriptor: int) -> memoryview:
    try:
        size = os.fstat(descriptor).st_size
        with_head = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) if size >= _HEAD.size else b""
    except (OSError, ValueError) as exc:
        raise DecodeError(f"no segment: {exc}") from exc
    finally:
        os.close(descriptor)
    view = memoryview(with_head)
    if len(view) < _HEAD.size:
        raise DecodeError("no segment: too short")
    magic, end, crc = _HEAD.unpack(view[: _HEAD.size])
    if magic != _MAGIC or end != len(view) or crc != zlib.crc32(_HEAD.pack(magic, end, 0)):
        raise DecodeError("no segment: its header does not fit")
    return view

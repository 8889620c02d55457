"""Wire: messages through a unix socket, each with a segment or without; between processes that trust each other.

A frame is its length (4 bytes), whether a segment comes with it (1 byte), and that many bytes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable

from asyncworker.errors import DecodeError

MOST = 2**31
_HEAD = struct.Struct(">IB")
_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_PIECE = 2**20


async def send(wire: socket.socket, data: bytes, segment: int = -1) -> None:
    """Send one frame through a socket that does not block; *segment* stays open. OSError: the other end is gone."""
    loop = asyncio.get_running_loop()
    head = _head(data, segment)
    if segment >= 0:
        while True:
            try:
                head = head[socket.send_fds(wire, [head], [segment]) :]
            except BlockingIOError:
                await _until(wire, loop.add_writer, loop.remove_writer)
            else:
                break
    await loop.sock_sendall(wire, head + data)


async def receive(wire: socket.socket, most: int = MOST) -> tuple[bytes, int]:
    """Return one frame and its segment, -1 where there is none; the segment is the caller's to close.

    Raises:
        EOFError, OSError: the other end is gone. DecodeError: this is no frame, or a longer one than *most*.
    """
    loop = asyncio.get_running_loop()
    head, segment = bytearray(), -1
    try:
        while len(head) < _HEAD.size:
            try:
                more, segment = _first(wire, _HEAD.size - len(head), segment)
            except BlockingIOError:
                await _until(wire, loop.add_reader, loop.remove_reader)
            else:
                head += more
        length, data = _length(head, segment, most), bytearray()
        while len(data) < length:
            data += _some(await loop.sock_recv(wire, min(length - len(data), _PIECE)))
    except BaseException:
        _close(segment)
        raise
    return bytes(data), segment


def send_now(wire: socket.socket, data: bytes, segment: int = -1) -> None:
    """Send one frame through a socket that blocks."""
    head = _head(data, segment)
    if segment >= 0:
        head = head[socket.send_fds(wire, [head], [segment]) :]
    wire.sendall(head + data)


def receive_now(wire: socket.socket) -> tuple[bytes, int]:
    """Return one frame from a socket that blocks; as `receive`."""
    head, segment = bytearray(), -1
    try:
        while len(head) < _HEAD.size:
            more, segment = _first(wire, _HEAD.size - len(head), segment)
            head += more
        length, data = _length(head, segment, MOST), bytearray()
        while len(data) < length:
            data += _some(wire.recv(min(length - len(data), _PIECE)))
    except BaseException:
        _close(segment)
        raise
    return bytes(data), segment


def _first(wire: socket.socket, most: int, segment: int) -> tuple[bytes, int]:
    """Return some bytes of a head; the segment comes with the first of them."""
    more, found, _, _ = socket.recv_fds(wire, most, 1, _FLAGS)
    for one in found:
        os.set_inheritable(one, False)  # where the flag is not known
    return _some(more), found[0] if found else segment


def _some(data: bytes) -> bytes:
    if not data:
        raise EOFError("the other end of the socket is gone")
    return data


def _head(data: bytes, segment: int) -> bytes:
    if len(data) > MOST:
        raise OverflowError(f"a message of {len(data)} bytes is too long: pass large values as buffers of their own")
    return _HEAD.pack(len(data), segment >= 0)


def _length(head: bytes | bytearray, segment: int, most: int) -> int:
    length, with_segment = _HEAD.unpack(head)
    if length > most or with_segment != (segment >= 0):
        raise DecodeError(f"no frame of at most {most} bytes")
    return int(length)


def _close(segment: int) -> None:
    if segment >= 0:
        os.close(segment)


async def _until(
    wire: socket.socket, add: Callable[[int, Callable[[], None]], None], remove: Callable[[int], object]
) -> None:
    """Return when the socket can be read from, or written to."""
    ready = asyncio.get_running_loop().create_future()
    add(wire.fileno(), lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        if wire.fileno() >= 0:
            remove(wire.fileno())

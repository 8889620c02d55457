"""Frames arrive whole, in pieces of any size, with their segments; what is no frame is refused."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from asyncworker.errors import DecodeError
from asyncworker.share.segment import WORTH, load, unload
from asyncworker.share.wire import receive, receive_now, send, send_now

BIG = os.urandom(3 * WORTH)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


async def test_frames_and_segments_go_both_ways(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair

    def echo() -> None:
        for _ in range(3):
            data, segment = receive_now(theirs)
            send_now(theirs, data, segment)
            if segment >= 0:
                os.close(segment)

    other = threading.Thread(target=echo)
    other.start()
    for data, value in ((b"", None), (b"x" * 5_000_000, None), (b"y", BIG)):
        _, freight, segment = load([value])
        await send(ours, data, segment)
        if segment >= 0:
            os.close(segment)
        back, segment = await receive(ours)
        assert back == data
        assert unload([None], freight, segment) == [value]
    await asyncio.to_thread(other.join)


async def test_a_full_socket_is_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    filled = 0
    try:
        while True:
            filled += ours.send(bytes(65536))
    except BlockingIOError:
        pass
    _, freight, segment = load([BIG])
    sending = asyncio.ensure_future(send(ours, b"behind", segment))
    await asyncio.sleep(0)
    assert not sending.done()
    assert len(await asyncio.to_thread(theirs.recv, filled, socket.MSG_WAITALL)) == filled
    await sending
    os.close(segment)
    data, segment = receive_now(theirs)
    assert data == b"behind"
    assert unload([None], freight, segment) == [BIG]


async def test_a_slow_sender_is_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    getting = asyncio.ensure_future(receive(ours))
    for byte in (0, 0, 0, 3, 0, *b"abc"):
        await asyncio.sleep(0)
        theirs.send(bytes([byte]))
    assert await getting == (b"abc", -1)


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\0\0\3\0ab"])
async def test_an_end_within_a_frame_is_an_end(pair: tuple[socket.socket, socket.socket], sent: bytes) -> None:
    ours, theirs = pair
    theirs.send(sent) if sent else None
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        await receive(ours)


async def test_what_is_no_frame_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.send(b"\xff\xff\xff\xff\0")
    with pytest.raises(DecodeError):
        await receive(ours)
    theirs.send(b"\0\0\0\1\1x")  # announces a segment that does not come
    with pytest.raises(DecodeError):
        await receive(ours)


async def test_one_that_gives_up_waiting_leaves_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    waiting = asyncio.ensure_future(receive(ours))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    send_now(theirs, b"later")
    assert await receive(ours) == (b"later", -1)

"""Link: the side of the channel that connects; and the words that both sides speak."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from asyncworker.errors import BadParameters, ChannelClosed, DecodeError, UnknownName
from asyncworker.share.queue import Held

SOCKET = "socket"
MOST = 16 * 2**20
"""Bytes of one message; larger values go as buffers of their own."""
_LENGTH = 4


class Hello(msgspec.Struct, tag=0, array_like=True):
    name: str


class Put(msgspec.Struct, tag=1, array_like=True):
    number: int
    queue: str
    timeout: float | None
    held: Held


class Get(msgspec.Struct, tag=2, array_like=True):
    number: int
    queue: str
    timeout: float | None


class Done(msgspec.Struct, tag=3, array_like=True):
    number: int
    queue: str


class Cancel(msgspec.Struct, tag=4, array_like=True):
    number: int
    queue: str


class Bye(msgspec.Struct, tag=5, array_like=True):
    pass


Request = Hello | Put | Get | Done | Cancel | Bye


class Answer(msgspec.Struct, array_like=True):
    """The answer to the request of this number; to Hello, number 0, the slot."""

    number: int
    held: Held | None = None
    slot: int = 0
    error: Literal["", "name", "queue", "closed", "timeout"] = ""
    text: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Answer).decode


async def read(reader: asyncio.StreamReader) -> bytes:
    """Return one frame. EOFError: the other end is gone. DecodeError: it is too long."""
    length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
    if length > MOST:
        raise DecodeError(f"a message of {length} bytes; {MOST} are the most")
    return await reader.readexactly(length)


def told(writer: asyncio.StreamWriter, word: Request | Answer) -> int:
    """Write one frame and return its length."""
    data = _encode(word)
    if len(data) > MOST:
        raise BadParameters(f"a message of {len(data)} bytes; {MOST} are the most: pass large values as buffers")
    writer.write(len(data).to_bytes(_LENGTH, "big") + data)
    return _LENGTH + len(data)


class Link:
    """A connection to the owner of a place; *on_lost* is called when that ends without our doing."""

    def __init__(self, place: Path, on_lost: Callable[[], None]) -> None:
        self._place, self._on_lost = place, on_lost
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._open = False

    async def open(self, name: str) -> int:
        """Connect and return our slot. ChannelClosed: nobody is there. BadParameters: the name is taken."""
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(self._place / SOCKET)
            told(self._writer, Hello(name))
            answer = _decode(await read(self._reader))
        except (OSError, EOFError) as exc:
            raise ChannelClosed(f"nobody is at {self._place}: {exc}") from exc
        if answer.error:
            self._writer.close()
            raise BadParameters(answer.text)
        self._open = True
        self._hearing = asyncio.get_running_loop().create_task(self._hear(), name="link")
        return answer.slot

    async def close(self) -> None:
        """Say good-bye: nothing that we had in hand comes back."""
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):
                told(self._writer, Bye())
                await self._writer.drain()
        self._hearing.cancel()
        await asyncio.wait([self._hearing])
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def put(self, queue: str, held: Held, timeout: float | None) -> int:
        _, size = await self._ask(Put(next(self._numbers), queue, timeout, held))
        return size

    async def get(self, queue: str, _: str, timeout: float | None) -> Held | None:
        answer, _size = await self._ask(Get(next(self._numbers), queue, timeout))
        return answer.held

    async def done(self, queue: str, _: str) -> None:
        await self._ask(Done(next(self._numbers), queue))

    async def _ask(self, request: Put | Get | Done) -> tuple[Answer, int]:
        if not self._open:
            raise ChannelClosed
        future = self._asked[request.number] = asyncio.get_running_loop().create_future()
        try:
            size = told(self._writer, request)
            answer = await future
        except asyncio.CancelledError:
            if self._open:
                told(self._writer, Cancel(request.number, request.queue if isinstance(request, Get) else ""))
            raise
        finally:
            del self._asked[request.number]
        if answer.error == "timeout":
            raise TimeoutError
        if answer.error == "queue":
            raise UnknownName("message queue", request.queue)
        if answer.error:
            raise ChannelClosed(answer.text)
        return answer, size

    async def _hear(self) -> None:
        try:
            while True:
                answer = _decode(await read(self._reader))
                if (future := self._asked.get(answer.number)) is not None and not future.done():
                    future.set_result(answer)
        except (OSError, EOFError, DecodeError, msgspec.MsgspecError) as exc:
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(ChannelClosed(f"the owner of the channel is gone: {exc}"))
            if self._open:
                self._open = False
                self._on_lost()

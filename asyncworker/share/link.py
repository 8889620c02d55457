"""Link: the side of the channel that connects; and the words that both sides speak."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

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


class Frames(asyncio.Protocol):
    """A connection as frames: each its length, in four bytes, and itself. Subclasses `hear` them, and of the `end`."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._buffer = bytearray()

    def hear(self, frame: bytes) -> None:
        """Take one frame. DecodeError, MsgspecError: it is none; the connection is closed."""

    def end(self, error: Exception | None) -> None:
        """Hear that the connection is over."""

    def tell(self, word: Request | Answer) -> int:
        """Write one frame and return its length. BadParameters: it is too long. TypeError: it cannot travel."""
        data = _encode(word)
        if len(data) > MOST:
            raise BadParameters(f"a message of {len(data)} bytes; {MOST} are the most: pass large values as buffers")
        self.transport.write(len(data).to_bytes(_LENGTH, "big") + data)
        return _LENGTH + len(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are none by descent

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) >= start + _LENGTH:
                length = int.from_bytes(buffer[start : start + _LENGTH], "big")
                if length > MOST:
                    raise DecodeError(f"a message of {length} bytes; {MOST} are the most")  # noqa: TRY301 - as what hears
                if len(buffer) < start + _LENGTH + length:
                    break
                start += _LENGTH
                self.hear(bytes(buffer[start : start + length]))
                start += length
        except (DecodeError, msgspec.MsgspecError) as exc:
            self._refused = exc
            self.transport.abort()
        del buffer[:start]

    _refused: Exception | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(self._refused or exc)


class Link(Frames):
    """A connection to the owner of a place; *on_lost* is called when that ends without our doing."""

    def __init__(self, place: Path, on_lost: Callable[[], None]) -> None:
        super().__init__()
        self._place, self._on_lost = place, on_lost
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._open = False
        self._over = asyncio.Event()

    async def open(self, name: str) -> int:
        """Connect and return our slot. ChannelClosed: nobody is there. BadParameters: the name is taken."""
        loop = asyncio.get_running_loop()
        first: asyncio.Future[Answer] = loop.create_future()
        self._asked[0] = first
        try:
            await loop.create_unix_connection(lambda: self, str(self._place / SOCKET))
        except OSError as exc:
            raise ChannelClosed(f"nobody is at {self._place}: {exc}") from exc
        self.tell(Hello(name))
        answer = await first
        del self._asked[0]
        if answer.error:
            self.transport.close()
            raise BadParameters(answer.text)
        self._open = True
        return answer.slot

    async def close(self) -> None:
        """Say good-bye: nothing that we had in hand comes back."""
        if self._open:
            self._open = False
            self.tell(Bye())
        self.transport.close()
        await self._over.wait()

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
            size = self.tell(request)
            answer = await future
        except asyncio.CancelledError:
            if self._open:
                self.tell(Cancel(request.number, request.queue if isinstance(request, Get) else ""))
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

    def hear(self, frame: bytes) -> None:
        answer = _decode(frame)
        if (future := self._asked.get(answer.number)) is not None and not future.done():
            future.set_result(answer)

    def end(self, error: Exception | None) -> None:
        self._over.set()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ChannelClosed(f"the owner of the channel is gone: {error or 'closed'}"))
        if self._open:
            self._open = False
            self._on_lost()

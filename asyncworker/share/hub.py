"""Hub: the owner's side of the channel. Holds the queues, answers those who are connected, and cleans up after them."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from asyncworker.clock import Clock
from asyncworker.errors import BadParameters, ChannelClosed, DecodeError, QueueFull, UnknownName
from asyncworker.share.board import Board, Watch
from asyncworker.share.link import SOCKET, Answer, Bye, Cancel, Done, Frames, Get, Hello, Put, Request
from asyncworker.share.place import Place
from asyncworker.share.queue import Held, MessageQueue, MessageType

_SEGMENT = re.compile(r"segment-[0-9]{1,4}-[0-9a-f]{32}")
_decode = msgspec.msgpack.Decoder(Request).decode
_AT_ONCE = 1000
"""Requests of one process that may wait; with more it is not listened to until some are answered."""


class Hub:
    """Serve a place of its own until closed."""

    def __init__(self, on_lost: Callable[[str], None], clock: Clock) -> None:
        self._place = Place()
        self.path = self._place.path
        self.board = Board(self.path, make=True)
        self.watch = Watch(self.board, clock)
        self.queues: dict[str, MessageQueue] = {}
        self.counts: Counter[str] = Counter()
        self._on_lost = on_lost
        self.members: set[str] = set()
        self.guests: set[_Guest] = set()
        self._closing = False

    async def start(self) -> None:
        """Begin to answer."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Guest(self), str(self.path / SOCKET))

    async def close(self) -> None:
        self._closing = True
        self._server.close()
        guests = list(self.guests)
        for guest in guests:
            guest.transport.abort()
        for guest in guests:
            await guest.over.wait()
        for queue in self.queues.values():
            queue.clear()
        self.board.close()
        self._place.close()

    def make(self, name: str, most: int) -> None:
        """Make a queue. BadParameters: there is one of this name."""
        if name in self.queues:
            raise BadParameters(f"there is a message queue {name!r} already")
        self.queues[name] = MessageQueue(most, self.drop)

    async def put(self, name: str, held: Held, timeout: float | None) -> int:
        """Add a message as soon as there is room, or raise TimeoutError; returns the bytes of its envelope: none, here."""
        try:
            if not self.put_now(name, held):
                async with asyncio.timeout(timeout):
                    await self.queues[name].put(held)
        except BaseException:
            self.drop(held)
            raise
        return 0

    def put_now(self, name: str, held: Held) -> bool:
        """Add a message, or close the queue; returns False where that must wait."""
        queue = self._queue(name)
        if held.message.msg_type is MessageType.SHUTDOWN:
            self.drop(held)
            queue.close()
        elif queue.has_room:
            queue.put_now(held)
        else:
            return False
        return True

    async def get(self, name: str, reader: str, timeout: float | None) -> Held | None:
        queue = self._queue(name)
        if queue:
            return queue.get_now(reader)
        async with asyncio.timeout(timeout):
            return await queue.get(reader)

    async def done(self, name: str, reader: str) -> None:
        self._queue(name).done(reader)

    def at_once(self, request: Put | Get | Done, reader: str) -> Answer | None:
        """Answer what can be answered without waiting; else None."""
        if isinstance(request, Put):
            return Answer(request.number) if self.put_now(request.queue, request.held) else None
        queue = self._queue(request.queue)
        if isinstance(request, Get):
            return Answer(request.number, held=queue.get_now(reader)) if queue else None
        queue.done(reader)
        return Answer(request.number)

    def _queue(self, name: str) -> MessageQueue:
        if name not in self.queues:
            raise UnknownName("message queue", name, self.queues)
        return self.queues[name]

    def drop(self, held: Held) -> None:
        if held.segment:
            (self.path / held.segment).unlink(missing_ok=True)

    def admit(self, name: str) -> int:
        """Let a process in, and return its slot. BadParameters: one of its name is there. QueueFull: no slot is left."""
        if name in self.members:
            raise BadParameters(f"there is a process {name!r} already")
        slot = self.watch.admit(name)
        self.members.add(name)
        return slot

    def leave(self, name: str, slot: int, *, died: bool) -> None:
        """Put back what a process had in hand when it died, and clear away what it left."""
        if self._closing:
            return
        self.members.remove(name)
        for queue in self.queues.values():
            if not died:
                queue.done(name)
            elif held := queue.give_back(name, died=True):
                self.counts["redelivered" if held in set(queue) else "given_up"] += 1
                self.counts["errors"] += 1
        kept = {held.segment for queue in self.queues.values() for held in queue}
        for file in self.path.glob(f"segment-{slot}-*"):
            if file.name not in kept:
                file.unlink(missing_ok=True)
        if died:
            self._on_lost(name)
        self.watch.dismiss(name)


class _Guest(Frames):
    """One connection. What can be answered at once is; what must wait has a task."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub
        self._name = ""
        self._slot = -1
        self._left = False
        self._waiting: dict[int, asyncio.Task[None]] = {}
        self.over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._hub.guests.add(self)

    def hear(self, frame: bytes) -> None:
        request = _decode(frame)
        if self._left:
            return
        if isinstance(request, Hello) or not self._name:
            self._greet(request)
        elif isinstance(request, Bye):
            self._left = True
            self.transport.close()
        elif isinstance(request, Cancel):
            task = self._waiting.get(request.number)
            if (task is None or not task.cancel()) and request.queue in self._hub.queues:
                # It was answered, and nobody listened.
                self._hub.queues[request.queue].give_back(self._name, died=False)
        else:
            self._serve(request)

    def _greet(self, hello: Request) -> None:
        if not isinstance(hello, Hello) or self._name:
            raise DecodeError("the first word of a process is its name, and no other is")
        try:
            self._slot = self._hub.admit(hello.name)
        except (BadParameters, QueueFull) as exc:
            self._left = True
            self.tell(Answer(0, error="name", text=str(exc)))
            self.transport.close()
        else:
            self._name = hello.name
            self.tell(Answer(0, slot=self._slot))

    def _serve(self, request: Put | Get | Done) -> None:
        if isinstance(request, Put) and request.held.segment and not _SEGMENT.fullmatch(request.held.segment):
            raise DecodeError("a segment has another name")
        try:
            answer = self._hub.at_once(request, self._name)
        except (UnknownName, ChannelClosed) as exc:
            answer = _failed(request, exc)
            if isinstance(request, Put):
                self._hub.drop(request.held)
        if answer is not None:
            self.tell(answer)
            return
        task = asyncio.get_running_loop().create_task(self._answer(request), name=f"answer to {self._name}")
        self._waiting[request.number] = task
        task.add_done_callback(lambda _: self._answered(request.number))
        if len(self._waiting) >= _AT_ONCE:
            self.transport.pause_reading()

    def _answered(self, number: int) -> None:
        self._waiting.pop(number, None)
        if len(self._waiting) < _AT_ONCE and not self.transport.is_closing():
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def end(self, error: Exception | None) -> None:
        if isinstance(error, DecodeError | msgspec.MsgspecError):
            self._hub.counts["errors"] += 1
        for task in list(self._waiting.values()):
            task.cancel()
        self._hub.guests.discard(self)
        if self._name:
            self._hub.leave(self._name, self._slot, died=not self._left)
        self.over.set()

    async def _answer(self, request: Put | Get | Done) -> None:
        """Answer what has to wait."""
        hub = self._hub
        try:
            if isinstance(request, Put):
                await hub.put(request.queue, request.held, request.timeout)
                answer = Answer(request.number)
            else:
                assert isinstance(request, Get)
                answer = Answer(request.number, held=await hub.get(request.queue, self._name, request.timeout))
        except (TimeoutError, UnknownName, ChannelClosed) as exc:
            answer = _failed(request, exc)
        if not self.transport.is_closing():
            self.tell(answer)


def _failed(request: Put | Get | Done, error: Exception) -> Answer:
    words = {TimeoutError: "timeout", UnknownName: "queue", ChannelClosed: "closed"}
    word: Any = words[type(error)]
    return Answer(request.number, error=word, text=str(error))

"""Hub: the owner's side of the channel. Holds the queues, answers those who are connected, and cleans up after them."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable

import msgspec

from asyncworker.clock import Clock
from asyncworker.errors import BadParameters, ChannelClosed, DecodeError, QueueFull, UnknownName
from asyncworker.share.board import Board, Watch
from asyncworker.share.link import SOCKET, Answer, Bye, Cancel, Done, Get, Hello, Put, Request, read, told
from asyncworker.share.place import Place
from asyncworker.share.queue import Held, MessageQueue, MessageType

_SEGMENT = re.compile(r"segment-[0-9]{1,4}-[0-9a-f]{32}")
_decode = msgspec.msgpack.Decoder(Request).decode


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
        self._guests: set[asyncio.Task[None]] = set()
        self._closing = False

    async def start(self) -> None:
        """Begin to answer."""
        self._server = await asyncio.start_unix_server(self._welcome, self.path / SOCKET)

    async def close(self) -> None:
        self._closing = True
        self._server.close()
        for guest in self._guests:
            guest.cancel()
        if self._guests:
            await asyncio.wait(self._guests)
        for queue in self.queues.values():
            queue.clear()
        self.board.close()
        self._place.close()

    def make(self, name: str, most: int) -> None:
        """Make a queue. BadParameters: there is one of this name."""
        if name in self.queues:
            raise BadParameters(f"there is a message queue {name!r} already")
        self.queues[name] = MessageQueue(most, self._drop)

    async def put(self, name: str, held: Held, timeout: float | None) -> int:
        """Add a message as soon as there is room, or raise TimeoutError; returns the bytes that its envelope took: none, here."""
        try:
            queue = self._queue(name)
            if held.message.msg_type is not MessageType.SHUTDOWN:
                async with asyncio.timeout(timeout):
                    await queue.put(held)
                return 0
        except BaseException:
            self._drop(held)
            raise
        self._drop(held)
        queue.close()
        return 0

    async def get(self, name: str, reader: str, timeout: float | None) -> Held | None:
        queue = self._queue(name)
        async with asyncio.timeout(timeout):
            return await queue.get(reader)

    async def done(self, name: str, reader: str) -> None:
        self._queue(name).done(reader)

    def _queue(self, name: str) -> MessageQueue:
        if name not in self.queues:
            raise UnknownName("message queue", name, self.queues)
        return self.queues[name]

    def _drop(self, held: Held) -> None:
        if held.segment:
            (self.path / held.segment).unlink(missing_ok=True)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one process from its first word to its last."""
        task = asyncio.current_task()
        assert task is not None
        self._guests.add(task)
        try:
            await _Guest(self, reader, writer).serve()
        except (OSError, EOFError):
            pass  # it is gone
        except (DecodeError, msgspec.MsgspecError):
            self.counts["errors"] += 1
        except asyncio.CancelledError:  # the hub closes; a server logs what is cancelled
            if not self._closing:
                raise
        finally:
            self._guests.discard(task)
            writer.close()

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


class _Guest:
    """One connection. What can be answered at once is; what must wait has a task."""

    def __init__(self, hub: Hub, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._hub, self._reader, self._writer = hub, reader, writer
        self._name = ""
        self._waiting: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        hello = _decode(await read(self._reader))
        if not isinstance(hello, Hello):
            raise DecodeError("the first word of a process is its name")
        try:
            slot = self._hub.admit(hello.name)
        except (BadParameters, QueueFull) as exc:
            told(self._writer, Answer(0, error="name", text=str(exc)))
            return
        self._name, died = hello.name, True
        told(self._writer, Answer(0, slot=slot))
        try:
            while not isinstance(request := _decode(await read(self._reader)), Bye | Hello):
                await self._hear(request)
                await self._writer.drain()
            died = False
        finally:
            for task in self._waiting.values():
                task.cancel()
            if self._waiting:
                await asyncio.wait(self._waiting.values())
            self._hub.leave(self._name, slot, died=died)

    async def _hear(self, request: Put | Get | Done | Cancel) -> None:
        if isinstance(request, Cancel):
            task = self._waiting.get(request.number)
            if (
                task is None or not task.cancel()
            ) and request.queue in self._hub.queues:  # it was answered, and nobody listened
                self._hub.queues[request.queue].give_back(self._name, died=False)
            return
        if isinstance(request, Put) and request.held.segment and not _SEGMENT.fullmatch(request.held.segment):
            raise DecodeError("a segment has another name")
        if self._at_once(request):
            await self._answer(request)
            return
        task = asyncio.get_running_loop().create_task(self._answer(request), name=f"answer to {self._name}")
        self._waiting[request.number] = task
        task.add_done_callback(lambda _: self._waiting.pop(request.number, None))

    def _at_once(self, request: Put | Get | Done) -> bool:
        queue = self._hub.queues.get(request.queue)
        if queue is None or isinstance(request, Done):
            return True
        if isinstance(request, Put):
            return queue.has_room or request.held.message.msg_type is MessageType.SHUTDOWN
        return len(queue) > 0

    async def _answer(self, request: Put | Get | Done) -> None:
        hub, number = self._hub, request.number
        try:
            if isinstance(request, Put):
                await hub.put(request.queue, request.held, request.timeout)
                answer = Answer(number)
            elif isinstance(request, Get):
                answer = Answer(number, held=await hub.get(request.queue, self._name, request.timeout))
            else:
                await hub.done(request.queue, self._name)
                answer = Answer(number)
        except TimeoutError:
            answer = Answer(number, error="timeout")
        except UnknownName as exc:
            answer = Answer(number, error="queue", text=str(exc))
        except ChannelClosed as exc:
            answer = Answer(number, error="closed", text=str(exc))
        told(self._writer, answer)

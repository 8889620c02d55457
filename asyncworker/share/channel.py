"""HighPerformanceIPC: message queues, shared memory and heartbeats between processes of one machine.

The process that makes it owns the queues and a place (`share.place`); others are told the place's path and connect.
Messages are MessagePack through a unix socket, buffers lie in shared memory, heartbeats on a board beside both. Nothing
outlives the owner, and a process that dies takes no message with it: what it had in hand goes to another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BadParameters, ChannelClosed, DecodeError
from asyncworker.share.board import Board, Gauges
from asyncworker.share.hub import Hub
from asyncworker.share.link import Link
from asyncworker.share.memory import SharedMemoryManager
from asyncworker.share.queue import Held, Message, MessageType
from asyncworker.share.segment import load, unload

MAXSIZE = 1000
SEGMENT = "segment-"


class HighPerformanceIPC:
    """One process's end of the channel.

    Args:
        process_id: its name, which no other that is connected has.
        place: the ``place`` of the owner's; without one this is the owner.
        heartbeat_interval: seconds between heartbeats, which are sent by themselves while the event loop turns.
        measure: returns what this process tells with a heartbeat; ``beats`` is filled in.
        on_lost: called in the event loop: of the owner with the name of a process whose connection ended without a
            word; of others, with "", when the owner is gone.

    Use as an async context manager, or call `start` and `cleanup`.
    """

    def __init__(
        self,
        process_id: str,
        *,
        place: str | Path | None = None,
        heartbeat_interval: float = 1.0,
        measure: Callable[[], Gauges] = Gauges,
        on_lost: Callable[[str], None] | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        if not process_id or heartbeat_interval <= 0:
            raise BadParameters("a process needs a name and a heartbeat_interval above 0")
        self.process_id, self.heartbeat_interval = process_id, heartbeat_interval
        self.shared_memories: dict[str, SharedMemoryManager] = {}
        self.last_heartbeat = 0.0
        self._beats = 0
        self._measure = measure
        self._clock = clock
        self._on_lost = on_lost or (lambda _: None)
        self._theirs = Path(place) if place is not None else None
        self._hub: Hub | None = None
        self._link: Link | None = None
        self._board: Board | None = None
        self._slot = 0
        self._beating: asyncio.Task[None] | None = None
        self._counts: Counter[str] = Counter()

    @property
    def place(self) -> str:
        """What others must be told to connect."""
        if self._hub is not None:
            return str(self._hub.path)
        if self._theirs is None:
            raise ChannelClosed
        return str(self._theirs)

    async def start(self) -> None:
        """Own a place, or connect to the owner.

        Raises:
            ChannelClosed: the owner is gone. BadParameters: the name is taken. OSError: no place can be made.
        """
        if self._theirs is None:
            self._hub = Hub(self._on_lost, self._clock)
            await self._hub.start()
            self._board, self._slot = self._hub.board, self._hub.watch.admit(self.process_id)
        else:
            self._link = Link(self._theirs, lambda: self._on_lost(""))
            self._slot = await self._link.open(self.process_id)
            self._board = Board(self._theirs, make=False)
        self.send_heartbeat()
        self._beating = asyncio.get_running_loop().create_task(self._beat(), name="heartbeat")

    async def cleanup(self) -> None:
        """Leave; the owner takes queues, shared memory and place along. Harmless when repeated."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])
            self._beating = None
        for memory in self.shared_memories.values():
            memory.cleanup()
        self.shared_memories.clear()
        if self._link is not None:
            await self._link.close()
            self._link = None
            if self._board is not None:
                self._board.close()
        if self._hub is not None:
            await self._hub.close()
            self._hub = None
        self._board = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.cleanup()

    # --- messages -------------------------------------------------------------------------------------------

    def create_message_queue(self, queue_name: str, maxsize: int = MAXSIZE) -> None:
        """Make a queue in which at most *maxsize* messages wait; only the owner of the channel can.

        Raises:
            BadParameters: it is there already, or has no bound.
        """
        if self._hub is None:
            raise ChannelClosed("message queues are made by the process that others connect to")
        if maxsize < 1:
            raise BadParameters(f"a message queue has room for 1 message or more, not {maxsize}")
        self._hub.make(queue_name, maxsize)

    async def send_message(
        self, queue_name: str, msg_type: MessageType, data: Any = None, timeout: float | None = None
    ) -> None:
        """Send a message: it is in the queue when this returns. SHUTDOWN closes the queue, for all readers.

        Args:
            data: what MessagePack carries; a buffer (`share.segment`) goes through shared memory.
            timeout: seconds to wait for room. Who is cancelled while waiting does not know whether it was sent.

        Raises:
            TimeoutError: no room in time. UnknownName: no such queue. ChannelClosed: it is closed, or its owner gone.
            TypeError: the data cannot travel.
        """
        if msg_type is MessageType.HEARTBEAT:
            self.send_heartbeat()
            return
        message = Message(msg_type, self.process_id, self._clock.now(), data)
        segment = f"{SEGMENT}{self._slot}-{os.urandom(16).hex()}"
        file = Path(self.place) / segment
        (rest,), freight, descriptor = load([data], file)
        if freight:
            os.close(descriptor)
            message.data = rest
        held = Held(message, freight, segment if freight else "")
        put = self._hub.put if self._hub else self._linked.put
        with self._counted():
            size = await put(queue_name, held, timeout)
        self._counts["messages_sent"] += 1
        self._counts["bytes_transferred"] += size + sum(one.bytes_ for one in freight)

    async def receive_message(
        self, queue_name: str, timeout: float | None = None, kind: type[Any] | None = None
    ) -> Message | None:
        """Return the next message; None after *timeout* seconds without one. A closed queue ends in SHUTDOWN.

        Until the next call for this queue, or `done`, the message is on loan: should this process die, another gets it.

        Args:
            kind: the type of ``data``, else what MessagePack makes of it. DecodeError: it does not fit.
        """
        get = self._hub.get if self._hub else self._linked.get
        try:
            with self._counted():
                held = await get(queue_name, self.process_id, timeout)
        except TimeoutError:
            return None
        if held is None:
            return Message(MessageType.SHUTDOWN, "", self._clock.now())
        message = held.message
        if held.freight:
            try:
                descriptor = os.open(Path(self.place) / held.segment, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError as exc:
                raise ChannelClosed("the channel was closed while a message was read") from exc
            message = msgspec.structs.replace(message, data=unload([None], held.freight, descriptor)[0])
        self._counts["messages_received"] += 1
        if kind is not None:
            try:
                message.data = msgspec.convert(message.data, kind)
            except msgspec.ValidationError as exc:
                self._counts["errors"] += 1
                raise DecodeError(f"a message of {queue_name} is no {kind.__name__}: {exc}") from exc
        return message

    async def done(self, queue_name: str) -> None:
        """Say that the last message of this queue was dealt with."""
        await (self._hub.done if self._hub else self._linked.done)(queue_name, self.process_id)

    @property
    def _linked(self) -> Link:
        if self._link is None:
            raise ChannelClosed
        return self._link

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise
        except Exception:
            self._counts["errors"] += 1
            raise

    # --- shared memory --------------------------------------------------------------------------------------

    def create_shared_memory(self, memory_name: str, size: int) -> None:
        """Make shared memory of *size* bytes. BadParameters: there is one of this name."""
        memory = SharedMemoryManager(memory_name, size, self.place)
        if not memory.create():
            raise BadParameters(f"there is shared memory {memory_name!r} already")
        self.shared_memories[memory_name] = memory

    def connect_shared_memory(self, memory_name: str, size: int) -> None:
        """Open shared memory that another process has made. BadParameters: there is none of this name and size."""
        memory = SharedMemoryManager(memory_name, size, self.place)
        if not memory.connect():
            raise BadParameters(f"there is no shared memory {memory_name!r}")
        self.shared_memories[memory_name] = memory

    def write_shared_data(self, memory_name: str, data: bytes, offset: int = 0) -> None:
        """Write; see `SharedMemoryManager.write_data`."""
        self._memory(memory_name).write_data(data, offset)
        self._counts["bytes_transferred"] += len(data)

    def read_shared_data(self, memory_name: str, length: int | None = None, offset: int = 0) -> bytes:
        """Read; see `SharedMemoryManager.read_data`."""
        return self._memory(memory_name).read_data(length, offset)

    def _memory(self, name: str) -> SharedMemoryManager:
        if name not in self.shared_memories:
            raise BadParameters(f"shared memory {name!r} is not open: create it or connect to it")
        return self.shared_memories[name]

    # --- liveness -------------------------------------------------------------------------------------------

    def send_heartbeat(self) -> None:
        """Say that this process lives, and how it is. Done by itself each ``heartbeat_interval``."""
        if self._board is None:
            raise ChannelClosed
        self._beats += 1
        self._board.write(self._slot, msgspec.structs.replace(self._measure(), beats=self._beats))
        self.last_heartbeat = self._clock.now()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.heartbeat_interval)
            self.send_heartbeat()

    def check_alive_processes(self, timeout: float = 10.0) -> list[str]:
        """Return who is connected and was not silent for more than *timeout* seconds of this process's clock."""
        return self._owned.watch.alive(timeout)

    def read_gauges(self, process_id: str) -> Gauges:
        """Return what a process told with its last heartbeat; of one that died, while *on_lost* is told of it."""
        return self._owned.watch.read(process_id)

    @property
    def _owned(self) -> Hub:
        if self._hub is None:
            raise ChannelClosed("the process that others connect to looks after them")
        return self._hub

    def get_stats(self) -> dict[str, Any]:
        """Return counts since the start, and who lives."""
        words = ("messages_sent", "messages_received", "bytes_transferred", "errors")
        own = {word: self._counts[word] for word in words}
        if self._hub is not None:
            own["errors"] += self._hub.counts["errors"]
            own |= {
                "redelivered": self._hub.counts["redelivered"],
                "given_up": self._hub.counts["given_up"],
                "waiting": sum(map(len, self._hub.queues.values())),
                "alive_processes": len(self.check_alive_processes()),
            }
        return {**own, "process_id": self.process_id, "last_heartbeat": self.last_heartbeat}

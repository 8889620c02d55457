"""Message queue: bounded, closed once, and what a reader died with comes back to its head.

Each process that takes a message has it on loan until it takes the next one, or says that it is done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any

import msgspec

from asyncworker.errors import ChannelClosed
from asyncworker.share.segment import Freight

DEATHS = 3
"""Readers that may die with the same message in hand; then it is given up."""


class MessageType(StrEnum):
    """What a message is for. HEARTBEAT goes another way; SHUTDOWN closes its queue."""

    DATA = "data"
    CONTROL = "control"
    HEARTBEAT = "heartbeat"
    SHUTDOWN = "shutdown"


class Message(msgspec.Struct, array_like=True):
    """What travels. ``timestamp`` is the sender's clock: for people to read, never to decide by."""

    msg_type: MessageType
    sender_id: str
    timestamp: float
    data: Any = None


class Held(msgspec.Struct, eq=False):
    """A message in a queue; where its freight is; and how many readers died with it in hand."""

    message: Message
    freight: list[Freight] = []
    segment: str = ""
    deaths: int = 0


class MessageQueue:
    """At most *most* messages wait; who has more to say waits as well. *drop* is told what nobody needs any more."""

    def __init__(self, most: int, drop: Callable[[Held], None]) -> None:
        self._most, self._drop = most, drop
        self._waiting: deque[Held] = deque()
        self._on_loan: dict[str, Held] = {}
        self._putters: deque[asyncio.Future[None]] = deque()
        self._getters: deque[asyncio.Future[None]] = deque()
        self.closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Held]:
        """Yield what waits, and what is on loan."""
        yield from self._waiting
        yield from self._on_loan.values()

    @property
    def has_room(self) -> bool:
        return self.closed or len(self._waiting) < self._most

    @property
    def has_answer(self) -> bool:
        return bool(self._waiting) or (self.closed and not self._on_loan)

    async def put(self, held: Held) -> None:
        """Add a message as soon as there is room. ChannelClosed: the queue takes no more."""
        while not self.has_room:
            await _turn(self._putters, lambda: self.has_room)
        self.put_now(held)

    def put_now(self, held: Held) -> None:
        """Add a message where there is room."""
        if self.closed:
            raise ChannelClosed("the message queue is closed")
        self._waiting.append(held)
        _wake(self._getters)

    async def get(self, reader: str) -> Held | None:
        """Lend the oldest message to *reader*, who is done with the one before; None: closed, and nothing is left.

        While others hold messages of a closed queue, which may come back, this waits for them.
        """
        self.done(reader)
        while not self.has_answer:
            await _turn(self._getters, lambda: self.has_answer)
        return self.get_now(reader)

    def get_now(self, reader: str) -> Held | None:
        """Lend the oldest message where there is one."""
        self.done(reader)
        if not self._waiting:
            return None
        held = self._on_loan[reader] = self._waiting.popleft()
        _wake(self._putters)
        return held

    def done(self, reader: str) -> None:
        """Hear that *reader* needs its message no more."""
        if (held := self._on_loan.pop(reader, None)) is not None:
            self._drop(held)
            self._told()

    def give_back(self, reader: str, *, died: bool) -> Held | None:
        """Take back what *reader* holds, to be the next that is read; returns it, unless it is given up (or none)."""
        held = self._on_loan.pop(reader, None)
        if held is None:
            return None
        held.deaths += died
        if held.deaths < DEATHS:
            self._waiting.appendleft(held)
        else:
            self._drop(held)
        self._told()
        return held

    def close(self) -> None:
        """Take no more; readers get what is left, and then the end."""
        self.closed = True
        self._told()

    def clear(self) -> None:
        """Forget everything."""
        for held in self:
            self._drop(held)
        self._waiting.clear()
        self._on_loan.clear()
        self.close()

    def _told(self) -> None:
        """Let all who wait look again."""
        for waiting in (self._putters, self._getters):
            for one in waiting:
                if not one.done():
                    one.set_result(None)


async def _turn(waiting: deque[asyncio.Future[None]], worth: Callable[[], bool]) -> None:
    """Wait in line until woken; who gives up after that wakes the next."""
    one: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting.append(one)
    try:
        await one
    except asyncio.CancelledError:
        if one.done() and not one.cancelled() and worth():
            _wake(waiting)
        raise
    finally:
        waiting.remove(one)


def _wake(waiting: deque[asyncio.Future[None]]) -> None:
    for one in waiting:
        if not one.done():
            one.set_result(None)
            return

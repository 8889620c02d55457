"""One connection to Redis on which a command goes out and its answer comes in, with nothing between it and hiredis.

redis-py's own connection reads through a stream, a parser and a timeout for each answer, which costs 60 us a command;
this one costs 12.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import hiredis

from asyncworker.queue.addresses.address import Refused, Target
from asyncworker.queue.near import Near

FULL = "ERR max number of clients reached"
"""What a server says to whom it lets in no more, before it hangs up: an answer to nobody's question."""


def _error(text: str) -> Refused | ConnectionError:
    return ConnectionError(text) if text == FULL else Refused(text)


class Taker(Protocol):
    """Who takes an answer; a future is one."""

    def done(self) -> bool:
        """Return whether it wants none any more."""
        ...

    def set_result(self, answer: Any, /) -> None:
        """Take the answer."""
        ...

    def set_exception(self, error: Exception, /) -> None:
        """Take what came in its place; see `Link.ask`."""
        ...


class Link(asyncio.Protocol):
    """A connection, one command at a time. Once it is lost, or a call was given up, it is of no more use."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=_error)
        self._transport: asyncio.Transport | None = None
        self._taker: Taker | None = None
        self._near = Near()
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, packed: bytes, deadline: float) -> asyncio.Future[Any]:
        """Send a packed command and return what its answer will be; *deadline* is by the loop's clock.

        Its errors: Refused, an answer of the server. ConnectionError, TimeoutError: there is none.
        """
        answer = self._loop.create_future()
        self.send(packed, deadline, answer)
        return answer

    def send(self, packed: bytes, deadline: float, taker: Taker) -> None:
        """Send a packed command; *taker* is called once with its answer, as soon as that is here."""
        if self._transport is None:
            raise ConnectionError("the connection was closed")
        self._taker = taker
        self._deadline = deadline
        if self._timer is None or deadline < self._timer.when():
            self._look_again()
        if self._near.sent():
            self._loop.call_soon(self._stay_awake)
        self._transport.write(packed)

    def close(self) -> None:
        """Hang up; who waits for an answer gets none."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        self.connection_lost(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own are none by class

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(ConnectionError(f"the connection was closed{f': {exc}' if exc else ''}"))

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            said = self._reader.gets()
        except hiredis.ProtocolError as exc:
            self._fail(ConnectionError(f"no answer of a Redis server: {exc}"))
            return
        if said is False:  # not whole yet; protocol 2 has no truth values
            return
        if isinstance(said, Refused | ConnectionError):
            self._fail(said)
            return
        self._near.answered()
        taker, self._taker = self._taker, None
        if taker is not None and not taker.done():
            taker.set_result(said)

    def _stay_awake(self) -> None:
        """Keep the loop from going to sleep, while it does all else that there is to do."""
        if self._taker is not None and self._near.worth():
            self._loop.call_soon(self._stay_awake)

    def _fail(self, error: Exception) -> None:
        taker, self._taker = self._taker, None
        if taker is not None and not taker.done():
            taker.set_exception(error)

    def _look_again(self) -> None:
        """Set one timer for all calls: it looks when the first would be over, and then when the present one is."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._taker is None or self._taker.done():
            return
        if self._loop.time() < self._deadline:
            self._look_again()
        else:
            self._fail(TimeoutError())


L = TypeVar("L", bound=Link)


async def connect(to: Target, deadline: float, kind: Callable[[], L]) -> L:
    """Return an open link to where *to* is, as the user that it names.

    Raises:
        OSError: nobody is there. Refused: somebody is, and refuses.
    """
    loop = asyncio.get_running_loop()
    if to.path:
        _, link = await loop.create_unix_connection(kind, to.path)
    else:
        secure = None if to.secure is None else to.secure()
        transport, link = await loop.create_connection(kind, to.host, to.port, ssl=secure)
        if to.keepalive:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    try:
        for command in to.greeting():
            await link.ask(hiredis.pack_command(command), deadline)
    except BaseException:
        link.close()
        raise
    return link

"""Connections to Redis, and what its errors mean to us. One command at a time, no retries, no pool.

The sequence numbers of ``brokers/lua`` make repeats harmless, so repeating is the broker's business. A link on which a call was interrupted is dropped: its answer
would be taken for the next call's.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import hiredis

from asyncworker.errors import AsyncWorkerError, BrokerDown, BrokerError, QueueFull, SettingsError
from asyncworker.queue.addresses.address import Address, Refused
from asyncworker.queue.durability import Assurance
from asyncworker.queue.link import Link, Taker, connect

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
"""How long to wait after a failure before the next try, and after many."""
_REFUSED = ("NOAUTH", "WRONGPASS", "NOPERM")
_PASSING = (
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "BUSY",
    "MISCONF",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "UNKILLABLE",
    "MOVED",
    "ASK",
)


def mapped(exc: Exception, address: Address) -> AsyncWorkerError:
    """Return our error for one of the connection's: `BrokerDown` means that repeating may help."""
    text = str(exc.strerror if isinstance(exc, OSError) and exc.strerror else exc)
    code = text.partition(" ")[0]
    if not isinstance(exc, Refused) or code in _PASSING:
        return BrokerDown(f"{address} does not answer: {text or type(exc).__name__}")
    if code in _REFUSED or text.startswith(("ERR AUTH", "ERR invalid password")):
        return SettingsError(f"{address} refuses this user, password or command: {text}")
    if "DB index" in text:
        return SettingsError(f"{address} has no such database")
    if code == "OOM":
        return QueueFull(f"{address} has no memory left")
    return BrokerError(f"{address} refused: {text}")


def is_unloaded(exc: Exception) -> bool:
    """Return whether a server says that it does not know a function."""
    return isinstance(exc, Refused) and "Function not found" in str(exc)


ERRORS = (Refused, OSError)
"""What a connection raises; `mapped` says what it means."""


class Wire:
    """One link, opened when first needed and again after each failure."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._link: Link | None = None
        self._turn = asyncio.Lock()
        self._stale = False
        self._closed = False

    async def __call__(self, *command: Any, timeout: float, assured: Assurance | None = None) -> Any:
        """Send a command and return the answer. Callers take turns.

        Args:
            assured: what must be true of the write; that it is not yet is an error as if there were no answer.

        Raises:
            Refused: the answer is an error. Any other of `ERRORS`: there is none.
        """
        packed = hiredis.pack_command(command)
        deadline = asyncio.get_running_loop().time() + timeout
        at_once = self._link is not None and not self._stale and not self._turn.locked()
        async with _AT_ONCE if at_once else asyncio.timeout_at(deadline), self._turn:
            link = self._link
            if link is None or self._stale or not at_once:  # whoever was served just before may have lost it
                async with asyncio.timeout_at(deadline):
                    link = await self._ready(deadline)
            try:
                answer = await link.ask(packed, deadline)
                if assured is not None:
                    await self._assure(assured, link, deadline)
                return answer
            except Refused:
                raise  # an answer, and the whole of it
            except BaseException:
                self._drop()
                raise

    def begin(self, command: tuple[Any, ...], timeout: float, taker: Taker) -> bool:
        """Send a command if that can be done at once, and let *taker* be called; for the only caller of this wire.

        What was no answer makes the link useless: `renew` it then.
        """
        link = self._link
        if link is None or self._stale or self._turn.locked():
            return False
        try:
            link.send(hiredis.pack_command(command), asyncio.get_running_loop().time() + timeout, taker)
        except ConnectionError:
            return False
        return True

    def renew(self) -> None:
        """Let the next call open a new connection: the server is not what it was."""
        self._stale = True

    def close(self) -> None:
        """Drop the connection, and with it a call that waits for its answer."""
        self._closed = True
        self._drop()

    @staticmethod
    async def _assure(assured: Assurance, link: Link, deadline: float) -> None:
        left_s = deadline - asyncio.get_running_loop().time()
        wait_ms = max(1, round(500 * left_s))  # 0 would be for ever; servers are late by up to 100 ms
        if not assured.is_enough(await link.ask(hiredis.pack_command((*assured.words, wait_ms)), deadline)):
            raise ConnectionError(assured.lack)

    async def _ready(self, deadline: float) -> Link:
        if self._stale:
            self._drop()
        if self._link is None:
            self._stale = False
            place = await self._address.here(deadline - asyncio.get_running_loop().time())
            link = await connect(place, deadline, Link)
            if self._closed:
                link.close()
                raise ConnectionError("closed")
            self._link = link
        return self._link

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()


_AT_ONCE = contextlib.nullcontext()
"""Nothing to wait for but the answer, and a link knows itself when that is overdue."""

"""Inbox: one subscription of Redis' to any number of channels, for as long as it is wanted.

What is published reaches the one who listens in the very call in which it was read: no stream, no task in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import hiredis

from asyncworker.errors import AsyncWorkerError, BrokerDown, SettingsError
from asyncworker.queue.addresses.address import Address, Refused
from asyncworker.queue.link import Link, connect
from asyncworker.queue.wire import ERRORS, FIRST_PAUSE_S, LONGEST_PAUSE_S, mapped


class _Ear(Link):
    """A link that, once it is given somebody who hears, is asked nothing more.

    Attributes: ``error``, why it is of no more use, ``heard``, whether anything came since this was last unset, and
    ``turn``, set for whoever looks after it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._hear: Callable[[list[Any]], None] | None = None
        self.error: Exception | None = None
        self.heard = False
        self.turn = asyncio.Event()

    def listen(self, hear: Callable[[list[Any]], None]) -> None:
        self._hear = hear

    def say(self, *command: Any) -> None:
        if self._transport is not None:
            self._transport.write(hiredis.pack_command(command))

    def data_received(self, data: bytes) -> None:
        if self._hear is None:
            super().data_received(data)
            return
        self.heard = True
        try:
            self._reader.feed(data)
            while (said := self._reader.gets()) is not False:
                if isinstance(said, list):
                    self._hear(said)
                elif isinstance(said, Refused | ConnectionError):
                    self._fail(said)
        except hiredis.ProtocolError as exc:
            self._fail(ConnectionError(f"no answer of a Redis server: {exc}"))

    def _fail(self, error: Exception) -> None:
        super()._fail(error)
        self.error = self.error or error
        self.turn.set()


class Inbox:
    """One subscription to any number of channels; lost connections are replaced until it is closed.

    A connection that is silent for *patience* seconds is asked for an answer, and given up after as many more.
    *heard* is called with channel and message; *resumed* whenever all channels are subscribed to anew: messages
    were missed, so what they said must be looked up.
    """

    def __init__(
        self,
        address: Address,
        heard: Callable[[str, bytes], None],
        resumed: Callable[[], Awaitable[None]],
        patience: float,
    ) -> None:
        self._address = address
        self._patience = patience
        self._heard = heard
        self._resumed = resumed
        self._channels: dict[str, asyncio.Future[None]] = {}
        self._missing: set[str] = set()
        self._ear: _Ear | None = None
        self._reader: asyncio.Task[None] | None = None

    async def listen(self, channel: str) -> None:
        """Return once *channel* is subscribed to; waits out outages.

        Raises:
            SettingsError: the server refuses us.
        """
        subscribed = self._channels.get(channel)
        if subscribed is None:
            subscribed = self._channels[channel] = asyncio.get_running_loop().create_future()
            if self._reader is None:
                self._reader = asyncio.create_task(self._read(), name="asyncworker inbox")
            self._say("SUBSCRIBE", channel)
        await asyncio.shield(subscribed)

    def hears(self, channel: str) -> bool:
        """Return whether `listen` would return at once."""
        subscribed = self._channels.get(channel)
        return subscribed is not None and subscribed.done()

    async def leave(self, channel: str) -> None:
        if self._channels.pop(channel, None):
            self._say("UNSUBSCRIBE", channel)

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        self._give_up(BrokerDown("the broker was closed"))

    def _say(self, *command: Any) -> None:
        """Send, if connected; what is lost does no harm, for all channels are subscribed to anew."""
        if self._ear is not None:
            self._ear.say(*command)

    async def _read(self) -> None:
        pause, again = FIRST_PAUSE_S, False
        while True:
            ear = None
            try:
                async with asyncio.timeout(self._patience):
                    place = await self._address.here(self._patience)
                    ear = await connect(place, asyncio.get_running_loop().time() + self._patience, _Ear)
                pause = FIRST_PAUSE_S
                await self._attend(ear, again)
            except (*ERRORS, AsyncWorkerError) as exc:
                again = True
                error = exc if isinstance(exc, AsyncWorkerError) else mapped(exc, self._address)
                if isinstance(error, SettingsError):
                    self._give_up(error)
                if not self._channels:
                    self._reader = None
                    return
            finally:
                self._ear = None
                if ear is not None:
                    ear.close()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _attend(self, ear: _Ear, again: bool) -> None:
        """Listen until the connection fails, or is silent although it was asked to answer."""
        self._missing = set(self._channels) if again else set()
        ear.listen(self._hear)
        self._ear = ear
        if self._channels:
            ear.say("SUBSCRIBE", *self._channels)
        asked = False
        while ear.error is None:
            ear.heard = False
            try:
                async with asyncio.timeout(self._patience):
                    await ear.turn.wait()
            except TimeoutError:
                if asked and not ear.heard:
                    raise TimeoutError("the subscription is silent") from None
                asked = not ear.heard
                if asked:
                    ear.say("PING")
                continue
            ear.turn.clear()
            if ear.error is None:
                await self._resumed()
        raise ear.error

    def _hear(self, said: list[Any]) -> None:
        kind, channel = said[0], said[1].decode()
        if kind == b"message":
            self._heard(channel, said[2])
        elif kind == b"subscribe":
            subscribed = self._channels.get(channel)
            if subscribed and not subscribed.done():
                subscribed.set_result(None)
            if channel in self._missing:
                self._missing.remove(channel)
                if not self._missing and self._ear is not None:
                    self._ear.turn.set()

    def _give_up(self, error: AsyncWorkerError) -> None:
        """Tell who waits for a subscription that there will be none."""
        for channel, subscribed in list(self._channels.items()):
            if not subscribed.done():
                del self._channels[channel]
                subscribed.set_exception(error)
                subscribed.exception()  # who waited may be gone

"""``embedded://`` or ``embedded:///some/dir``: the broker ``redis`` over a server of our own, which ends with us."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from urllib.parse import unquote

from asyncworker import registry
from asyncworker.clock import SYSTEM, Clock
from asyncworker.events import Bus
from asyncworker.queue import server
from asyncworker.queue.brokers.broker import Broker


class EmbeddedBroker:
    """A broker with one more thing to close; the verbs are those of the broker within.

    ``url`` is the server's own: give it to worker processes.
    """

    def __init__(self, within: Broker, own: server.Server) -> None:
        self._within, self._own = within, own
        self.url = own.url

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._within, verb)

    async def close(self) -> None:
        try:
            await self._within.close()
        finally:
            await asyncio.to_thread(self._own.stop)


def open(url: str, *, namespace: str = "asyncworker", bus: Bus | None = None, clock: Clock = SYSTEM) -> Broker:
    """Start a server and return a broker on it. Blocks for about 60 ms.

    Raises:
        SettingsError: there is no server program, or the directory cannot be used.
        BrokerDown: the server does not come up.
    """
    own = server.start(unquote(url.removeprefix("embedded://")) or None)
    try:
        within = registry.find("broker", "redis").open(own.url, namespace=namespace, bus=bus, clock=clock)
    except BaseException:
        own.stop()
        raise
    return cast("Broker", EmbeddedBroker(within, own))

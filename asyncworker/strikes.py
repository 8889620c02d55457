"""Strikes of an engine's tasks, made and lifted while workers run."""

from __future__ import annotations

from itertools import chain
from typing import Any, Protocol

from asyncworker.errors import UnknownName
from asyncworker.queue.admin import Admin
from asyncworker.queue.strike import Strike, read_strikes


class Struck(Protocol):
    """What strikes need of their engine."""

    @property
    def admin(self) -> Admin: ...


class Strikes:
    """Let nobody start a task, or those calls of it that have certain arguments, until that is lifted."""

    def __init__(self, engine: Struck) -> None:
        self._engine = engine

    async def add(self, task: str, /, **arguments: Any) -> Strike:
        """Strike *task*, or its calls with these arguments; its code need not be imported here.

        Workers know it within ten seconds. Jobs that are struck wait as `scheduled` and spend no attempt; what runs goes on.

        Raises:
            BadParameters: an argument that cannot travel. BrokerDown.
        """
        strike = Strike(task, arguments)
        await self._engine.admin.strike(strike.name, strike.pack())
        return strike

    async def rm(self, task: str, /, **arguments: Any) -> None:
        """Lift a strike: within twenty seconds its jobs go on.

        Raises:
            UnknownName: there is none. BrokerDown.
        """
        name = Strike(task, arguments).name
        if not await self._engine.admin.strike(name, None):
            raise UnknownName("strike", name, await self._engine.admin.strikes())

    async def ls(self) -> list[Strike]:
        """Return all strikes, by name."""
        texts = await self._engine.admin.strikes()
        strikes = chain.from_iterable(read_strikes(texts.values()).values())
        return sorted(strikes, key=lambda strike: strike.name)

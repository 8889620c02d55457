"""Keep the connections of a driver sound: none too old, none that died unseen, and the server asked again with patience.

A connection that was used a moment ago is lent as it is; one that was idle is asked for a sign of life first; one that
has lived its time is replaced. What proves dead is closed and another is tried, so a caller does not see it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Hashable
from typing import Any

from asyncworker.errors import PoolDown, PoolError
from asyncworker.tune.chores import Chores
from asyncworker.tune.drivers.driver import Driver

# The numbers are HikariCP's, but for the pauses.
LIFETIME_JITTER = 0.025
"""Connections that were opened together must not all be closed together."""
TRUSTED_S = 0.5
"""One that was used so recently is lent without asking the server."""
CHECK_S = 5.0
PAUSES_S = (0.05, 1.0)
"""First and longest pause before connecting again; each is drawn from its upper half."""


class _Passport:
    """What is known of one connection."""

    __slots__ = ("expires", "key", "used")

    def __init__(self, key: Hashable, now: float, lifetime: float) -> None:
        self.key, self.used = key, now
        self.expires = now + lifetime * (1 - random.uniform(0, LIFETIME_JITTER))


class Upkeep:
    """Take from a driver, and give back to it, what is worth lending.

    Args:
        lifetime: seconds after which a connection is replaced, minus up to 2.5 %.
        chores: where goodbyes go that nobody should wait for.

    Attributes: ``error`` says why the server could not be reached last; empty when all is well.
    """

    def __init__(self, driver: Driver, lifetime: float, chores: Chores) -> None:
        self._driver, self._lifetime, self._chores = driver, lifetime, chores
        self._known: dict[Hashable, _Passport] = {}
        self._out: dict[int, _Passport] = {}
        self.error = ""

    async def take(self, deadline: float) -> Any:
        """Return a connection that works, however often that must be tried.

        Args:
            deadline: of the loop's clock; who calls gives up then.

        Raises:
            PoolError: the server refuses, or the driver is closed.
        """
        loop = asyncio.get_running_loop()
        pause, longest = PAUSES_S
        while True:
            try:
                connection = await self._driver.take(deadline - loop.time())
            except PoolDown as exc:
                self.error = str(exc)
                await asyncio.sleep(random.uniform(pause / 2, pause))
                pause = min(2 * pause, longest)
                continue
            passport, sound = self._note(connection), False
            try:
                sound = await self._is_sound(connection, passport)
            finally:
                # Also where this was cancelled in the middle of the question: nobody else may get to read the answer.
                if not sound:
                    self._chores.begin(self.give(connection, keep=False))
            if sound:
                self.error = ""
                return connection

    async def give(self, connection: Any, *, keep: bool = True) -> None:
        """Give a connection back; close it instead if it is too old, or not to be kept."""
        passport, now = self._out.pop(id(connection)), asyncio.get_running_loop().time()
        if keep and now < passport.expires:
            passport.used = now
            await self._driver.give(connection)
        else:
            self._known.pop(passport.key, None)
            await self._driver.drop(connection)

    async def open(self, timeout: float) -> None:
        """Open one connection more, where none is idle, and leave it with the driver."""
        try:
            connection = await self._driver.take(timeout)
        except (PoolError, TimeoutError) as exc:
            self.error = str(exc) or "connecting took too long"
        else:
            self._note(connection)
            await self.give(connection)

    async def check(self, count: int, most: int) -> tuple[int, int]:
        """Ask the server over *count* idle connections, all taken at once as drivers lend the last one first.

        Args:
            most: connections that may stay open in all.

        Returns: how many were asked, and how many of these were closed.
        """
        taken: list[Any] = []
        sound: list[bool] = []
        try:
            while len(taken) < count:
                connection = await self._driver.take(CHECK_S)
                self._note(connection)
                taken.append(connection)
            asked = (self._is_sound(connection, self._out[id(connection)], trust=False) for connection in taken)
            sound = await asyncio.gather(*asked)
        except (PoolError, TimeoutError) as exc:
            self.error = str(exc) or "connecting took too long"
        finally:
            sound += [False] * (len(taken) - len(sound))
            spare = max(0, self._driver.opened() - most)
            keep = [good and place >= spare for place, good in enumerate(sound)]
            back = [self._chores.begin(self.give(one, keep=good)) for one, good in zip(taken, keep, strict=True)]
        if back:
            await asyncio.wait(back)
        return len(taken), len(taken) - sum(keep)

    def forget(self) -> None:
        self._known.clear()

    def _note(self, connection: Any) -> _Passport:
        now, key = asyncio.get_running_loop().time(), self._driver.key(connection)
        passport = self._known.get(key)
        if passport is None:
            passport = self._known[key] = _Passport(key, now, self._lifetime)
            if len(self._known) > 4 * self._driver.ceiling:  # some of them the driver has closed by itself
                latest = sorted(self._known.items(), key=lambda item: item[1].used)[-2 * self._driver.ceiling :]
                self._known = dict(latest)
        # Kept until it is given back: a connection that broke meanwhile may not tell its key any more.
        self._out[id(connection)] = passport
        return passport

    async def _is_sound(self, connection: Any, passport: _Passport, *, trust: bool = True) -> bool:
        now = asyncio.get_running_loop().time()
        if now >= passport.expires:
            return False
        return (trust and now - passport.used <= TRUSTED_S) or await self._driver.check(connection, CHECK_S)

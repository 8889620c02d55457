"""A gate of permits whose number may change while tasks wait at it: first come, first served, none lost.

`asyncio.Semaphore` cannot be resized, and neither can the pools of most drivers. Growing lets in at once as many as
there is room for; shrinking takes nothing from those inside, and lets nobody in until enough of them have left.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

import msgspec

from asyncworker.errors import BadParameters


class Statistics(msgspec.Struct, frozen=True):
    """What a limiter has seen.

    Attributes:
        size, in_use, waiting: now.
        passed: permits given so far. queued: those of them that had to wait.
        gave_up: waits that were cancelled. wait_s, longest_s: seconds waited for given permits, all and at most.
    """

    size: int
    in_use: int
    waiting: int
    passed: int
    queued: int
    gave_up: int
    wait_s: float
    longest_s: float


class Limiter:
    """Let at most *size* tasks be inside ``async with limiter`` at once. One event loop uses it, no threads.

    Who waits is served in order of arrival, and nobody overtakes: a permit that is given back goes straight to the
    first in line. Cancelling a waiter, even in the moment in which its permit comes, loses no permit.

    Args:
        size: permits, within the bounds.
        name: how decisions speak of it.
        low, high: bounds of `resize`.

    Raises:
        BadParameters: not ``1 <= low <= size <= high``.

    Cost: 0.5 us to enter and leave while there is room, 4.5 us with a wait between, as much as `asyncio.Semaphore`
    (`bench/control/bench_limiter.py`).
    """

    def __init__(self, size: int, *, name: str = "limiter", low: int = 1, high: int = 10_000) -> None:
        if not 1 <= low <= size <= high:
            raise BadParameters(f"a limiter needs 1 <= low <= size <= high, not {low}, {size}, {high}")
        self.name, self.low, self.high = name, low, high
        self._size, self._in_use = size, 0
        self._line: deque[asyncio.Future[None]] = deque()  # empty whenever a permit is free: `_let_in` sees to it
        self._passed = self._queued = self._gave_up = 0
        self._wait_s = self._longest_s = 0.0

    @property
    def size(self) -> int:
        return self._size

    @property
    def in_use(self) -> int:
        return self._in_use

    @property
    def waiting(self) -> int:
        return sum(not place.done() for place in self._line)

    def resize(self, size: int) -> None:
        """Give *size* permits in all from now on, within the bounds; whom there is room for goes in at once."""
        self._size = min(max(size, self.low), self.high)
        self._let_in()

    async def acquire(self) -> None:
        """Wait for a permit; each is given back with `release`."""
        if self._in_use < self._size:
            self._in_use += 1
            self._passed += 1
            return
        loop = asyncio.get_running_loop()
        place, came = loop.create_future(), loop.time()
        self._line.append(place)
        try:
            await place
        except BaseException:  # cancelled, or the coroutine was closed
            self._gave_up += 1
            if place.done() and not place.cancelled():  # the permit came in the same turn of the loop
                self.release()
            elif place in self._line:
                self._line.remove(place)
            raise
        waited = loop.time() - came
        self._passed += 1
        self._queued += 1
        self._wait_s += waited
        self._longest_s = max(self._longest_s, waited)

    def try_acquire(self) -> bool:
        """Take a permit if one is free; returns whether."""
        if self._in_use >= self._size:
            return False
        self._in_use += 1
        self._passed += 1
        return True

    def admit(self, count: int) -> None:
        """Count so many as inside that came another way, though there be no room for them; each gives its permit back."""
        self._in_use += count
        self._passed += count

    def release(self) -> None:
        """Give a permit back.

        Raises:
            RuntimeError: none is in use.
        """
        if not self._in_use:
            raise RuntimeError("a permit was given back that nobody had")
        self._in_use -= 1
        if self._line:
            self._let_in()

    def _let_in(self) -> None:
        while self._line and self._in_use < self._size:
            place = self._line.popleft()
            if not place.done():  # else its task was cancelled and has not run since
                self._in_use += 1
                place.set_result(None)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.release()

    def statistics(self) -> Statistics:
        return Statistics(
            self._size,
            self._in_use,
            self.waiting,
            self._passed,
            self._queued,
            self._gave_up,
            self._wait_s,
            self._longest_s,
        )

    def __repr__(self) -> str:
        return f"<Limiter {self.name}: {self._in_use} of {self._size} in use, {self.waiting} waiting>"

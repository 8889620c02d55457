"""Lane: one call in flight; what comes meanwhile goes together with the next.

So calls never overtake one another, a lone caller waits for nobody, and a thousand callers share a few round trips.
While all goes well no task is made: a call is begun by who comes first, and an answer begins the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from asyncworker.errors import AsyncWorkerError, BrokerDown

T = TypeVar("T")
R = TypeVar("R")


class Waiter(Protocol[R]):
    """Who waits for answers."""

    def done(self) -> bool:
        """Return whether it waits no longer."""
        ...

    def answered(self, answers: list[R]) -> None:
        """Take the answers of a batch, one for one; called at most once, as is `failed`, and not when `done`."""
        ...

    def failed(self, error: Exception) -> None:
        """Take the error of the call that the batch went with."""
        ...


class Line(Protocol[T, R]):
    """What a lane sends its calls by, one at a time."""

    def begin(self, batch: list[T], arrived: Callable[[list[R] | None], None]) -> bool:
        """Take a batch and send it at once if nothing is in the way, else return False: `finish` has to send it.

        Args:
            arrived: to be called with the answers, one for one and in order; with None where `finish` has to send it again.
        """
        ...

    async def finish(self) -> list[R]:
        """Send the batch that was begun, whatever it takes, and return the answers."""
        ...


class Lane(Generic[T, R]):
    """Send batches by *line*, at most *most* items at once where they meet."""

    def __init__(self, line: Line[T, R], most: int) -> None:
        self._line = line
        self._most = most
        self._waiting: deque[tuple[list[T], Waiter[R]]] = deque()
        self._under_way: list[tuple[list[T], Waiter[R]]] = []
        self._driver: asyncio.Task[None] | None = None

    def post(self, batch: list[T], waiter: Waiter[R]) -> None:
        """Send *batch* and tell *waiter* its answers, or the error of the call that it went with."""
        self._waiting.append((batch, waiter))
        if not self._under_way:
            self._go()

    async def __call__(self, batch: list[T]) -> list[R]:
        """Send *batch* and return its answers; an error of the call that it went with is its error."""
        caller: _Caller[R] = _Caller()
        self.post(batch, caller)
        return await caller.future

    async def close(self) -> None:
        """Give up what waits; its callers get `BrokerDown`. What is under way ends with its line."""
        while self._waiting:
            _, waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.failed(BrokerDown("the broker was closed"))
        if self._driver is not None:
            await asyncio.wait([self._driver])

    def _go(self) -> None:
        """Begin the next call, if anybody waits."""
        self._under_way = batches = self._next()
        if batches and not self._line.begin([item for batch, _ in batches for item in batch], self._arrived):
            self._arrived(None)

    def _arrived(self, answers: list[R] | None) -> None:
        if answers is None:
            self._driver = asyncio.get_running_loop().create_task(self._finish(), name="asyncworker lane")
        else:
            self._ended(answers)

    async def _finish(self) -> None:
        try:
            answers = await self._line.finish()
        except AsyncWorkerError as exc:
            self._ended(exc)
        else:
            self._ended(answers)

    def _ended(self, said: list[R] | AsyncWorkerError) -> None:
        """Begin the next call, and tell who waited for this one while that is under way."""
        batches = self._under_way
        self._go()
        start = 0
        for batch, waiter in batches:
            end = start + len(batch)
            if waiter.done():
                pass
            elif isinstance(said, AsyncWorkerError):
                waiter.failed(said)
            else:
                waiter.answered(said[start:end])
            start = end

    def _next(self) -> list[tuple[list[T], Waiter[R]]]:
        """Take the batches that fit into one call, and at least one; who gave up waiting is passed over."""
        batches: list[tuple[list[T], Waiter[R]]] = []
        room = self._most
        while self._waiting and (not batches or len(self._waiting[0][0]) <= room):
            one = self._waiting.popleft()
            if not one[1].done():
                batches.append(one)
                room -= len(one[0])
        return batches


class _Caller(Generic[R]):
    """A coroutine that waits."""

    def __init__(self) -> None:
        self.future: asyncio.Future[list[R]] = asyncio.get_running_loop().create_future()
        self.done = self.future.done
        self.answered = self.future.set_result
        self.failed = self.future.set_exception

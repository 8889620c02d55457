"""Lane: one call in flight; what comes meanwhile goes together with the next.

So calls never overtake one another, a lone caller waits for nobody, and a thousand callers share a few round trips.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from asyncworker.errors import AsyncWorkerError, BrokerDown

T = TypeVar("T")
R = TypeVar("R")


class Lane(Generic[T, R]):
    """Send batches through *send*, which answers one for one, in order, at most *most* at once where they meet."""

    def __init__(self, send: Callable[[list[T]], Awaitable[list[R]]], most: int) -> None:
        self._send = send
        self._most = most
        self._waiting: deque[tuple[list[T], asyncio.Future[list[R]]]] = deque()
        self._busy = False
        self._driver: asyncio.Task[None] | None = None

    async def __call__(self, batch: list[T]) -> list[R]:
        """Send *batch* and return its answers; an error of the call that it went with is its error."""
        if self._busy:
            future: asyncio.Future[list[R]] = asyncio.get_running_loop().create_future()
            self._waiting.append((batch, future))
            return await future
        self._busy = True
        try:
            return await self._send(batch)
        finally:
            if self._waiting:
                self._driver = asyncio.create_task(self._drive(), name="asyncworker lane")
            else:
                self._busy = False

    async def close(self) -> None:
        """Give up what waits; its callers get `BrokerDown`."""
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(BrokerDown("the broker was closed"))
        if self._driver is not None:
            await asyncio.wait([self._driver])

    async def _drive(self) -> None:
        """Send what waits until nothing does."""
        while batches := self._next():
            try:
                answers = await self._send([item for batch, _ in batches for item in batch])
            except AsyncWorkerError as exc:
                for _, future in batches:
                    if not future.done():
                        future.set_exception(exc)
                continue
            start = 0
            for batch, future in batches:
                if not future.done():
                    future.set_result(answers[start : start + len(batch)])
                start += len(batch)
        self._busy = False

    def _next(self) -> list[tuple[list[T], asyncio.Future[list[R]]]]:
        """Take the batches that fit into one call, and at least one; who gave up waiting is passed over."""
        batches: list[tuple[list[T], asyncio.Future[list[R]]]] = []
        room = self._most
        while self._waiting and (not batches or len(self._waiting[0][0]) <= room):
            batch, future = self._waiting.popleft()
            if not future.done():
                batches.append((batch, future))
                room -= len(batch)
        return batches

"""The workers of a stream: coroutines that pull one iterator, and what passes between them and their consumer.

What they finish lies in a plain deque, and only who finds it empty sleeps, so handing over costs an append an item, not
a queue's round trip (`bench/bench_map.py`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import Any

from asyncworker.tune.actuators.limiter import Limiter

WINDOW = 2
"""Items under way or finished and not yet consumed, for each one that may be under way; `bench/bench_map.py`."""
SKIPPED = object()
"""A result that is not handed out."""
EMPTY = object()


class Crew:
    """Workers that hand out results as they come.

    ``held`` is what was finished and not taken yet. Workers are started, and called back from the full window, by each
    other: two by each that got an item, so that five items do not make a hundred tasks, and a function that
    never suspends keeps three of them, not all. The two inner loops are written out for speed.
    """

    window = WINDOW - 1
    """How much is held at most, for each one that may be under way."""

    def __init__(
        self,
        call: Callable[[Any], Awaitable[Any]],
        items: Iterable[Any] | AsyncIterable[Any],
        concurrency: int | Limiter,
        *,
        numbered: bool = False,
        room: int | None = None,
    ) -> None:
        self._call, self._numbered = call, numbered
        self._limiter = concurrency if isinstance(concurrency, Limiter) else None
        self._most = concurrency.high if isinstance(concurrency, Limiter) else concurrency
        self._source: Any
        if isinstance(items, AsyncIterable):
            self._work, self._source = self._work_async, aiter(items)
        else:
            self._work, self._source = self._work_sync, enumerate(items) if numbered else iter(items)
        self._turn = asyncio.Lock()  # to ask an asynchronous source
        self._pulled = 0  # from an asynchronous source
        self._held: deque[Any] = deque()
        self._room = room or self.window * self._most
        self._low = self._room // 2  # so little held calls parked workers; -1 while they are on their way
        self._busy = 0  # workers that have, or are about to have, an item
        self._exhausted = self._stopping = False
        self._failure: BaseException | None = None
        self._asleep: asyncio.Future[None] | None = None  # the consumer, while there is nothing to take
        self._parked: deque[asyncio.Future[None]] = deque()  # workers, while the window is full
        self._workers: set[asyncio.Task[None]] = set()

    async def results(self) -> AsyncGenerator[Any, None]:
        """Yield what the workers finish, and see to it that they are gone at the end."""
        held, parked = self._held, self._parked
        self._loop = asyncio.get_running_loop()
        self._start()
        try:
            while held or await self._wait():
                value = held.popleft()
                if parked and len(held) <= self._low:
                    self._call_in()
                if value is not SKIPPED:
                    yield value
        finally:
            await self._close()

    async def _wait(self) -> bool:
        """Sleep until there is something to take; False when all is taken."""
        while not self._takeable():
            if self._failure is not None:
                raise self._failure
            if self._exhausted and not self._busy:
                return False
            self._call_in()
            self._asleep = self._loop.create_future()
            await self._asleep
        return True

    def _takeable(self) -> bool:
        return bool(self._held)

    async def _close(self) -> None:
        self._stop()
        if self._workers:
            await asyncio.wait(self._workers)
        if (close := getattr(self._source, "aclose", None)) is not None:
            await close()

    # --- the workers ----------------------------------------------------------------------------------------

    async def _work_sync(self) -> None:
        call, held, limiter = self._call, self._held, self._limiter
        while await self._enter():
            try:
                fresh = True
                for item in self._source:
                    if fresh:
                        fresh = False
                        self._call_in()
                    held.append(await call(item))
                    if not 1 < len(held) < self._room:
                        self._wake()
                        if len(held) >= self._room:
                            break
                    if limiter is not None and limiter.in_use > limiter.size:
                        break
                else:
                    self._exhausted = True
            finally:
                if limiter is not None:
                    limiter.release()
            self._leave()

    async def _enter(self) -> bool:
        """Wait until there is room in the window, and for a permit; False when this worker should leave."""
        while await self._has_room():
            if self._limiter is not None:
                await self._limiter.acquire()
            if len(self._held) < self._room and not self._exhausted:
                self._busy += 1
                return True
            if self._limiter is not None:
                self._limiter.release()
            if self._exhausted:
                break
        return False

    def _leave(self) -> None:
        """Note that a worker has no item any more; of one that failed `_left` hears."""
        self._busy -= 1
        if self._exhausted and not self._busy:
            self._wake()

    async def _work_async(self) -> None:
        self._busy += 1
        while (pulled := await self._next()) is not None:
            item, place = pulled
            self._call_in()
            try:
                value = await self._call(item)
            finally:
                if self._limiter is not None:
                    self._limiter.release()
            self._put(place, value)
        self._leave()

    async def _next(self) -> tuple[Any, Any] | None:
        """Pull one item in turn, and wait for a permit with it, so that none is held while the source takes its time."""
        async with self._turn:
            if self._exhausted or not await self._has_room():
                return None
            try:
                item = await anext(self._source)
            except StopAsyncIteration:
                self._exhausted = True
                return None
            if self._limiter is not None:
                await self._limiter.acquire()
            index, self._pulled = self._pulled, self._pulled + 1
            return (index, item) if self._numbered else item, self._place()

    def _place(self) -> Any:
        """Return where the result of the item that was just pulled belongs."""

    def _put(self, place: Any, value: Any) -> None:
        self._held.append(value)
        self._wake()

    async def _has_room(self) -> bool:
        """Park while the window is full; False when this worker should leave."""
        while len(self._held) >= self._room:
            if self._stopping:
                return False
            place = self._loop.create_future()
            self._parked.append(place)
            await place
            self._low = self._room // 2
        return True

    def _call_in(self) -> None:
        """Call two more workers, if there is room and none waits for a permit."""
        if len(self._held) >= self._room:
            return
        if self._parked:
            self._low = -1
            for _ in range(min(2, len(self._parked))):
                place = self._parked.popleft()
                if not place.done():
                    place.set_result(None)
        elif not self._exhausted and not (self._limiter is not None and self._limiter.waiting):
            for _ in range(min(2, self._most - len(self._workers))):
                self._start()

    def _start(self) -> None:
        worker = self._loop.create_task(self._work(), name="stream worker")
        self._workers.add(worker)
        worker.add_done_callback(self._left)

    def _left(self, worker: asyncio.Task[None]) -> None:
        """Note that a worker is gone; when an error ended it, stop the others and tell the consumer."""
        self._workers.discard(worker)
        failure = asyncio.CancelledError() if worker.cancelled() else worker.exception()
        if failure is not None and not self._stopping:
            self._failure = failure
            self._stop()
            self._wake()

    def _wake(self) -> None:
        asleep, self._asleep = self._asleep, None
        if asleep is not None and not asleep.done():
            asleep.set_result(None)

    def _stop(self) -> None:
        self._stopping, self._room = True, 0  # a function that swallows its cancellation finds no room
        for worker in self._workers:
            worker.cancel()


class OrderedCrew(Crew):
    """A crew that hands out in the order of the items.

    ``held`` are their places, from the first that is not taken yet, empty ones included: a place is a list of one value.
    """

    window = WINDOW

    async def results(self) -> AsyncGenerator[Any, None]:
        held, parked = self._held, self._parked
        self._loop = asyncio.get_running_loop()
        self._start()
        try:
            while (held and held[0][0] is not EMPTY) or await self._wait():
                value = held.popleft()[0]
                if parked and len(held) <= self._low:
                    self._call_in()
                if value is not SKIPPED:
                    yield value
        finally:
            await self._close()

    def _takeable(self) -> bool:
        return bool(self._held) and self._held[0][0] is not EMPTY

    async def _work_sync(self) -> None:
        call, held, limiter = self._call, self._held, self._limiter
        while await self._enter():
            try:
                fresh = True
                for item in self._source:
                    place: list[Any] = [EMPTY]
                    held.append(place)
                    if fresh:
                        fresh = False
                        self._call_in()
                    place[0] = await call(item)
                    if place is held[0]:
                        self._wake()
                    if len(held) >= self._room or (limiter is not None and limiter.in_use > limiter.size):
                        break
                else:
                    self._exhausted = True
            finally:
                if limiter is not None:
                    limiter.release()
            self._leave()

    def _place(self) -> Any:
        place: list[Any] = [EMPTY]
        self._held.append(place)
        return place

    def _put(self, place: Any, value: Any) -> None:
        place[0] = value
        self._wake()

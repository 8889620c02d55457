"""Run one coroutine function over many items in this process: so many at once, and never more in memory than a window.

A set of workers pulls one iterator. What they finish lies in one list, which the consumer takes whole, so
handing over costs a list's append an item, not a queue's round trip (`bench/bench_map.py`). The window is how far
pulling may be ahead of consuming: a slow consumer, or a slow first item where order is kept, holds the source back.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, Literal, TypeVar, overload

import msgspec

from asyncworker.errors import BadParameters

T = TypeVar("T")
R = TypeVar("R")
Items = Iterable[T] | AsyncIterable[T]

WINDOW = 2
"""Items under way or finished and not yet consumed, for each one that may be under way; `bench/bench_map.py`."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one item: its place in the source, and its value or its error."""

    index: int
    value: Any = None
    error: BaseException | None = None
    attempts: int = 1
    seconds: float = 0.0


@overload
def stream(
    func: Callable[[T], Awaitable[R]],
    items: Items[T],
    *,
    concurrency: int = ...,
    ordered: bool = ...,
    on_error: Literal["collect"],
) -> AsyncGenerator[Outcome, None]: ...
@overload
def stream(
    func: Callable[[T], Awaitable[R]],
    items: Items[T],
    *,
    concurrency: int = ...,
    ordered: bool = ...,
    on_error: Literal["raise", "skip"] = ...,
) -> AsyncGenerator[R, None]: ...
@overload
def stream(
    func: Callable[[T], Awaitable[R]],
    items: Items[T],
    *,
    concurrency: int = ...,
    ordered: bool = ...,
    on_error: Literal["raise", "collect", "skip"] = ...,
) -> AsyncGenerator[R | Outcome, None]: ...
def stream(
    func: Callable[[T], Awaitable[R]],
    items: Items[T],
    *,
    concurrency: int = 100,
    ordered: bool = False,
    on_error: Literal["raise", "collect", "skip"] = "raise",
) -> AsyncGenerator[Any, None]:
    """Yield ``await func(item)`` for each item, as they come or in the items' order.

    Nothing is pulled before the first ``anext``. Leaving the loop, an error, or a cancellation ends the workers
    and closes an asynchronous source; ``async with contextlib.aclosing(stream(…)) as outs`` waits for that also after
    a ``break``, where a plain ``async for`` leaves it to the event loop.

    Args:
        func: awaited once an item.
        items: an iterable or an asynchronous one, pulled by one worker at a time.
        concurrency: how many items may be under way, 1 or more; no more tasks than that are ever made.
        ordered: hold results back until all before them are out; at most twice *concurrency* are held.
        on_error: ``"raise"`` stops everything at the first error and raises it; ``"collect"`` yields an `Outcome`
            an item, with its value or its error; ``"skip"`` leaves failed items out. The source's own errors
            are always raised.

    Raises:
        BadParameters: *concurrency* or *on_error* is not one of these.

    Cost: 0.5 us an item where *func* never suspends, 1.5 us where it does (`bench/bench_map.py`).
    """
    if concurrency < 1:
        raise BadParameters(f"concurrency must be 1 or more, not {concurrency}")
    if on_error not in ("raise", "collect", "skip"):
        raise BadParameters(f"on_error must be 'raise', 'collect' or 'skip', not {on_error!r}")
    return _Crew(func if on_error == "raise" else _tried(func), items, concurrency).results(ordered, on_error)


class _Crew:
    """The workers of one stream, and what passes between them and its consumer.

    ``pulled`` and ``taken`` count the items that left the source and that left this crew. Workers are started, and
    called back from the full window, by each other: two by each that got an item, so that five items do not
    make a hundred tasks, and a function that never suspends keeps three of them, not all.
    """

    def __init__(self, call: Callable[[Any], Awaitable[Any]], items: Items[Any], concurrency: int) -> None:
        self._call, self._concurrency = call, concurrency
        self._source: Any
        if isinstance(items, AsyncIterable):
            self._work, self._source = self._work_async, aiter(items)
        else:
            self._work, self._source = self._work_sync, enumerate(items)
        self._turn = asyncio.Lock()  # to ask an asynchronous source
        self._window = WINDOW * concurrency
        self._low = concurrency  # so little pulled and not taken calls parked workers; -1 while they are on their way
        self._pulled = self._taken = 0
        self._exhausted = self._stopping = False
        self._failure: BaseException | None = None
        self._ready: list[tuple[int, Any]] = []
        self._asleep: asyncio.Future[None] | None = None  # the consumer, while there is nothing to take
        self._parked: deque[asyncio.Future[None]] = deque()  # workers, while the window is full
        self._workers: set[asyncio.Task[None]] = set()

    async def results(self, ordered: bool, on_error: str) -> AsyncGenerator[Any, None]:
        """Yield what the workers finish, and see to it that they are gone at the end."""
        plain, collect = on_error == "raise", on_error == "collect"
        held: dict[int, Any] = {}
        self._loop = asyncio.get_running_loop()
        self._start()
        try:
            while self._ready or await self._wait():
                batch, self._ready = self._ready, []
                if ordered:
                    batch = self._in_order(batch, held)
                for index, value in batch:
                    self._taken += 1
                    if plain:
                        yield value
                    elif collect:
                        yield Outcome(index, value[0], value[1], 1, value[2])
                    elif value[1] is None:
                        yield value[0]
                    if self._pulled - self._taken <= self._low and self._parked:
                        self._call_in()
        finally:
            self._stop()
            if self._workers:
                await asyncio.wait(self._workers)
            if (close := getattr(self._source, "aclose", None)) is not None:
                await close()

    async def _wait(self) -> bool:
        """Sleep until there is something to take; False when all is taken."""
        while not self._ready:
            if self._failure is not None:
                raise self._failure
            if self._exhausted and self._taken == self._pulled:
                return False
            self._call_in()
            self._asleep = self._loop.create_future()
            await self._asleep
        return True

    def _in_order(self, batch: list[tuple[int, Any]], held: dict[int, Any]) -> list[tuple[int, Any]]:
        held.update(batch)
        head, out = self._taken, []
        while head in held:
            out.append((head, held.pop(head)))
            head += 1
        return out

    # --- the workers ----------------------------------------------------------------------------------------

    async def _work_sync(self) -> None:
        while await self._room():
            fresh = True
            for index, item in self._source:
                self._pulled = index + 1
                if fresh:
                    fresh = False
                    self._call_in()
                value = await self._call(item)
                self._ready.append((index, value))  # looked up after the await: the consumer takes the whole list
                if self._asleep is not None:
                    self._wake()
                if self._pulled - self._taken >= self._window:
                    break
            else:
                self._end()
                return

    async def _work_async(self) -> None:
        while True:
            async with self._turn:
                if self._exhausted or not await self._room():
                    return
                try:
                    item = await anext(self._source)
                except StopAsyncIteration:
                    self._end()
                    return
                index, self._pulled = self._pulled, self._pulled + 1
            self._call_in()
            value = await self._call(item)
            self._ready.append((index, value))
            self._wake()

    async def _room(self) -> bool:
        """Park while the window is full; False when this worker should leave."""
        while self._pulled - self._taken >= self._window:
            if self._stopping:
                return False
            place = self._loop.create_future()
            self._parked.append(place)
            await place
            self._low = self._concurrency
        return True

    def _call_in(self) -> None:
        """Call two more workers, if there is room."""
        if self._pulled - self._taken >= self._window:
            return
        if self._parked:
            self._low = -1
            for _ in range(min(2, len(self._parked))):
                place = self._parked.popleft()
                if not place.done():
                    place.set_result(None)
        elif not self._exhausted:
            for _ in range(min(2, self._concurrency - len(self._workers))):
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

    def _end(self) -> None:
        self._exhausted = True
        self._wake()

    def _wake(self) -> None:
        asleep, self._asleep = self._asleep, None
        if asleep is not None and not asleep.done():
            asleep.set_result(None)

    def _stop(self) -> None:
        self._stopping, self._window = True, 0  # a function that swallows its cancellation finds no room
        for worker in self._workers:
            worker.cancel()


def _tried(func: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    """Return *func* as a function that returns its value, its error, and how many seconds it took."""
    clock = time.perf_counter

    async def tried(item: Any) -> tuple[Any, BaseException | None, float]:
        began = clock()
        try:
            value = await func(item)
        except asyncio.CancelledError as exc:
            if (worker := asyncio.current_task()) is not None and worker.cancelling():
                raise
            return None, exc, clock() - began  # the item awaited something that was cancelled: its own failure
        except Exception as exc:
            return None, exc, clock() - began
        return value, None, clock() - began

    return tried

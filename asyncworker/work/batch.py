"""Many small calls as few large ones: items are gathered into batches, and each item gets its own answer.

Nothing runs in between: a batch starts when an item comes, when another batch ends or when its oldest item has
waited long enough. How large a batch should be is learnt (`batch_size.py`), how long it should wait too (`linger.py`).
Around the user's handler stands one of the places where ``except Exception`` may.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

import msgspec

from asyncworker.errors import AsyncWorkerError, BadParameters
from asyncworker.tune.histogram import LogHistogram
from asyncworker.tune.sensors.sensor import Durations, Reading
from asyncworker.work.batch_size import BatchSize
from asyncworker.work.executors.thread import ThreadExecutor
from asyncworker.work.linger import Linger

T = TypeVar("T")
R = TypeVar("R")
Handler = Callable[[list[T]], Awaitable[Sequence[R | BaseException] | None]]
"""Gets 1..max_batch_size items; returns one value, or exception, an item in their order, or None for None each."""


class BatchMetrics(msgspec.Struct, frozen=True):
    """What a processor has done so far, and what it does now; seconds."""

    items: int
    """Answered, failures among them; items whose caller had gone are not counted."""
    failed: int
    batches: int
    """Calls of the handler; those by which the items of a failed batch were tried in halves are among them."""
    retried: int
    """Calls for halves of failed batches."""
    queued: int
    running: int
    """Batches under way."""
    size: int
    """What the next batch takes at most."""
    mean_size: float
    mean_wait_s: float
    """From adding an item to the start of its batch."""
    mean_batch_s: float
    relearned: int
    """How often the cost of batches was found to have changed."""


class _Entry(Generic[T, R]):
    """One item on its way."""

    __slots__ = ("answer", "came", "item")

    def __init__(self, item: T, answer: asyncio.Future[R], came: float) -> None:
        self.item, self.answer, self.came = item, answer, came


class AsyncBatchProcessor(Generic[T, R]):
    """Gather items into batches for one handler.

    A handler that raises fails no neighbours: its batch is tried again in halves, down to the items that fail by
    themselves. So a good item may be seen by up to ``1 + ceil(log2(max_batch_size))`` calls; a handler that cannot be
    repeated says ``bisect=False``, or returns its errors instead of raising. Order: batches take items as they
    came, one after the other; with several under way they end in any order.

    Args:
        handler: see `set_handler`.
        max_batch_size: a promise: no call ever gets more items.
        size: ``"auto"`` finds the cheapest, up to *max_batch_size*; or a number.
        linger: seconds that an item may wait for others. It is used only where several batches may be under way
            and others are expected in time; one after the other, batches fill by themselves.
        max_concurrent_batches: calls of the handler at once.
        max_queue: items that may wait; who adds more waits too. Default: ten batches for each that may be under way.
        slo: seconds from adding an item to its answer, to be kept by 99 of 100 batches where load allows.
        bisect: whether a failed batch is tried again in halves.
        name: how metrics speak of it.

    Raises:
        BadParameters: a number is out of its range, or the handler is no function.

    Belongs to the event loop on which it is first used. Cost: 4 us an item by `submit`, 60 us a batch.
    """

    def __init__(
        self,
        handler: Handler[T, R] | None = None,
        *,
        max_batch_size: int = 100,
        size: int | Literal["auto"] = "auto",
        linger: float = 0.005,
        max_concurrent_batches: int = 1,
        max_queue: int | None = None,
        slo: float | None = None,
        bisect: bool = True,
        name: str = "batch",
    ) -> None:
        if max_queue is None:
            max_queue = 10 * max_batch_size * max_concurrent_batches
        if max_concurrent_batches < 1 or max_queue < 1 or linger < 0:
            raise BadParameters("max_concurrent_batches and max_queue must be 1 or more, linger 0 or more")
        if size != "auto" and not 1 <= size <= max_batch_size:
            raise BadParameters(f"size must be 'auto' or 1..{max_batch_size}, not {size!r}")
        self.name = name
        self._waits = LogHistogram()
        self._fixed = None if size == "auto" else size
        self._policy = BatchSize(max_batch_size, slo=slo)
        self._linger = Linger(linger if max_concurrent_batches > 1 else 0.0, slo=slo)
        self._max_running, self._bisect = max_concurrent_batches, bisect
        self._threads = ThreadExecutor(max_concurrent_batches)
        self._handler: Callable[[list[T]], Awaitable[Any]] | None = None
        self._room = asyncio.Semaphore(max_queue)
        self._queue: deque[_Entry[T, R]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._unanswered = 0
        self._timer: asyncio.Handle | None = None
        self._lingers = self._closed = self._abandoned = False
        self._items = self._failed = self._batches = self._retried = self._gathered = 0
        self._busy_s = 0.0
        self._wait_s = 0.0  # smoothed, for the SLO
        if handler is not None:
            self.set_handler(handler)

    def set_handler(self, handler: Handler[T, R] | Callable[[list[T]], Any]) -> None:
        """Call *handler* with each batch from now on; a plain function runs in a thread.

        Raises:
            BadParameters: it is no function.
        """
        if not callable(handler):
            raise BadParameters(f"a handler is a function, not {type(handler).__name__}")
        on_loop = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)
        self._handler = handler if on_loop else self._threads.bind(handler)

    @property
    def size(self) -> int:
        """Items that the next batch takes at most."""
        return self._fixed or self._policy.size

    async def add_item(self, item: T) -> R:
        """Add *item* and return its answer. Cancelling this takes the item out, if its batch has not yet started.

        Raises:
            AsyncWorkerError: the processor is closed or has no handler. Whatever the handler raises for this item.
        """
        return await (await self.submit(item))

    async def submit(self, item: T) -> asyncio.Future[R]:
        """Add *item*, as soon as there is room, and return the future of its answer; cancelling it is as in `add_item`.

        Raises:
            AsyncWorkerError: the processor is closed or has no handler.
        """
        if self._closed:
            raise AsyncWorkerError("this batch processor is closed")
        if self._handler is None:
            raise AsyncWorkerError("this batch processor has no handler: call set_handler first")
        self._unanswered += 1
        self._quiet.clear()
        try:
            await self._room.acquire()
        except BaseException:
            self._answered(1)
            raise
        if self._abandoned:
            self._room.release()  # to the next one who waits
            self._answered(1)
            raise AsyncWorkerError("this batch processor is closed")
        loop = asyncio.get_running_loop()
        entry: _Entry[T, R] = _Entry(item, loop.create_future(), loop.time())
        self._queue.append(entry)
        self._linger.on_item(entry.came)
        if self._timer is None or (self._lingers and len(self._queue) >= self.size):
            self._look(0.0)
        return entry.answer

    async def drain(self) -> None:
        """Wait until each item that was added is answered."""
        await self._quiet.wait()

    async def close(self) -> None:
        """Take no more items, answer those that were added, and end. Cancelling this ends without answering."""
        self._closed = True
        if self._queue:
            self._look(0.0)
        try:
            await self.drain()
        finally:
            self._abandon()
            if self._running:
                await asyncio.wait(self._running)
            self._threads.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def get_metrics(self) -> BatchMetrics:
        calls = max(1, self._batches)
        return BatchMetrics(
            items=self._items,
            failed=self._failed,
            batches=self._batches,
            retried=self._retried,
            queued=len(self._queue),
            running=len(self._running),
            size=self.size,
            mean_size=self._gathered / max(1, self._batches - self._retried),
            mean_wait_s=self._waits.mean,
            mean_batch_s=self._busy_s / calls,
            relearned=self._policy.relearned,
        )

    def read(self) -> Sequence[Reading]:
        """Return what `Engine.watch` tells under ``/metrics``; may be called in another thread."""
        return [Reading("batch_size", self.size, (("task", self.name),))]

    def durations(self) -> Sequence[Durations]:
        return [Durations("batch_wait_seconds", self._waits, (("task", self.name),))]

    # --- when ------------------------------------------------------------------------------------------------

    def _look(self, delay: float) -> None:
        """Look at the queue after *delay*; after 0, when what is ready to run now has had its turn to add items."""
        self._stop_looking()
        loop = asyncio.get_running_loop()
        self._lingers = delay > 0
        self._timer = loop.call_later(delay, self._go) if delay else loop.call_soon(self._go)

    def _stop_looking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go(self) -> None:
        """Start what should start now."""
        self._stop_looking()
        loop = asyncio.get_running_loop()
        while self._queue and len(self._running) < self._max_running:
            if self._queue[0].answer.done():  # its caller has gone
                self._queue.popleft()
                self._room.release()
                self._answered(1)
                continue
            queued, now = len(self._queue), loop.time()
            if queued < self.size and not self._closed:
                delay = self._linger.wait(now, self._queue[0].came, self._policy.seconds(queued))
                if delay > 0:
                    self._look(delay)
                    return
            batch = [self._queue.popleft() for _ in range(min(queued, self.size))]
            for _ in batch:
                self._room.release()
            task = loop.create_task(self._run(batch, now), name="batch")
            self._running.add(task)
            task.add_done_callback(partial(self._ended, batch))

    def _ended(self, batch: list[_Entry[T, R]], task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        for entry in batch:  # there is one without an answer only where the batch was cancelled
            entry.answer.cancel()
        self._answered(len(batch))
        if self._queue:
            self._go()

    def _answered(self, count: int) -> None:
        self._unanswered -= count
        if not self._unanswered:
            self._quiet.set()

    def _abandon(self) -> None:
        """Cancel what is under way and what waits; nothing is left to do after a drain."""
        self._abandoned = True
        self._stop_looking()
        for entry in self._queue:
            entry.answer.cancel()
            self._room.release()
        self._answered(len(self._queue))
        self._queue.clear()
        for task in self._running:
            task.cancel()

    # --- the handler -----------------------------------------------------------------------------------------

    async def _run(self, batch: list[_Entry[T, R]], began: float) -> None:
        alive = [entry for entry in batch if not entry.answer.done()]
        if alive:
            self._gathered += len(alive)
            for entry in alive:
                self._waits.add(began - entry.came)
            self._wait_s += 0.1 * (began - alive[0].came - self._wait_s)
            await self._process_batch(alive)

    async def _process_batch(self, batch: list[_Entry[T, R]]) -> None:
        """Call the handler and answer each item; where it raises, do so for each half."""
        assert self._handler is not None
        clock = asyncio.get_running_loop().time
        began = clock()
        self._batches += 1
        try:
            values = await self._handler([entry.item for entry in batch])
        except asyncio.CancelledError as exc:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            failure: BaseException = exc  # the handler awaited something that was cancelled: its own failure
        except Exception as exc:
            failure = exc
        else:
            self._policy.on_batch(len(batch), clock() - began, waited=self._wait_s)
            self._busy_s += clock() - began
            self._answer(batch, values)
            return
        self._busy_s += clock() - began
        if len(batch) == 1 or not self._bisect:
            self._answer(batch, [failure] * len(batch))
            return
        half = len(batch) // 2
        for part in (batch[:half], batch[half:]):
            if alive := [entry for entry in part if not entry.answer.done()]:
                self._retried += 1
                await self._process_batch(alive)

    def _answer(self, batch: list[_Entry[T, R]], values: Any) -> None:
        if values is None:
            values = [None] * len(batch)
        elif not isinstance(values, Sequence) or isinstance(values, str | bytes) or len(values) != len(batch):
            said = f"{len(values)} values" if isinstance(values, Sequence) else type(values).__name__
            wrong = BadParameters(f"a handler returns None or one value an item: {said} for {len(batch)} items")
            values = [wrong] * len(batch)
        for entry, value in zip(batch, values, strict=True):
            if entry.answer.done():
                continue
            self._items += 1
            if isinstance(value, asyncio.CancelledError):
                entry.answer.cancel()
            elif isinstance(value, StopIteration):  # a future takes none
                entry.answer.set_exception(RuntimeError(f"the handler answered with {value!r}"))
            elif isinstance(value, BaseException):
                entry.answer.set_exception(value)
            else:
                entry.answer.set_result(value)
            self._failed += isinstance(value, BaseException)

"""Mapper: one partition. Reads its items, maps and folds each, and leaves what they came to as a `Partial`.

An item that fails is counted and told of apart; it never mixes with results and never fails its neighbours. Around
the user's own call stands one of the places where ``except Exception`` may.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from inspect import isawaitable
from types import CoroutineType
from typing import Any, cast

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import Discard, JobFailed, SourceError
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.functions.function import Function, Holding, Work
from asyncworker.mapreduce.job import CHUNK_BYTES, ERROR_CHARS, FAILURES_KEPT, Failure, Partial, Plan, read, read_call
from asyncworker.mapreduce.skew import function_or_snooze
from asyncworker.mapreduce.sources.source import BadItem, Key, Partition
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import pack
from asyncworker.queue.context import Context
from asyncworker.queue.job import Counted, parent_of
from asyncworker.secret import mask_text

PLANS_KEPT = 16
"""How many jobs' plans are remembered, so that a job costs a worker one look-up and not one a partition."""
SLICE_S = 0.005
"""How long items are mapped before the event loop gets its turn: a hundredth of what anybody would notice."""
WINDOW = 4
"""How many items, in units of the concurrency, may be ahead of the oldest that is still awaited."""

Pair = tuple[Key, Any]


class Mapper:
    """The task ``asyncworker.map``.

    Args:
        find_function: gives the function of a name, or raises `UnknownName`.
        concurrency: how many items of one partition are awaited at once, where the map is a coroutine.
    """

    def __init__(
        self,
        broker: Broker,
        find_function: Callable[[str], Function],
        *,
        concurrency: int = 32,
        clock: Clock = SYSTEM,
    ) -> None:
        self._broker = broker
        self._find_function = find_function
        self._concurrency = concurrency
        self._clock = clock
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self._plans: dict[str, Plan] = {}

    async def __call__(self, spec: dict[str, Any], ctx: Context) -> Counted:
        """Process the partition *spec*; a large accumulator is sent ahead in chunks.

        Raises:
            SourceError: it cannot be read, or holds nothing where items were planned. JobFailed: more items failed
            than the job allows; running it again would not help. Discard: the job is over. Snooze: this worker lacks the
            function.
        """
        began = time.perf_counter()
        partition = read(Partition, spec)
        plan = await self._plan(parent_of(ctx.id) or "")
        work = function_or_snooze(self._find_function, plan.function, ctx, self._clock).prepare(plan.params)
        limit = plan.max_failures if type(plan.max_failures) is int else None
        folding = Folding(work, limit, self._concurrency)
        source = open_source(plan.source)
        try:
            async with aclosing(cast("AsyncGenerator[list[Pair], None]", source.read(partition))) as lists:
                async for pairs in lists:
                    await folding.take(pairs)
            await folding.drain()
        finally:
            folding.abandon()
            await source.close()
            if isinstance(work, Holding):
                await work.close()
        if partition.items and not folding.items:
            raise SourceError(
                f"partition {partition.index} of {source.label} holds nothing where {partition.items} items were planned"
            )
        acc = pack(folding.acc)
        chunks = 0
        if len(acc) > CHUNK_BYTES:
            for start in range(0, len(acc), CHUNK_BYTES):
                await ctx.send_chunk(chunks, acc[start : start + CHUNK_BYTES])
                chunks += 1
            acc = b""
        partial = Partial(
            items=folding.items,
            succeeded=folding.items - folding.failed,
            failed=folding.failed,
            seconds=time.perf_counter() - began,
            acc=acc,
            chunks=chunks,
            failures=folding.failures,
            worker=self._worker,
        )
        return Counted(partial, partial.items)

    async def _plan(self, parent: str) -> Plan:
        plan = self._plans.get(parent)
        if plan is None:
            found = (await self._broker.find([parent]))[0]
            if found is None or found.state.terminal:
                raise Discard("the job of this partition is over")
            plan = read_call(Plan, found.payload)
            while len(self._plans) >= PLANS_KEPT:
                del self._plans[next(iter(self._plans))]
            self._plans[parent] = plan
        return plan


class Folding:
    """A partition under way: the accumulator, and what is counted beside it.

    Maps that return at once are folded in a tight loop. From the first that must be awaited on, up to
    *concurrency* items are awaited at once; their values are still folded in the order of the items.
    """

    def __init__(self, work: Work, max_failures: int | None, concurrency: int) -> None:
        self.acc = work.initial()
        self.items = 0
        self.failed = 0
        self.failures: list[Failure] = []
        self._map = work.map
        self._fold = work.fold
        self._limit = max_failures
        self._slice = 16
        self._most = concurrency * WINDOW
        self._gate = asyncio.Semaphore(concurrency)
        self._window: deque[tuple[Key, asyncio.Future[Any]]] = deque()
        self._awaits = False

    async def take(self, pairs: list[Pair]) -> None:
        """Map and fold a list of items, letting the event loop run in between."""
        self.items += len(pairs)
        at = 0
        while at < len(pairs) and not self._awaits:
            began, start = time.perf_counter(), at
            at = self._fold_some(pairs, at, min(at + self._slice, len(pairs)))
            rate = (at - start) / (time.perf_counter() - began + 1e-9)
            self._slice = max(1, min(int(rate * SLICE_S), 4 * self._slice, 1000))
            await asyncio.sleep(0)
        for key, item in pairs[at:]:
            if type(item) is BadItem:
                self._fail(key, "BadItem", item.error)
                continue
            while len(self._window) >= self._most:
                await self._fold_oldest()
            self._window.append((key, asyncio.ensure_future(self._call(item))))

    async def drain(self) -> None:
        """Fold all that is still awaited."""
        while self._window:
            await self._fold_oldest()

    def abandon(self) -> None:
        """Cancel what is still awaited."""
        for _, future in self._window:
            future.cancel()

    def _fold_some(self, pairs: list[Pair], start: int, stop: int) -> int:
        """Map and fold ``pairs[start:stop]``, or up to the first that must be awaited; returns where it stopped.

        The hot loop: what it costs an item, all users pay for each of theirs (bench/bench_mapper.py).
        """
        map_, fold, acc = self._map, self._fold, self.acc
        try:
            for at in range(start, stop):
                key, item = pairs[at]
                if type(item) is BadItem:
                    self._fail(key, "BadItem", item.error)
                    continue
                try:
                    value = map_(item)
                    if type(value) is CoroutineType or isinstance(value, asyncio.Future):
                        self._window.append((key, asyncio.ensure_future(value)))
                        self._awaits = True
                        return at + 1
                    acc = fold(acc, value)
                except Exception as exc:
                    self._fail(key, type(exc).__name__, str(exc))
        finally:
            self.acc = acc
        return stop

    async def _call(self, item: Any) -> Any:
        async with self._gate:
            value = self._map(item)
            return await value if isawaitable(value) else value

    async def _fold_oldest(self) -> None:
        key, future = self._window[0]
        try:
            self.acc = self._fold(self.acc, await future)
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if not future.done() or (task is not None and task.cancelling()):
                raise
            self._fail(key, type(exc).__name__, str(exc))  # the item cancelled itself
        except Exception as exc:
            self._fail(key, type(exc).__name__, str(exc))
        finally:
            self._window.popleft()

    def _fail(self, key: Key, error_type: str, error_text: str) -> None:
        self.failed += 1
        if len(self.failures) < FAILURES_KEPT:
            text = mask_text(error_text[: 2 * ERROR_CHARS])[:ERROR_CHARS]
            self.failures.append(Failure(_clean(key), error_type, _clean(text)))
        if self._limit is not None and self.failed > self._limit:
            first = self.failures[0]
            raise JobFailed(
                f"more than {self._limit} items failed; the first, {first.key!r}: {first.error_type}: {first.error_text}",
                failures=self.failures,
            )


def _clean(text: Any) -> Any:
    """Return a text that UTF-8 can carry; other values as they are."""
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else text

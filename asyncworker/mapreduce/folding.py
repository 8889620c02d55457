"""Folding: the items of a partition under way, mapped one by one and folded into one accumulator.

Around the user's own call stands one of the places where ``except Exception`` may.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import isawaitable
from types import CoroutineType
from typing import Any

import msgspec

from asyncworker.errors import JobFailed
from asyncworker.mapreduce.functions.function import Bulk, Work
from asyncworker.mapreduce.job import ERROR_CHARS, FAILURES_KEPT, Failure
from asyncworker.mapreduce.row import pack_row
from asyncworker.mapreduce.sources.source import BadItem, Batch, Key, Slim
from asyncworker.secret import mask_text

SLICE_S = 0.005
"""How long items are mapped before the event loop gets its turn: a hundredth of what anybody would notice."""
WINDOW = 4
"""How many items, in units of the concurrency, may be ahead of the oldest that is still awaited."""
BACKOFF_S = 0.1
"""An item is tried again after up to so long, doubled each time."""
REJECTED_BYTES = 32 * 2**20
"""Failed items, as rows for those who look after them, that one partition may hold."""

Pair = tuple[Key, Any]


class Folding:
    """A partition under way: the accumulator, and what is counted beside it.

    Maps that return at once are folded in a tight loop. From the first that must be awaited on, up to
    *concurrency* items are awaited at once; their values are still folded in the order of the items.

    Args:
        attempts: how often an item is mapped until it counts as failed. reject: keep failed items as rows in ``rejected``.

    ``reads``: the fields that are looked at, where items may come as `Slim`; empty: they may not. ``save``, if set, is called at ``due`` (by `time.monotonic`), between two items, when all before are folded; it
    returns when it is due again.
    """

    def __init__(
        self, work: Work, max_failures: int | None, concurrency: int, *, attempts: int = 1, reject: bool = False
    ) -> None:
        self.acc = work.initial()
        self.items = 0
        self.failed = 0
        self.retried = 0
        self.rejected: list[bytes] = []
        self.save: Callable[[], Awaitable[float]] | None = None
        self.due = float("inf")
        self.failures: list[Failure] = []
        self._map = work.map
        self._fold = work.fold
        bulk = work if hasattr(work, "fold_list") and isinstance(work, Bulk) else None  # most are not, and that is dear
        self._fold_list = None if bulk is None else bulk.fold_list
        self.reads: Mapping[str, Any] = {} if bulk is None or attempts > 1 or reject else bulk.reads
        self._limit = max_failures
        self._slice = 16 if self._fold_list is None else 250
        self._most = concurrency * WINDOW
        self._gate = asyncio.Semaphore(concurrency)
        self._window: deque[tuple[Key, Any, asyncio.Future[Any] | None]] = deque()
        self._attempts = attempts
        self._awaits = attempts > 1
        self._reject = reject
        self._rejected_bytes = 0

    async def take(self, pairs: Sequence[Pair]) -> None:
        """Map and fold a list of items, letting the event loop run in between."""
        at = 0
        while at < len(pairs) and not self._awaits:
            began, start = time.perf_counter(), at
            at = self._fold_some(pairs, at, min(at + self._slice, len(pairs)))
            rate = (at - start) / (time.perf_counter() - began + 1e-9)
            self._slice = max(1, min(int(rate * SLICE_S), 4 * self._slice, 1000))
            self.items += at - start
            await asyncio.sleep(0)
            await self._pause()
        for key, item in pairs[at:]:
            self.items += 1
            while len(self._window) >= self._most:
                await self._fold_oldest()
            future = None if type(item) is BadItem else asyncio.ensure_future(self._call(item))
            self._window.append((key, item, future))
            await self._pause()

    async def _pause(self) -> None:
        if time.monotonic() >= self.due and self.save is not None:
            await self.drain()
            self.due = await self.save()

    async def drain(self) -> None:
        """Fold all that is still awaited."""
        while self._window:
            await self._fold_oldest()

    def abandon(self) -> None:
        """Cancel what is still awaited."""
        for *_, future in self._window:
            if future is not None:
                future.cancel()

    def _fold_some(self, pairs: Sequence[Pair], start: int, stop: int) -> int:
        """Map and fold ``pairs[start:stop]``, or up to the first that must be awaited; returns where it stopped."""
        if self._fold_list is None:
            return self._fold_each(pairs, start, stop)
        some = pairs[start:stop]
        values = some.values if isinstance(some, Batch) else [item for _, item in some]
        self.acc, left = self._fold_list(self.acc, values)
        self._fold_each([(key, _dict(item)) for key, item in map(some.__getitem__, left)], 0, len(left))
        return stop

    def _fold_each(self, pairs: Sequence[Pair], start: int, stop: int) -> int:
        """Do that one by one.

        The hot loop: what it costs an item, all users pay for each of theirs (bench/bench_mapper.py).
        """
        map_, fold, acc = self._map, self._fold, self.acc
        try:
            for at in range(start, stop):
                key, item = pairs[at]
                if type(item) is BadItem:
                    self._fail(key, "BadItem", item.error, None)
                    continue
                try:
                    value = map_(item)
                    if type(value) is CoroutineType or isinstance(value, asyncio.Future):
                        self._window.append((key, item, asyncio.ensure_future(value)))
                        self._awaits = True
                        return at + 1
                    acc = fold(acc, value)
                except Exception as exc:
                    self._fail(key, type(exc).__name__, str(exc), item)
        finally:
            self.acc = acc
        return stop

    async def _call(self, item: Any) -> Any:
        async with self._gate:
            attempt = 0
            while True:
                attempt += 1
                try:
                    value = self._map(item)
                    return await value if isawaitable(value) else value
                except Exception:
                    if attempt >= self._attempts:
                        raise
                self.retried += 1
                await asyncio.sleep(random.random() * BACKOFF_S * 2 ** min(attempt - 1, 8))

    async def _fold_oldest(self) -> None:
        key, item, future = self._window[0]
        if future is None:  # it has failed already, and is told of in its turn
            self._window.popleft()
            self._fail(key, "BadItem", item.error, None)
            return
        try:
            self.acc = self._fold(self.acc, await future)
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if not future.done() or (task is not None and task.cancelling()):
                raise
            self._fail(key, type(exc).__name__, str(exc), item)  # the item cancelled itself
        except Exception as exc:
            self._fail(key, type(exc).__name__, str(exc), item)
        finally:
            self._window.popleft()

    def _fail(self, key: Key, error_type: str, error_text: str, item: Any) -> None:
        self.failed += 1
        if self._reject or len(self.failures) < FAILURES_KEPT:
            text = _clean(mask_text(error_text[: 2 * ERROR_CHARS])[:ERROR_CHARS])
            if len(self.failures) < FAILURES_KEPT:
                self.failures.append(Failure(_clean(key), error_type, text))
            if self._reject:
                self._put_aside(_clean(key), error_type, text, item)
        if self._limit is not None and self.failed > self._limit:
            first = self.failures[0]
            raise JobFailed(
                f"more than {self._limit} items failed; the first, {first.key!r}: {first.error_type}: {first.error_text}",
                failures=self.failures,
            )

    def _put_aside(self, key: Key, error_type: str, text: str, item: Any) -> None:
        row = {"key": key, "error_type": error_type, "error_text": text, "item": item}
        try:
            packed = pack_row(row)
        except ValueError:  # it came from a source that knows more than can travel
            packed = pack_row({**row, "item": None})
        self.rejected.append(packed)
        self._rejected_bytes += len(packed)
        if self._rejected_bytes > REJECTED_BYTES:
            raise JobFailed(
                f"the failed items of one partition take more than {REJECTED_BYTES:,} bytes: make partitions smaller",
                failures=self.failures,
            )


def _dict(item: Any) -> Any:
    return msgspec.to_builtins(item) if isinstance(item, Slim) else item


def _clean(text: Any) -> Any:
    """Return a text that UTF-8 can carry; other values as they are."""
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else text

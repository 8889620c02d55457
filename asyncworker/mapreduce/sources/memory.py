"""Items that this process has: any iterable or async iterable of plain values, pulled as it is cut. A list takes rows.

Workers elsewhere cannot reach it, so each partition carries its items as MessagePack: an item arrives as a worker
would get it from a broker (a tuple as a list, a dataclass as a dict). Keys count from 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence, Sized
from contextlib import aclosing
from typing import Any

from asyncworker.errors import BadParameters, SourceError
from asyncworker.mapreduce.planner import cut
from asyncworker.mapreduce.sources.source import DATA_BYTES, LIST_ITEMS, Key, Partition, Size, sizes
from asyncworker.queue.codec import MAX_PAYLOAD_BYTES, pack, unpack

URL = "memory:"
ITEM_BYTES = MAX_PAYLOAD_BYTES - DATA_BYTES
"""The largest item: with it, a partition that was all but full can still travel."""


def open(items: Iterable[Any] | AsyncIterable[Any] | str) -> MemorySource:
    """Open what is to be mapped; of the URL ``memory:`` only partitions that carry their data can be read.

    Raises:
        SourceError: this is nothing to iterate over.
    """
    if isinstance(items, str) and items != URL:
        raise SourceError(f"{items!r} is no {URL!r}: pass the items themselves")
    if not isinstance(items, Iterable | AsyncIterable):
        raise SourceError(f"a {type(items).__name__} is nothing to iterate over: pass a list, or anything like one")
    return MemorySource(items)


def writer(rows: list[Any], *, job_id: str = "") -> MemorySink:  # noqa: ARG001 - the contract has it
    """Open a list to write to: its contents are replaced at commit."""
    return MemorySink(rows)


class MemorySource:
    """An iterable, cut as it is pulled: it may be endless, and is asked for no more than one partition ahead."""

    url = URL
    portable = False
    columns = None

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        self._items = items
        self._begun = False
        self.left: float | None = None
        self.label = URL if items == URL else f"{type(items).__name__} in memory"

    async def partitions(self, size: Size) -> AsyncIterator[Partition]:
        if isinstance(self._items, str):
            raise SourceError("these items are in the memory of another process")
        if self._begun and isinstance(self._items, AsyncIterator | Iterator):
            raise SourceError(f"{self.label} can be read only once: pass a list, or open it anew")
        self._begun = True
        index = first = 0
        packed: list[bytes] = []
        room = DATA_BYTES
        count = len(self._items) if isinstance(self._items, Sized) else None
        self.left = count
        ask = sizes(size)
        most = ask()
        async with aclosing(_each(self._items)) as items:
            async for item in items:
                packed.append(_packed(first + len(packed), item))
                room -= len(packed[-1])
                if len(packed) >= most or room <= 0:
                    self.left = None if count is None else max(0, count - first - len(packed))
                    yield _partition(index, first, packed)
                    index, first, packed, room = index + 1, first + len(packed), [], DATA_BYTES
                    most = ask()
        self.left = 0
        if packed:
            yield _partition(index, first, packed)

    async def read(self, partition: Partition) -> AsyncIterator[list[tuple[Key, Any]]]:
        (first,) = partition.span
        values = unpack(partition.data or b"")
        for part in cut(len(values), LIST_ITEMS):
            yield [(first + at, values[at]) for at in part]

    async def close(self) -> None:
        self._items = URL


class MemorySink:
    """A list that takes rows."""

    label = "list in memory"

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows
        self._written: list[Any] = []

    async def write(self, rows: Sequence[Any]) -> None:
        self._written.extend(rows)

    async def commit(self) -> None:
        self._rows[:] = self._written

    async def abort(self) -> None:
        self._written.clear()


async def _each(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """Yield the items; between lists of them, others have their turn."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for number, item in enumerate(items, 1):
        yield item
        if not number % LIST_ITEMS:
            await asyncio.sleep(0)


def _packed(key: int, item: Any) -> bytes:
    try:
        packed = pack(item)
    except BadParameters as exc:
        raise SourceError(f"item {key}: {exc}") from exc
    if len(packed) > ITEM_BYTES:
        raise SourceError(f"item {key} takes {len(packed):,} bytes; {ITEM_BYTES:,} is the most: pass a path or URL")
    return packed


def _partition(index: int, first: int, packed: list[bytes]) -> Partition:
    """Put items that are packed already into one MessagePack array."""
    head = b"\xdd" + len(packed).to_bytes(4, "big")
    return Partition(index, len(packed), (first,), b"".join((head, *packed)))

"""Outlet: where the rows of a job go, in order: as they come, or from its result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from heapq import heapify, heappop, heapreplace
from typing import Any

from asyncworker.mapreduce.dataset import open_sink
from asyncworker.mapreduce.functions.function import Work, Yielding

ROWS = 1000
"""How many are written at once."""


class Outlet:
    """Where a job's rows go: as they come, where its function gives rows, else from its result; seen when all are there."""

    def __init__(self, to: str | None, job_id: str, work: Work) -> None:
        self.rows = 0
        self.taken = False
        self._work = work if isinstance(work, Yielding) else None
        self._sink = open_sink(to, job_id=job_id) if to else None

    async def take(self, acc: Any) -> None:
        """Take the rows out of an accumulator, where there is somewhere for them to go."""
        if self._sink and self._work and (rows := self._work.take_rows(acc)) is not None:
            self.taken = True
            await self._write(rows)

    async def put(self, rows: Sequence[Any]) -> None:
        """Take rows that are finished."""
        self.taken = True
        await self._write(rows)

    async def commit(self, result: Any) -> dict[str, Any]:
        """Make all rows visible; returns where they went, nothing where nowhere was named."""
        if self._sink is None:
            return {}
        if not self.taken:
            await self._write(_rows(result))
        sink, self._sink = self._sink, None
        try:
            await sink.commit()
        except BaseException:
            await sink.abort()
            raise
        return {"saved_to": sink.label, "rows": self.rows}

    async def abort(self) -> None:
        if self._sink is not None:
            await self._sink.abort()

    async def _write(self, rows: Sequence[Any]) -> None:
        assert self._sink is not None, "rows are taken where they can go somewhere"
        for start in range(0, len(rows), ROWS):
            await self._sink.write(rows[start : start + ROWS])
        self.rows += len(rows)


async def in_order(
    streams: Sequence[AsyncIterator[list[Any]]], order: Callable[[str], Any]
) -> AsyncIterator[list[Any]]:
    """Yield the rows of streams of (key, row), each in order, as one; in lists of `ROWS`, the last may be shorter."""
    current = [await anext(stream, []) for stream in streams]
    places = [0] * len(streams)
    heap = [(order(chunk[0][0]), n) for n, chunk in enumerate(current) if chunk]
    heapify(heap)
    rows: list[Any] = []
    while heap:
        n = heap[0][1]
        rows.append(current[n][places[n]][1])
        places[n] += 1
        if places[n] == len(current[n]):
            current[n], places[n] = await anext(streams[n], []), 0
        if current[n]:
            heapreplace(heap, (order(current[n][places[n]][0]), n))
        else:
            heappop(heap)
        if len(rows) == ROWS:
            yield rows
            rows = []
            await asyncio.sleep(0)
    if rows:
        yield rows


def _rows(result: Any) -> Sequence[Any]:
    """Return the rows of a result: its list, the one list in it, or itself as the only row."""
    if isinstance(result, list):
        return result
    lists = [value for value in result.values() if isinstance(value, list)] if isinstance(result, dict) else []
    return lists[0] if len(lists) == 1 else [result]

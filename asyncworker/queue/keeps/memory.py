"""``memory://``: a keep in this process, which goes with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from asyncworker.queue.keeps.keep import MOST_VALUES


class MemoryKeep:
    """Hold logs and tables in dictionaries."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._logs: dict[str, list[bytes]] = {}
        self._tables: dict[str, dict[str, tuple[float, bytes]]] = {}

    async def append(self, log: str, entries: Sequence[bytes], most: int) -> None:
        self._logs[log] = [*self._logs.get(log, ()), *entries][-most:]

    async def last(self, log: str, most: int) -> list[bytes]:
        return self._logs.get(log, [])[-most:]

    async def put(self, table: str, values: Mapping[str, bytes], ttl: float) -> None:
        until = self._now() + ttl
        there = self._living(table) | {name: (until, value) for name, value in values.items()}
        self._tables[table] = dict(sorted(there.items(), key=lambda item: item[1][0])[-MOST_VALUES:])

    async def values(self, table: str) -> dict[str, bytes]:
        return {name: value for name, (_, value) in self._living(table).items()}

    async def drop(self, table: str, name: str) -> None:
        self._tables.get(table, {}).pop(name, None)

    async def close(self) -> None:
        self._logs.clear()
        self._tables.clear()

    def _living(self, table: str) -> dict[str, tuple[float, bytes]]:
        now = self._now()
        return {name: of for name, of in self._tables.get(table, {}).items() if of[0] > now}


def open(url: str, *, namespace: str) -> MemoryKeep:  # noqa: ARG001 - as the others of the room are opened
    """Return an empty keep."""
    return MemoryKeep()

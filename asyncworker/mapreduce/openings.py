"""Connections that are kept between partitions and jobs: to connect to a database takes as long as to read thousands of rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import cast

from asyncworker.mapreduce.dataset import Results, open_results, open_source
from asyncworker.mapreduce.sources.source import Connected, Source

IDLE_S = 5.0
"""How long connections are kept when nobody reads."""
MOST_LEFT = 2
"""How many sources are kept that have no reader."""


class Openings:
    """The open sources of one worker or submitter; files are opened anew."""

    def __init__(self) -> None:
        self._kept: dict[str, Source] = {}
        self._left: list[Source] = []
        self._readers = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Source]:
        """Hold a source, which may be in others' hands, too; it raises as `open_source` does.

        All that read from one database share its few connections.
        """
        source = self._kept.get(url) or open_source(url)
        if not _is_connected(source):
            try:
                yield source
            finally:
                await source.close()
            return
        if url not in self._kept:
            for other in self._kept.values():
                cast("Connected", source).join(other)
            self._kept[url] = source
        with self._reading():
            yield source

    @asynccontextmanager
    async def results(self, database: str) -> AsyncIterator[Results]:
        """Hold the table of results of a database, through the connections of who reads from there; raises as `open_results` does."""
        table = open_results(database)
        for other in self._kept.values():
            table.join(other)
        with self._reading():
            try:
                yield table
            finally:
                await table.close()

    def lend(self, source: Source) -> None:
        """Give a source, for itself alone, the connections that another one left here, if they lead where it reads from."""
        if _is_connected(source):
            for other in self._left:
                if cast("Connected", source).join(other):
                    self._left.remove(other)
                    return

    async def leave(self, source: Source) -> None:
        """Close a source; connections are kept for a while, for the next to be lent."""
        if not _is_connected(source):
            await source.close()
            return
        self._left.append(source)
        if len(self._left) > MOST_LEFT:
            self._close(self._left.pop(0))
        with self._reading():  # and from now on for so long
            pass

    async def close(self) -> None:
        """Close what is open."""
        if self._timer is not None:
            self._timer.cancel()
        self._expire()
        if self._closing:
            await asyncio.wait(self._closing)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._readers += 1
        if self._timer is not None:
            self._timer.cancel()
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._expire)

    def _expire(self) -> None:
        sources = [*self._kept.values(), *self._left]
        self._kept, self._left = {}, []
        for source in sources:
            self._close(source)

    def _close(self, source: Source) -> None:
        task = asyncio.create_task(source.close(), name=f"closing {source.label}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _is_connected(source: Source) -> bool:
    return issubclass(type(source), Connected)  # `isinstance` of a protocol costs a small partition too much

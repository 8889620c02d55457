"""Sources that are kept open between partitions: to connect to a database takes as long as to read thousands of rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.sources.source import Connected, Source

IDLE_S = 5.0
"""How long connections are kept when nobody reads."""


class Openings:
    """One worker's open sources. All that read from one database share its few connections; files are opened anew."""

    def __init__(self) -> None:
        self._kept: dict[str, Source] = {}
        self._readers = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Source]:
        """Hold a source, which may be in others' hands, too; it raises as `open_source` does."""
        source = self._kept.get(url) or open_source(url)
        if not issubclass(type(source), Connected):  # `isinstance` of a protocol costs a small partition too much
            try:
                yield source
            finally:
                await source.close()
            return
        if url not in self._kept:
            for other in self._kept.values():
                cast("Connected", source).join(other)
            self._kept[url] = source
        self._readers += 1
        if self._timer is not None:
            self._timer.cancel()
        try:
            yield source
        finally:
            self._readers -= 1
            if not self._readers:
                self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._expire)

    async def close(self) -> None:
        """Close what is open."""
        if self._timer is not None:
            self._timer.cancel()
        self._expire()
        if self._closing:
            await asyncio.wait(self._closing)

    def _expire(self) -> None:
        kept, self._kept = self._kept, {}
        for source in kept.values():
            task = asyncio.create_task(source.close(), name=f"closing {source.label}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

"""Sources that are kept open between partitions: to connect to a database takes as long as to read thousands of rows."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from asyncworker.mapreduce.dataset import is_postgresql, open_source
from asyncworker.mapreduce.sources.source import Source

IDLE_S = 5.0
"""How long a source is kept that nobody reads."""


class Openings:
    """One worker's open sources, each in one partition's hands or idle. Files are opened anew each time."""

    def __init__(self) -> None:
        self._idle: defaultdict[str, list[Source]] = defaultdict(list)
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def take(self, url: str) -> Source:
        """Return a source that is nobody else's until it is given back or closed."""
        idle = self._idle.get(url)
        return idle.pop() if idle else open_source(url)

    async def give(self, url: str, source: Source) -> None:
        """Take a source back that was read to its end without an error."""
        if not is_postgresql(url):
            await source.close()
            return
        self._idle[url].append(source)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._expire)

    async def close(self) -> None:
        """Close what is idle."""
        if self._timer is not None:
            self._timer.cancel()
        self._expire()
        if self._closing:
            await asyncio.wait(self._closing)

    def _expire(self) -> None:
        idle, self._idle = self._idle, defaultdict(list)
        for sources in idle.values():
            for source in sources:
                task = asyncio.create_task(source.close(), name=f"closing {source.label}")
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

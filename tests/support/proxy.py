"""A proxy on a unix socket that makes a network's faults to order. One failure is one line of a test.

It knows of the traffic only that a client sends a request and then reads: so "the answer to a request that contains
these bytes" is whatever the server sends after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit


class Proxy:
    """Forward between clients and the server at *upstream*, which may be replaced at any time.

    Attributes: ``requests`` forwarded so far; ``connections`` opened so far; ``refusing``: new connections are closed
    at once; ``delay_s`` before each answer is handed on.
    """

    def __init__(self, upstream: str, path: Path) -> None:
        self.upstream = upstream
        self.url = f"unix://{quote(str(path))}"
        self.requests: list[bytes] = []
        self.connections = 0
        self.refusing = False
        self.delay_s = 0.0
        self._path = path
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._lost: list[bytes] = []
        self._kept: list[bytes] = []
        self._late: list[bytes] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def lose_answers(self, *marks: bytes) -> None:
        """Of the next request with each mark, let the server do its work, swallow the answer and hang up."""
        self._lost += marks

    def keep_request(self, mark: bytes) -> None:
        """Keep the next request with this mark from the server and hang up; `deliver_late` sends it after all."""
        self._kept.append(mark)

    async def deliver_late(self) -> list[bytes]:
        """Send what was kept, each on a connection of its own, and return the answers."""
        answers = []
        while self._late:
            reader, writer = await asyncio.open_unix_connection(unquote(urlsplit(self.upstream).path))
            writer.write(self._late.pop(0))
            answers.append(await reader.read(1 << 20))
            writer.close()
        return answers

    def cut(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()

    def freeze(self) -> None:
        """Forward nothing any more, and let nobody know: connections are half open."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    async def hand_on(self, writer: asyncio.StreamWriter, data: bytes) -> bool:
        """Hand an answer on to a client; False hangs up on both sides."""
        writer.write(data)
        await writer.drain()
        return True

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=1 << 26)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.thaw()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            if not self.refusing:
                await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # either end went, or the proxy does
        finally:
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(unquote(urlsplit(self.upstream).path))
        self._writers |= {writer, up_writer}
        try:
            await self._between(reader, writer, up_reader, up_writer)
        finally:
            self._writers -= {writer, up_writer}
            up_writer.close()

    async def _between(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        losing = False

        async def requests() -> None:
            nonlocal losing
            while data := await reader.read(1 << 20):
                await self._flowing.wait()
                self.requests.append(data)
                if mark := next((mark for mark in self._kept if mark in data), None):
                    self._kept.remove(mark)
                    self._late.append(data)
                    return
                if mark := next((mark for mark in self._lost if mark in data), None):
                    self._lost.remove(mark)
                    losing = True
                up_writer.write(data)
                await up_writer.drain()

        async def answers() -> None:
            while data := await up_reader.read(1 << 20):
                await self._flowing.wait()
                if losing:
                    return
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if not await self.hand_on(writer, data):
                    return

        ways = {asyncio.create_task(requests()), asyncio.create_task(answers())}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


P = TypeVar("P", bound=Proxy)


@contextlib.asynccontextmanager
async def proxy(upstream: str, kind: Callable[[str, Path], P] = Proxy) -> AsyncIterator[P]:
    """Run a proxy in front of *upstream*, the URL of a server on a unix socket."""
    with tempfile.TemporaryDirectory(prefix="proxy-", dir="/tmp") as place:
        running = kind(upstream, Path(place) / "socket")
        await running.start()
        try:
            yield running
        finally:
            await running.close()

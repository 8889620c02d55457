"""Feed: the overview, told each second to all who listen (server-sent events). It is made once for all of them.

Who reads too slowly is let go; a browser comes back by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from asyncworker.daemon.guard import Refused
from asyncworker.errors import BrokerError, KeepError

EVERY_S = 1.0
PING_S = 15.0
WRITE_S = 5.0
MOST_LISTENERS = 64
BEHIND = 4
"""Events that a listener may be behind."""
END = b""


class Feed:
    """Tell those who `listen` what *look* returns, as long as there are any."""

    def __init__(
        self, look: Callable[[], Awaitable[msgspec.Struct]], every: float = EVERY_S, ping: float = PING_S
    ) -> None:
        self._look, self._every, self._ping = look, every, ping
        self._listeners: set[asyncio.Queue[bytes]] = set()
        self._telling: asyncio.Task[None] | None = None

    async def listen(self, request: web.Request) -> web.StreamResponse:
        """Answer a request with events until it goes away, or we do.

        Raises:
            Refused: too many listen already.
        """
        if len(self._listeners) >= MOST_LISTENERS:
            raise Refused(429, f"{MOST_LISTENERS} listen already")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        response.headers["Cache-Control"] = "no-store"
        await response.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue(BEHIND)
        self._listeners.add(queue)
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell(), name="feed")
        try:
            while event := await self._next(queue):
                async with asyncio.timeout(WRITE_S):
                    await response.write(event)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._listeners.discard(queue)
            if not self._listeners:
                await self._rest()
        return response

    async def close(self) -> None:
        """Let all go who listen."""
        for queue in list(self._listeners):
            self._let_go(queue)
        await self._rest()

    async def _rest(self) -> None:
        telling, self._telling = self._telling, None
        if telling is not None:
            telling.cancel()
            await asyncio.wait([telling])

    async def _next(self, queue: asyncio.Queue[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._ping):
                return await queue.get()
        except TimeoutError:
            return b": ping\n\n"

    async def _tell(self) -> None:
        while True:
            try:
                event = b"event: overview\ndata: " + msgspec.json.encode(await self._look()) + b"\n\n"
            except (BrokerError, KeepError, TimeoutError):
                event = b"event: away\ndata: {}\n\n"
            for queue in list(self._listeners):
                if queue.full():
                    self._let_go(queue)
                else:
                    queue.put_nowait(event)
            await asyncio.sleep(self._every)

    def _let_go(self, queue: asyncio.Queue[bytes]) -> None:
        self._listeners.discard(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(END)

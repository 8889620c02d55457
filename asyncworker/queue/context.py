"""What a running job may know about itself: the parameter annotated `Context`."""

from __future__ import annotations

import asyncio
import math
import time
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from asyncworker.errors import BadParameters
from asyncworker.queue.codec import pack, unpack
from asyncworker.queue.effect import effect
from asyncworker.queue.job import Op

CHECKPOINT_BYTES = 2**16
"""How much the checkpoints of one job may take, packed: a place in the work, not the work."""
TOLD_EVERY_S = 0.5
"""How often a job's progress is told at most; what it says in between is left out."""


class Context:
    """One attempt of one job.

    Attributes: ``id`` of the job; ``task`` and ``queue`` by name; ``attempt``, counted from 1; ``deliveries``,
    how many workers died with this job in hand before; ``resources``, what the engine's ``lifespan`` gave this worker;
        ``headers``, what went with it from where it was enqueued, by name (a trace's, say).
    """

    __slots__ = (
        "_loop",
        "_saved",
        "_send",
        "_told_s",
        "attempt",
        "deliveries",
        "headers",
        "id",
        "queue",
        "resources",
        "task",
    )

    def __init__(
        self,
        id: str,
        task: str,
        queue: str,
        attempt: int,
        deliveries: int,
        send: Callable[[Op, int, bytes], Coroutine[Any, Any, None]],
        resources: Any = None,
        headers: Mapping[str, str] | None = None,
        checkpoint: str = "",
    ) -> None:
        self.id = id
        self.task = task
        self.queue = queue
        self.attempt = attempt
        self.deliveries = deliveries
        self.resources = resources
        self.headers = headers or {}
        self._send = send
        self._saved: str | dict[str, Any] = checkpoint
        self._loop = _running_loop()
        self._told_s = -TOLD_EVERY_S

    def progress(self, done: float, total: float | None = None) -> Awaitable[None]:
        """Say how far this job is: *done* of *total* (None: nobody knows) of whatever it counts.

        Whoever looks sees it (`JobHandle.status`, the dashboard), until the job is over. To be awaited, but in a plain
        function; may be said as often as one likes, for it is told every half second at most, and when all is done.

        Raises:
            BadParameters: no numbers of 0 or more. LeaseLost: this attempt is over, another one may be under way.
        """
        for number in (done, 0 if total is None else total):
            if type(number) not in {int, float} or not 0 <= number < math.inf:
                raise BadParameters(f"progress is told in numbers of 0 or more, not {number!r}")
        now = time.monotonic()
        if now - self._told_s < TOLD_EVERY_S and done != total:
            return _Done()
        self._told_s = now
        return self._said(self._send(Op.PROGRESS, 0, f"{done} {'' if total is None else total}".encode()))

    def _said(self, saying: Coroutine[Any, Any, None]) -> Awaitable[None]:
        """Return *saying*; in a plain function, which cannot await it, when it is done."""
        loop = _running_loop()
        if loop is not None or self._loop is None:
            return saying
        asyncio.run_coroutine_threadsafe(saying, self._loop).result()
        return _Done()

    def checkpoint(self, value: Any, key: str = "") -> Awaitable[None]:
        """Keep *value* for the next attempt of this job, which finds it by `saved`: whether this one raises or its worker dies.

        It takes the place of what was kept under *key* before; None takes that away. Several kinds of work in one job
        have a key each, such as an item's own in a mapper. The broker has it when this was awaited; in a plain function,
        which runs in a thread, when the call returns. It goes when the job is over.
        A second worker that does the same partition has its own, and a job that is run alone after deaths of workers
        keeps none, but finds those from before.

        Raises:
            BadParameters: no plain value, or all of them take more than `CHECKPOINT_BYTES`; the one before stays.
            LeaseLost: this attempt is over, another one may be under way.

        Cost: a round trip, which other jobs of this worker share.
        """
        return self._said(self._checkpoint(value, key))

    async def _checkpoint(self, value: Any, key: str) -> None:
        saved = {**self._unpacked(), key: value}
        if value is None:
            del saved[key]
        packed = pack(saved)
        if len(packed) > CHECKPOINT_BYTES:
            raise BadParameters(
                f"the checkpoints of a job take {len(packed):,} bytes; at most {CHECKPOINT_BYTES:,} are kept"
            )
        self._saved = saved
        await self._send(Op.CHECKPOINT, 0, b64encode(packed))

    def saved(self, key: str = "", default: Any = None) -> Any:
        """Return what `checkpoint` was given last, by this attempt or one before; *default* where that is nothing."""
        return self._unpacked().get(key, default)

    @property
    def packed(self) -> str:
        """All that `saved` finds, as it travels."""
        return self._saved if isinstance(self._saved, str) else b64encode(pack(self._saved)).decode()

    def _unpacked(self) -> dict[str, Any]:
        if isinstance(self._saved, str):
            self._saved = unpack(b64decode(self._saved)) if self._saved else {}
        return self._saved

    async def send_chunk(self, number: int, data: bytes) -> None:
        """Store a part of a child's result, at most 1 MiB, ahead of the result itself; read as ``<id>:<number>``.

        Returns when the broker has it, so that no more than one part waits in memory.
        """
        await self._send(Op.CHUNK, number, data)

    async def reopen(self) -> None:
        """Let this job, a released parent, take children again: enqueue them, then return `Parted`.

        They are steps towards its end and not counted in its progress. It runs again when all of them, and of those it
        was given by an attempt that broke off here, are over; or as soon as one failed.
        """
        await self._send(Op.OPEN, 0, b"")

    def effect(self, connection: Any, key: str = "effect") -> AbstractAsyncContextManager[bool]:
        """Make something in PostgreSQL come about once, however often the job is run: ``async with … as first:``.

        Write what is to be written within the block and through *connection* (asyncpg's), only if *first* is true: it is
        there together with the row that says so, or not at all. Several effects of one job have a *key* each, such as
        an item's own. The table `asyncworker.queue.effect.TABLE` is made where it is missing.

        Raises:
            LeaseLost: a later attempt of this job has begun its effects; this one is a zombie.
        """
        return effect(connection, self.id.partition("~")[0], self.attempt + self.deliveries, key)


class _Done:
    """Awaited, it is over: a thread that waited has nothing left to await."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

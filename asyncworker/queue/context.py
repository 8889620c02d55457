"""What a running job may know about itself: the parameter annotated `Context`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from asyncworker.queue.effect import effect
from asyncworker.queue.job import Op


class Context:
    """One attempt of one job.

    Attributes: ``id`` of the job; ``task`` and ``queue`` by name; ``attempt``, counted from 1; ``deliveries``,
    how many workers died with this job in hand before; ``resources``, what the engine's ``lifespan`` gave this worker;
        ``headers``, what went with it from where it was enqueued, by name (a trace's, say).
    """

    __slots__ = ("_send", "attempt", "deliveries", "headers", "id", "queue", "resources", "task")

    def __init__(
        self,
        id: str,
        task: str,
        queue: str,
        attempt: int,
        deliveries: int,
        send: Callable[[Op, int, bytes], Awaitable[None]],
        resources: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.id = id
        self.task = task
        self.queue = queue
        self.attempt = attempt
        self.deliveries = deliveries
        self.resources = resources
        self.headers = headers or {}
        self._send = send

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

"""What a running job may know about itself: the parameter annotated `Context`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any


class Context:
    """One attempt of one job.

    Attributes: ``id`` of the job; ``task`` and ``queue`` by name; ``attempt``, counted from 1; ``deliveries``,
    how many workers died with this job in hand before; ``resources``, what the engine's ``lifespan`` gave this worker.
    """

    __slots__ = ("_send", "attempt", "deliveries", "id", "queue", "resources", "task")

    def __init__(
        self,
        id: str,
        task: str,
        queue: str,
        attempt: int,
        deliveries: int,
        send: Callable[[int, bytes], Awaitable[None]],
        resources: Any = None,
    ) -> None:
        self.id = id
        self.task = task
        self.queue = queue
        self.attempt = attempt
        self.deliveries = deliveries
        self.resources = resources
        self._send = send

    async def send_chunk(self, number: int, data: bytes) -> None:
        """Store a part of a child's result, at most 1 MiB, ahead of the result itself; read as ``<id>:<number>``.

        Returns when the broker has it, so that no more than one part waits in memory.
        """
        await self._send(number, data)

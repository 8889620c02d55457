"""What a running job may know about itself: the parameter annotated `Context`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class Context:
    """One attempt of one job.

    Attributes: ``id`` of the job; ``task`` and ``queue`` by name; ``attempt``, counted from 1; ``deliveries``,
    how many workers died with this job in hand before.
    """

    __slots__ = ("_send", "attempt", "deliveries", "id", "queue", "task")

    def __init__(
        self,
        id: str,
        task: str,
        queue: str,
        attempt: int,
        deliveries: int,
        send: Callable[[int, bytes], Awaitable[None]],
    ) -> None:
        self.id = id
        self.task = task
        self.queue = queue
        self.attempt = attempt
        self.deliveries = deliveries
        self._send = send

    async def send_chunk(self, number: int, data: bytes) -> None:
        """Store a part of a child's result, at most 1 MiB, ahead of the result itself; read as ``<id>:<number>``.

        Returns when the broker has it, so that no more than one part waits in memory.
        """
        await self._send(number, data)

"""What people do to queues, beside the way of work: the second contract of a broker.

Like a `Broker`'s, every verb may be repeated after an error.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Admin(Protocol):
    """Look after queues. What is set here lies in the broker and holds for all, until it is lifted."""

    async def queues(self) -> list[str]:
        """Return the names of all queues that ever had a job or a switch set, sorted."""
        ...

    async def pause(self, queue: str) -> None:
        """Hand out no more of its jobs. What runs goes on; what is enqueued, or becomes due, waits."""
        ...

    async def resume(self, queue: str) -> None:
        """Hand out its jobs again."""
        ...

    async def bound(self, queue: str, most: int | None) -> None:
        """Let at most so many jobs wait in a queue, delayed ones counted; None: any number.

        Jobs beyond are refused (`Receipt.FULL`). What is there already stays, retries always come back, and the
        partitions of map/reduce jobs are bounded by who cuts them.
        """
        ...

"""What people do to queues, beside the way of work: the second contract of a broker.

Like a `Broker`'s, every verb may be repeated after an error.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    async def dead(self) -> list[str]:
        """Return the ids of the dead letters, oldest jobs first; `Broker.find` tells of each, its payload too.

        A dead letter is a job that failed for good, for as long as its failure is kept; no map/reduce job and no
        part of one. There are at most 10,000: beyond that the one that would be forgotten first is no dead letter
        any more, but a failed job as before.
        """
        ...

    async def replay(self, ids: Sequence[str]) -> list[bool]:
        """Enqueue dead letters anew, each under its own id and once however often asked; attempts begin at 1.

        Returns:
            of each, whether it is not over now: False for what is no dead letter, and for one that stays one because
            its queue is full or another job has its ``unique`` key.
        """
        ...

    async def purge(self, ids: Sequence[str]) -> None:
        """Forget dead letters: nobody knows these ids any more. Other ids are left alone."""
        ...

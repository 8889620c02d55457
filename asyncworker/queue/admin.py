"""What people do to queues, beside the way of work: the second contract of a broker.

Like a `Broker`'s, every verb may be repeated after an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from asyncworker.queue.job import Job, Missing, Receipt, Twin
from asyncworker.queue.search import MOST, Page, Query


class Plans(NamedTuple):
    """What people have set for all workers: texts of schedules and of strikes by name, and the last ticks that fired, in ms."""

    schedules: dict[str, bytes]
    ticks: dict[str, int]
    strikes: dict[str, bytes]


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

    async def regulate(self, numbers: Mapping[str, Sequence[float]]) -> None:
        """Let these numbers of limits and rates hold from now on, whatever travels with jobs (`Tasks.limits`)."""
        ...

    async def strike(self, name: str, text: bytes | None) -> bool:
        """Set what workers are not to start (`asyncworker.queue.strike`); None: lift it.

        Returns:
            whether there was none of this name before; of None, whether there was one.
        """
        ...

    async def strikes(self) -> dict[str, bytes]:
        """Return all that is struck, by name."""
        ...

    async def schedule(self, name: str, text: bytes | None) -> bool:
        """Set a schedule, for all workers to fire; its ticks count from now. None: there is none any more.

        Returns:
            whether there was none of this name before; of None, whether there was one.
        """
        ...

    async def schedules(self) -> tuple[dict[str, bytes], dict[str, int]]:
        """Return the schedules that were set, and of all, these and engines' own, the last tick that fired, in ms."""
        ...

    async def plans(self) -> Plans:
        """Return what `schedules` and `strikes` do, in one round trip that costs next to nothing where there are none."""
        ...

    async def fire(self, name: str, tick_ms: int, job: Job) -> Receipt | Twin | Missing | None:
        """Enqueue the job of one tick, if neither this tick of this schedule nor a later one has fired.

        Returns:
            what became of the job, as `Broker.enqueue`; None: nothing, for the tick is over. One that finds its queue
            full has not fired.
        """
        ...

    async def jobs(self, query: Query, cursor: str = "", limit: int = MOST) -> Page:
        """Return those jobs that fit among the next *limit* (1..200) of all, behind *cursor* or from the beginning.

        A page may have few, or none, and be followed by others. States follow each other as `search.ORDER` says; within
        one the order is near to that by age. Jobs that stay as they are while somebody walks are met, each once.

        Raises:
            BadParameters: that is no cursor.
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

"""Lending: a job that waits for another gives its slot back meanwhile, lest all slots wait for what none is left to run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

MOST_LENT = 1000
"""Jobs of one worker that may wait for others beside those that run."""


class Lender(Protocol):
    """Who runs jobs."""

    def lend(self, attempt: Any) -> bool:
        """Let another run in the place of this attempt; returns whether it runs at all.

        Raises:
            AsyncWorkerError: too many wait for others already.
        """
        ...

    def take_back(self, attempt: Any) -> None:
        """Count an attempt in again, that was lent."""
        ...


class Place:
    """An asyncio task in which attempts run, and the one that does now. What it starts finds it here, too."""

    __slots__ = ("item",)

    def __init__(self) -> None:
        self.item: Any = None


HERE: ContextVar[Place | None] = ContextVar("asyncworker_place", default=None)


@contextmanager
def lent() -> Iterator[None]:
    """Lend the slot of the job in which this is called, if there is one, while the block runs."""
    place = HERE.get()
    attempt = None if place is None else place.item
    if attempt is None or not attempt.home.lend(attempt):
        yield
        return
    try:
        yield
    finally:
        attempt.home.take_back(attempt)

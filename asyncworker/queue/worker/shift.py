"""Shift: works off what waits, several in one asyncio task as long as none of them has to wait for anything.

A task of its own costs a job more than the queue does. So a task goes on to the next job where the one before ended
without ever suspending; the first that suspends is its last, and others take over. Each job finds what it would find
in a task of its own: a current task, context variables as at the start, and no cancellation but its own.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from time import monotonic
from typing import Any, Generic, TypeVar

from asyncworker.queue.worker.lending import HERE, Place

T = TypeVar("T")
SLICE_S = 0.01
"""How long items that never suspend may follow one another before the event loop gets its turn."""


class _Turn:
    """The first steps of tasks that were made together. ``over`` as soon as each of them has suspended or ended.

    Attributes: ``until`` when new items are begun, by the monotonic clock; ``late``: some were left because of that.
    """

    __slots__ = ("late", "over", "tasks", "until")

    def __init__(self) -> None:
        self.over = self.late = False
        self.until = math.inf
        self.tasks: list[asyncio.Task[None]] = []


class Shift(Generic[T]):
    """Call *work* with each item that was added and its task, soon; it shares that only with items that never suspend."""

    def __init__(self, work: Callable[[T, asyncio.Task[None]], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._waiting: deque[T] = deque()
        self._swift = True  # whether the last turn's items ended at once; else each gets a task to begin with

    def add(self, items: list[T]) -> None:
        self._waiting += items
        self._begin(1 if self._swift else len(items))

    def _begin(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        turn = _Turn()
        turn.tasks = [loop.create_task(self._run(turn)) for _ in range(count)]
        loop.call_soon(self._end, turn)  # after their first steps: a loop calls in the order in which it was asked

    async def _run(self, turn: _Turn) -> None:
        waiting, work, place = self._waiting, self._work, Place()
        HERE.set(place)
        task, context = asyncio.current_task(), tuple(copy_context().items())
        assert task is not None
        turn.until = min(turn.until, monotonic() + SLICE_S)
        while waiting and not (turn.over or turn.late):
            place.item = waiting.popleft()
            await work(place.item, task)
            if monotonic() >= turn.until:
                turn.late = True
            if task.cancelling() or not _is_still(context):
                return

    def _end(self, turn: _Turn) -> None:
        turn.over = True
        none_suspended = all(task.done() for task in turn.tasks)
        self._swift = none_suspended and (turn.late or not self._waiting)
        if self._waiting:
            self._begin(1 if self._swift else len(self._waiting))


def _is_still(context: tuple[tuple[ContextVar[Any], Any], ...]) -> bool:
    """Return whether the context variables are those of *context*: the very objects, for equal ones may change apart."""
    now = copy_context()
    if len(context) == 1:  # `HERE` alone, which nobody else sets
        return len(now) == 1
    return len(now) == len(context) and all(now.get(variable, now) is value for variable, value in context)

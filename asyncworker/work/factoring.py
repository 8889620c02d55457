"""Let workers pull chunks of tasks, sized so that all end together though nobody knows their speed beforehand.

Weighted factoring (Hummel, Schonberg, Flynn, CACM 1992, with weights that are learnt): an idle worker gets its share of
a part of what is left, so chunks shrink towards the end and a worker that turns slow holds little. Pure: the
caller brings the time. `bench/control/bench_distribution.py` holds it to its bars.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

import msgspec

from asyncworker.errors import BadParameters
from asyncworker.work.balance import Weight

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

PARTS = 4.0
"""A chunk is a worker's share of a quarter of what is left."""
OVERHEADS = 8.0
"""And at least so many times as much work as handing it over costs."""
LATE = 0.5
"""A chunk that is overdue is expected to take so much longer again as it has taken."""


class Ended(msgspec.Struct, Generic[K, T], frozen=True):
    """What an ended chunk means: the tasks that are done by it, and workers whose copies are not needed any more."""

    tasks: list[T]
    stop: list[K]


class _Chunk(Generic[T]):
    __slots__ = ("done", "tasks", "work")

    def __init__(self, tasks: list[T], work: float) -> None:
        self.tasks, self.work, self.done = tasks, work, False


class Factoring(Generic[K, T]):
    """Hand out tasks, the largest first.

    Args:
        tasks: all of them.
        weight: estimates a task's work, in any unit; without it all weigh 1.
        overhead: seconds that handing over one chunk costs.
        speculate: whether at the end an idle worker gets a copy of the chunk that should end last, where it should
            end sooner there. Only for tasks that may run twice.

    `take` when a worker is idle, `ended` when it has done its chunk, `dropped` when it will not.
    """

    def __init__(
        self,
        tasks: Iterable[T],
        *,
        weight: Weight[T] | None = None,
        overhead: float = 0.0,
        speculate: bool = True,
    ) -> None:
        if overhead < 0:
            raise BadParameters(f"an overhead is 0 seconds or more, not {overhead}")
        weighed = [(1.0 if weight is None else float(weight(task)), task) for task in tasks]
        if any(work < 0 for work, _ in weighed):
            raise BadParameters("a task's weight is 0 or more")
        self._tasks = deque(sorted(weighed, key=lambda pair: -pair[0]))
        self._left = sum(work for work, _ in weighed)
        self._overhead, self._speculate = overhead, speculate
        self._rates: dict[K, float] = {}
        self._held: dict[K, tuple[_Chunk[T], float]] = {}

    @property
    def done(self) -> bool:
        """Whether every task has ended."""
        return not self._tasks and not self._held

    def take(self, worker: K, now: float) -> list[T]:
        """Return the next tasks for an idle *worker*; none where all are in good hands.

        Ask again after a while: what somebody else has may be late by then.
        """
        if worker in self._held:
            raise BadParameters(f"worker {worker!r} still has a chunk")
        chunk = self._cut(worker) if self._tasks else self._copy(worker, now) if self._speculate else None
        if chunk is None:
            return []
        self._held[worker] = chunk, now
        return list(chunk.tasks)

    def ended(self, worker: K, now: float) -> Ended[K, T]:
        """Note that *worker* has done its chunk; of two copies the first one counts."""
        chunk, began = self._held.pop(worker)
        rate = chunk.work / max(1e-9, now - began - self._overhead)
        if rate > 0:
            self._rates[worker] = (self._rates.get(worker, rate) + rate) / 2
        if chunk.done:
            return Ended([], [])
        chunk.done = True
        return Ended(chunk.tasks, [other for other, (held, _) in self._held.items() if held is chunk])

    def dropped(self, worker: K) -> None:
        """Note that *worker* has given up: its chunk goes back, unless somebody else has it or has done it."""
        chunk, _ = self._held.pop(worker)
        if not chunk.done and all(held is not chunk for held, _ in self._held.values()):
            share = chunk.work / max(1, len(chunk.tasks))
            self._tasks.extendleft((share, task) for task in reversed(chunk.tasks))
            self._left += chunk.work

    def _cut(self, worker: K) -> _Chunk[T]:
        """Fill a worker's share from the largest tasks, then from the smallest; the first chunk of all is one task."""
        rate = self._rates.get(worker)
        share = 0.0
        if rate is not None:
            share = max(self._left * rate / (PARTS * self._speed(worker)), OVERHEADS * self._overhead * rate)
        work, task = self._tasks.popleft()
        tasks = [task]
        for pop, end, slack in ((self._tasks.popleft, 0, 1.05), (self._tasks.pop, -1, 1.02)):
            while self._tasks and work + self._tasks[end][0] <= slack * share:
                more, task = pop()
                work += more
                tasks.append(task)
        self._left = self._left - work if self._tasks else 0.0
        return _Chunk(tasks, work)

    def _speed(self, worker: K) -> float:
        """Return the work a second of all that are at it; who has not ended anything yet counts as the mean."""
        at_it = {*self._held, *self._rates, worker}
        return len(at_it) * sum(self._rates.values()) / len(self._rates)

    def _copy(self, worker: K, now: float) -> _Chunk[T] | None:
        if worker not in self._rates:
            return None
        chunks = [chunk for chunk, _ in self._held.values()]
        latest, found = now, None
        for other, (chunk, began) in self._held.items():
            end = self._end(other, chunk, began, now)
            here = now + self._overhead + chunk.work / self._rates[worker]
            if end > max(latest, here) and not chunk.done and chunks.count(chunk) == 1:
                latest, found = end, chunk
        return found

    def _end(self, worker: K, chunk: _Chunk[T], began: float, now: float) -> float:
        """Return when *worker* should end its chunk."""
        rate = self._rates.get(worker) or min(self._rates.values())
        return max(began + self._overhead + chunk.work / rate, now + LATE * (now - began))

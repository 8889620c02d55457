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
LONG = 2.0
"""While tasks are left, a chunk is late that takes so many times as long as all there is yet to do."""
COPIES = 3
"""Workers that have the same chunk at most: a quicker one may become free when one copy is already under way."""


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
        chunk = self._copy(worker, now) if self._speculate else None
        if chunk is None and self._tasks:
            chunk = self._cut(worker)
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
        share = self._share(worker)
        work, task = self._tasks.popleft()
        tasks = [task]
        for pop, end, slack in ((self._tasks.popleft, 0, 1.05), (self._tasks.pop, -1, 1.02)):
            while self._tasks and work + self._tasks[end][0] <= slack * share:
                more, task = pop()
                work += more
                tasks.append(task)
        self._left = self._left - work if self._tasks else 0.0
        return _Chunk(tasks, work)

    def _share(self, worker: K) -> float:
        """Return how much work *worker* should take; 0.0 while nothing is known of it."""
        rate = self._rates.get(worker, 0.0)
        return (
            max(self._left * rate / (PARTS * self._speed(worker)), OVERHEADS * self._overhead * rate) if rate else 0.0
        )

    def _speed(self, worker: K) -> float:
        """Return the work a second of all that are at it; who has not ended anything yet counts as the mean."""
        at_it = {*self._held, *self._rates, worker}
        return len(at_it) * sum(self._rates.values()) / len(self._rates)

    def _copy(self, worker: K, now: float) -> _Chunk[T] | None:
        """Return the chunk that should end last of all, where it should end sooner here; None if there is none.

        While there are tasks left that is one which should end long after all others, and only at the last moment at
        which this worker can still have done it by then: the later, the more is known of it.
        """
        if not (rate := self._rates.get(worker)):
            return None
        ends: dict[_Chunk[T], list[float]] = {}
        held = 0.0
        for other, (chunk, began) in self._held.items():
            end = self._end(other, chunk, began, now)
            ends.setdefault(chunk, []).append(end)
            held += (end - now) * self._rates.get(other, 0.0)
        rest = (self._left + held) / self._speed(worker)
        found, latest = None, now
        for chunk, of in ends.items():
            end, here = min(of), now + self._overhead + chunk.work / rate
            if chunk.done or len(of) >= COPIES or end <= max(latest, here):
                continue
            if self._tasks and (end - now < LONG * rest or here + self._share(worker) / rate < now + rest):
                continue
            latest, found = end, chunk
        return found

    def _end(self, worker: K, chunk: _Chunk[T], began: float, now: float) -> float:
        """Return when *worker* should end its chunk."""
        rate = self._rates.get(worker) or min(self._rates.values())
        return max(began + self._overhead + chunk.work / rate, now + LATE * (now - began))

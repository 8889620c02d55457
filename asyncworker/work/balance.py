"""Who gets which task, and how even that is. Pure: nothing here runs or waits.

`distribute` plans tasks that are known beforehand, `ShortestDelay` sends each as it comes; where workers may turn slow
meanwhile, let them pull (`factoring.py`). `bench/control/bench_distribution.py` compares the three with their peers.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from asyncworker.errors import BadParameters

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
Weight = Callable[[T], float]
"""How much work a task is, 0 or more, in any unit."""

SMOOTHING = 0.1
"""Weight of the newest service time of a worker."""
FORGOTTEN = 200
"""So many picks that go elsewhere, and an idle worker is thought to be twice as quick as before."""
ALL = 64
"""Up to so many workers are all looked at; of more, two are drawn, lest all senders run to the same one."""


class Balance(msgspec.Struct, frozen=True):
    """How evenly workers are loaded; gate on the last, the others can look well over a bad plan."""

    jain: float
    """Jain's index of the times: 1 even, 1/n all on one of n."""
    cv: float
    """Coefficient of variation of the times: 0 even."""
    makespan_ratio: float
    """When the last worker ends, over a bound below which nobody can end: 1 is perfect."""


class _Worker(msgspec.Struct, Generic[K]):
    id: K
    load: float = 0.0
    capacity: float = 1.0


def distribute(
    tasks: Iterable[T],
    workers: Iterable[Mapping[str, Any] | K],
    *,
    weight: Weight[T] | None = None,
) -> dict[K, list[T]]:
    """Give each task to the worker that would end it first, the largest tasks first (LPT).

    Args:
        tasks: any objects; a mapping with a number under ``"weight"`` weighs that, others 1.
        workers: ids, or mappings with ``"id"`` and maybe ``"load"`` (seconds of work that it has already, 0) and
            ``"capacity"`` (work a second, 1).
        weight: tells a task's weight instead.

    Returns:
        Each worker's tasks, in the order of *tasks*; every worker is there, maybe with none.

    Raises:
        BadParameters: no workers, two of one id, a capacity that is not above 0, a load or weight below 0.

    Cost: n log n for n tasks, times the number of different capacities. Source: Graham, 1969; for workers of unequal
    speed Gonzalez, Ibarra, Sahni, 1977 (at most twice the best, 1.1 times in `bench_distribution.py`).
    """
    places = _workers(workers)
    items = list(tasks)
    weights = [_weight(task, weight) for task in items]
    # Among workers of one capacity the least loaded ends first, whatever the task: a heap for each capacity.
    heaps: dict[float, list[tuple[float, int]]] = {}
    for number, worker in enumerate(places):
        heaps.setdefault(worker.capacity, []).append((worker.load, number))
    for heap in heaps.values():
        heapq.heapify(heap)
    chosen = [0] * len(items)
    for index in sorted(range(len(items)), key=lambda index: -weights[index]):
        end, number, capacity = min(
            (heap[0][0] + weights[index] / capacity, heap[0][1], capacity) for capacity, heap in heaps.items()
        )
        heapq.heapreplace(heaps[capacity], (end, number))
        chosen[index] = number
    plan: dict[K, list[T]] = {worker.id: [] for worker in places}
    for task, number in zip(items, chosen, strict=True):
        plan[places[number].id].append(task)
    return plan


def balance_score(
    distribution: Mapping[K, Iterable[T] | float],
    workers: Iterable[Mapping[str, Any] | K] | None = None,
    *,
    weight: Weight[T] | None = None,
) -> Balance:
    """Judge a distribution, planned or done.

    Args:
        distribution: each worker's tasks, or its work as a number (of capacity 1: its busy seconds).
        workers: as for `distribute`; who has nothing counts too. None: those of *distribution*, all alike.

    Raises:
        BadParameters: as `distribute`, or *distribution* has a worker that *workers* has not.
    """
    places = _workers(distribution if workers is None else workers)
    if unknown := set(distribution) - {worker.id for worker in places}:
        raise BadParameters(f"no worker has the id {unknown.pop()!r}")
    weights: list[float] = []
    total, times = 0.0, []
    for worker in places:
        share = distribution.get(worker.id, 0.0)
        if isinstance(share, int | float):
            work = float(share)
        else:
            pieces = [_weight(task, weight) for task in share]
            work = math.fsum(pieces)
            weights += pieces
        total += work + worker.load * worker.capacity
        times.append(worker.load + work / worker.capacity)
    capacities = [worker.capacity for worker in places]
    bounds = [total / sum(capacities), makespan_bound(weights, capacities), *(worker.load for worker in places)]
    least = max(bounds)
    mean, squares = statistics.fmean(times), math.fsum(time * time for time in times)
    return Balance(
        jain=math.fsum(times) ** 2 / (len(times) * squares) if squares else 1.0,
        cv=statistics.pstdev(times) / mean if mean else 0.0,
        makespan_ratio=max(times) / least if least else 1.0,
    )


def makespan_bound(weights: Iterable[float], capacities: Iterable[float]) -> float:
    """Return the seconds below which no distribution can end: the k largest tasks take k workers, or all take all."""
    work = speed = bound = 0.0
    weights, capacities = sorted(weights, reverse=True), sorted(capacities, reverse=True)
    for largest, fastest in zip(weights, capacities, strict=False):
        work, speed = work + largest, speed + fastest
        bound = max(bound, work / speed)
    return max(bound, math.fsum(weights) / math.fsum(capacities))


class ShortestDelay(Generic[K]):
    """Send each task, as it comes, to the worker where it should end first: (waiting + 1) · mean service time.

    Args:
        workers: ids, at least one.
        rng: breaks ties.

    Who ignores speed (least loaded, two choices) fills slow workers; `bench/control/bench_distribution.py`. What is
    known of a worker that is left out is worth less and less, so one long task does not leave it out for good.
    """

    def __init__(self, workers: Iterable[K], *, rng: random.Random | None = None) -> None:
        self._waiting = dict.fromkeys(workers, 0)
        if not self._waiting:
            raise BadParameters("there are no workers")
        self._service_s: dict[K, float] = {}
        self._ended = dict.fromkeys(self._waiting, 0)
        self._picks = 0
        self._seen = dict.fromkeys(self._waiting, 0)  # how many picks there were when it was last at work
        self._rng = rng or random.Random()

    def pick(self) -> K:
        """Return who gets the next task; it counts as waiting there until `ended`."""
        workers: Sequence[K] = list(self._waiting)
        if len(workers) > ALL:
            workers = self._rng.sample(workers, 2)
        usual = 1.0
        if 0 < len(self._service_s) < len(self._waiting):
            usual = statistics.median(self._service_s.values())
        delays = [(self._waiting[worker] + 1) * self._expected(worker, usual) for worker in workers]
        least = min(delays)
        worker = self._rng.choice([worker for worker, delay in zip(workers, delays, strict=True) if delay == least])
        if worker in self._service_s:
            self._service_s[worker] = self._expected(worker, usual)
        self._picks += 1
        self._seen[worker] = self._picks
        self._waiting[worker] += 1
        return worker

    def ended(self, worker: K, seconds: float) -> None:
        """Note that *worker* ended a task, after so many seconds of work on it (its wait not counted)."""
        self._waiting[worker] -= 1
        self._ended[worker] += 1
        self._seen[worker] = self._picks
        before = self._service_s.get(worker, seconds)
        # A plain mean at first: one task that was much too quick would send this worker everything for a while.
        self._service_s[worker] = before + max(SMOOTHING, 1 / self._ended[worker]) * (seconds - before)

    def _expected(self, worker: K, usual: float) -> float:
        """Return the seconds that a task should take *worker*."""
        seconds = self._service_s.get(worker, usual)
        return seconds if self._waiting[worker] else seconds * 0.5 ** ((self._picks - self._seen[worker]) / FORGOTTEN)


def _workers(workers: Iterable[Any]) -> list[_Worker[Any]]:
    places = []
    for worker in workers:
        try:
            place = (
                _Worker(worker["id"], float(worker.get("load", 0.0)), float(worker.get("capacity", 1.0)))
                if isinstance(worker, Mapping)
                else _Worker(worker)
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise BadParameters(f"a worker is an id, or has one with a load and a capacity: {worker!r}") from exc
        if not (place.capacity > 0 and math.isfinite(place.capacity) and 0 <= place.load < math.inf):
            raise BadParameters(f"a worker's capacity is above 0 and its load 0 or more: {worker!r}")
        places.append(place)
    if not places:
        raise BadParameters("there are no workers")
    if len({place.id for place in places}) < len(places):
        raise BadParameters("two workers have one id")
    return places


def _weight(task: Any, weight: Weight[Any] | None) -> float:
    if weight is None:
        weight = _own_weight
    found = weight(task)
    if not 0 <= found < math.inf:
        raise BadParameters(f"a task's weight is 0 or more, not {found}")
    return float(found)


def _own_weight(task: Any) -> Any:
    return task.get("weight", 1.0) if isinstance(task, Mapping) else 1.0

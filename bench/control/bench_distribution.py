"""Do workers end together, though their speeds differ and one turns slow?

Null hypothesis: planned beforehand (LPT) or pulled one by one, tasks end as soon. 400 lognormal tasks (cv 1) of which
estimates are known to 30 %, 8 workers of speed .5 to 4, 2 ms to hand over a chunk; then the same with the fastest five
times slower after 30 % of the time. 1.0 is a bound below which nobody can end. Online: tasks come by themselves
at a load of .8 and are sent at once; ratios are averaged over draws of speeds. Run: ``python -m bench.control.bench_distribution``.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from asyncworker.work.balance import ShortestDelay, distribute, makespan_bound
from asyncworker.work.factoring import Factoring
from bench.control import verdict
from bench.control.simulation import Works
from bench.control.verdict import Figures

TASKS, WORKERS, OVERHEAD = 400, 8, 0.002
SPEEDS = (0.5, 1, 1, 2, 4)
SLOWER = 5.0
AGAIN = 0.005
"""Seconds after which an idle worker asks again."""
RHO, SENT = 0.8, 12_000


@dataclass(frozen=True)
class Case:
    """What is drawn once: true work, what is believed of it, speeds, and when the fastest turns slow (or never)."""

    work: list[float]
    believed: list[float]
    speeds: list[float]
    slow_at: float = math.inf

    @classmethod
    def drawn(cls, rng: random.Random) -> Case:
        works = Works(rng, 1.0)
        work = [0.01 * works.draw() for _ in range(TASKS)]
        return cls(
            work,
            [one * math.exp(rng.gauss(0, 0.3)) for one in work],
            [float(rng.choice(SPEEDS)) for _ in range(WORKERS)],
        )

    def with_straggler(self) -> Case:
        return Case(self.work, self.believed, self.speeds, 0.3 * makespan_bound(self.work, self.speeds))

    @property
    def slow(self) -> int:
        return self.speeds.index(max(self.speeds))

    @property
    def bound(self) -> float:
        if self.slow_at == math.inf:
            return makespan_bound(self.work, self.speeds)
        speed = sum(self.speeds)
        left = sum(self.work) - speed * self.slow_at
        return self.slow_at + left / (speed - max(self.speeds) * (1 - 1 / SLOWER))

    def seconds(self, worker: int, work: float, began: float) -> float:
        took = work / self.speeds[worker]
        if worker != self.slow or began + took <= self.slow_at:
            return took
        quick = max(0.0, self.slow_at - began)
        return quick + (took - quick) * SLOWER


def planned(case: Case, plan: dict[int, list[int]]) -> float:
    return max(case.seconds(worker, sum(case.work[task] for task in tasks), 0.0) for worker, tasks in plan.items())


def lpt(case: Case) -> float:
    workers = [{"id": worker, "capacity": speed} for worker, speed in enumerate(case.speeds)]
    return planned(case, distribute(range(TASKS), workers, weight=case.believed.__getitem__))


def least_loaded(case: Case) -> float:
    plan: dict[int, list[int]] = {worker: [] for worker in range(WORKERS)}
    load = [0.0] * WORKERS
    for task in range(TASKS):
        worker = load.index(min(load))
        plan[worker].append(task)
        load[worker] += case.believed[task] / case.speeds[worker]
    return planned(case, plan)


def round_robin(case: Case) -> float:
    return planned(case, {worker: list(range(worker, TASKS, WORKERS)) for worker in range(WORKERS)})


def seed_stale(case: Case) -> float:
    """The seed: workers are sorted once, and the first gets everything."""
    return planned(case, {0: list(range(TASKS))})


def pulled(case: Case, size: Callable[[int], int]) -> float:
    """Idle workers take the next tasks, so many as *size* says of how many are left."""
    idle = [(0.0, worker) for worker in range(WORKERS)]
    task, last = 0, 0.0
    while task < TASKS:
        now, worker = heapq.heappop(idle)
        take = max(1, size(TASKS - task))
        took = OVERHEAD + case.seconds(worker, sum(case.work[task : task + take]), now + OVERHEAD)
        task += take
        last = max(last, now + took)
        heapq.heappush(idle, (now + took, worker))
    return last


def ours(case: Case) -> float:
    factoring: Factoring[int, int] = Factoring(range(TASKS), weight=case.believed.__getitem__, overhead=OVERHEAD)
    order = itertools.count()
    turns = [0] * WORKERS  # a stopped copy's end is of an earlier turn
    ends: list[tuple[float, int, int, int]] = []  # (when, an order, worker or -1 to look again, turn)
    done: list[int] = []
    now = 0.0

    def start(worker: int) -> None:
        tasks = factoring.take(worker, now)
        if tasks:
            took = OVERHEAD + case.seconds(worker, sum(case.work[task] for task in tasks), now + OVERHEAD)
            heapq.heappush(ends, (now + took, next(order), worker, turns[worker]))

    for worker in range(WORKERS):
        start(worker)
    idle: set[int] = set()
    looking = False
    while len(done) < TASKS:
        now, _, worker, turn = heapq.heappop(ends)
        if worker >= 0:
            if turn != turns[worker]:
                continue
            ended = factoring.ended(worker, now)
            done += ended.tasks
            for other in ended.stop:
                factoring.dropped(other)
                turns[other] += 1
            idle |= {worker, *ended.stop}
        for free in sorted(idle):
            before = len(ends)
            start(free)
            if len(ends) > before:
                idle.discard(free)
        if idle and (worker < 0 or not looking):
            looking = True
            heapq.heappush(ends, (now + AGAIN, next(order), -1, 0))
        elif worker < 0:
            looking = False
    assert sorted(done) == list(range(TASKS))
    return now


BATCH: dict[str, Callable[[Case], float]] = {
    "ours: pull, weighted factoring": ours,
    "ours: distribute (LPT)": lpt,
    "least loaded": least_loaded,
    "pull one": lambda case: pulled(case, lambda left: 1),
    "guided self-scheduling": lambda case: pulled(case, lambda left: math.ceil(left / WORKERS)),
    "round robin": round_robin,
    "seed: sorted once": seed_stale,
}


class TwoChoices:
    """Two at random, the shorter queue of them (Mitzenmacher)."""

    def __init__(self, rng: random.Random, choices: int = 2) -> None:
        self._rng, self._choices, self._waiting = rng, choices, [0] * WORKERS

    def pick(self) -> int:
        drawn = self._rng.sample(range(WORKERS), self._choices)
        worker = min(drawn, key=self._waiting.__getitem__)
        self._waiting[worker] += 1
        return worker

    def ended(self, worker: int, seconds: float) -> None:
        self._waiting[worker] -= 1


ONLINE: dict[str, Callable[[random.Random], ShortestDelay[int] | TwoChoices]] = {
    "ours: shortest delay": lambda rng: ShortestDelay(range(WORKERS), rng=rng),
    "least loaded": lambda rng: TwoChoices(rng, WORKERS),
    "two choices": TwoChoices,
}


def sent(rule: ShortestDelay[int] | TwoChoices, speeds: Sequence[float], rng: random.Random) -> tuple[float, float]:
    """Return mean and 99th percentile of the time from coming to being done."""
    works, free = Works(rng, 1.0), [0.0] * WORKERS
    now, took, ends = 0.0, list[float](), list[tuple[float, int, float]]()
    for _ in range(SENT):
        now += rng.expovariate(RHO * sum(speeds))
        while ends and ends[0][0] <= now:
            _, worker, seconds = heapq.heappop(ends)
            rule.ended(worker, seconds)
        worker = rule.pick()
        seconds = works.draw() / speeds[worker]
        free[worker] = max(now, free[worker]) + seconds
        heapq.heappush(ends, (free[worker], worker, seconds))
        took.append(free[worker] - now)
    took = sorted(took[SENT // 10 :])
    return mean(took), took[int(0.99 * len(took))]


def judge(seed: int, draws: int) -> Figures:
    out: Figures = {}
    cases = [Case.drawn(random.Random(f"{seed} {draw}")) for draw in range(draws)]
    stragglers = [case.with_straggler() for case in cases]
    for name, rule in BATCH.items():
        usual = [rule(case) / case.bound for case in cases]
        slow = [rule(case) / case.bound for case in stragglers]
        out[name] = {"makespan": mean(usual), "worst": max(usual), "straggler": mean(slow), "its worst": max(slow)}
    told: dict[str, list[tuple[float, float]]] = {name: [] for name in ONLINE}
    for draw in range(max(1, draws // 4)):
        rng = random.Random(f"{seed} {draw} online")
        speeds = [float(rng.choice(SPEEDS)) for _ in range(WORKERS)]
        for name, make in ONLINE.items():
            told[name].append(sent(make(random.Random(draw)), speeds, random.Random(f"{seed} {draw} works")))
    best = told["ours: shortest delay"]
    for name, pairs in told.items():
        out[f"online {name}"] = {
            "mean s": mean(pair[0] for pair in pairs),
            "p99 s": mean(pair[1] for pair in pairs),
            "ours / its mean": mean(us[0] / pair[0] for us, pair in zip(best, pairs, strict=True)),
            "ours / its p99": mean(us[1] / pair[1] for us, pair in zip(best, pairs, strict=True)),
        }
    return out


def bars(figures: Figures) -> dict[str, bool]:
    pull, plan = figures["ours: pull, weighted factoring"], figures["ours: distribute (LPT)"]
    return {
        "makespan / bound: mean <= 1.15, worst <= 1.30": pull["makespan"] <= 1.15 and pull["worst"] <= 1.30,
        "with a straggler: mean <= 1.20, worst <= 1.40": pull["straggler"] <= 1.20 and pull["its worst"] <= 1.40,
        "with a straggler: <= .6x LPT": pull["straggler"] <= 0.6 * plan["straggler"],
        "online: mean <= .45x two choices": figures["online two choices"]["ours / its mean"] <= 0.45,
        "online: p99 <= .8x least loaded": figures["online least loaded"]["ours / its p99"] <= 0.8,
        "online: mean <= 1.1x least loaded": figures["online least loaded"]["ours / its mean"] <= 1.1,
    }


if __name__ == "__main__":
    sys.exit(verdict.main(__doc__, judge, bars, draws=40))

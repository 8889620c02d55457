"""A backend of known capacity in virtual time, and what a limiter policy makes of it.

Processor sharing: each call brings work of mean 1, and all that are under way share the total rate ``X(n)``, which
is so the exact throughput at concurrency *n*. The best is known, so a share of it can be measured: "test scenarios
for which the optimal concurrency level can be computed analytically" (Hellerstein, Morrison, Eilebrecht, FeBID 2008).
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

Capacity = Callable[[float], float]
"""Concurrency -> completions a second, all calls together."""

HIGH = 200
"""No backend here needs more than this, and no policy may say more."""
BUCKET_S = 0.25


class Judged(Protocol):
    """What a policy must have to be judged: ours and the peers' rules alike."""

    @property
    def limit(self) -> int: ...

    def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int: ...


@dataclass
class Scalable:
    """A backend that obeys the universal scalability law: lambda calls a second alone, then contention and crosstalk."""

    alone: float
    sigma: float
    kappa: float

    def __call__(self, n: float) -> float:
        return self.alone * n / (1 + self.sigma * (n - 1) + self.kappa * n * (n - 1))

    @classmethod
    def drawn(cls, rng: random.Random, slowest_s: float = 0.04) -> Scalable:
        """Draw one whose best concurrency is 6..140, with calls of 5 ms to *slowest_s*."""
        while True:
            sigma, kappa = rng.uniform(0, 0.08), 10 ** rng.uniform(-5, -2)
            if 6 <= math.sqrt((1 - sigma) / kappa) <= 140:
                return cls(10 ** -rng.uniform(math.log10(0.005), math.log10(slowest_s)), sigma, kappa)


def best(capacity: Capacity, high: int = HIGH) -> tuple[int, float]:
    """Return the concurrency up to *high* with the greatest throughput, and that throughput."""
    n = max(range(1, high + 1), key=capacity)
    return n, capacity(n)


@dataclass
class Works:
    """The sizes of calls: log-normal, of mean 1 and this coefficient of variation."""

    rng: random.Random
    cv: float = 0.5
    _sigma: float = field(init=False)

    def __post_init__(self) -> None:
        self._sigma = math.sqrt(math.log(1 + self.cv * self.cv))

    def draw(self) -> float:
        return math.exp(self.rng.gauss(-self._sigma * self._sigma / 2, self._sigma))


@dataclass
class Run:
    """What happened, in buckets of a quarter of a second."""

    completed: list[int]
    inflight_s: list[float]
    limits: list[tuple[float, int]] = field(default_factory=list)
    left: int = 0
    """Calls that had arrived and were not begun at the end."""

    def rate(self, since: float, until: float) -> float:
        return sum(self.completed[int(since / BUCKET_S) : int(until / BUCKET_S)]) / (until - since)

    def inflight(self, since: float, until: float) -> float:
        return sum(self.inflight_s[int(since / BUCKET_S) : int(until / BUCKET_S)]) / (until - since)

    def reaches(self, rate: float) -> float:
        """Return the end of the first second with at least this many completions; infinity if there is none."""
        second = int(1 / BUCKET_S)
        for begin in range(len(self.completed) - second):
            if sum(self.completed[begin : begin + second]) >= rate:
                return begin * BUCKET_S + 1
        return math.inf


def run(
    policy: Judged,
    capacity: Capacity,
    works: Works,
    seconds: float,
    *,
    change: tuple[float, Capacity] | None = None,
    arrivals: float | None = None,
) -> Run:
    """Let *policy* say how many calls are under way for some virtual seconds.

    Args:
        change: from when on another capacity holds.
        arrivals: calls a second that come by themselves (Poisson); None for a backlog without end.
    """
    buckets = int(seconds / BUCKET_S) + 1
    out = Run([0] * buckets, [0.0] * buckets)
    order = itertools.count()
    under_way: list[tuple[float, int, float]] = []  # the shared progress at which it ends, an order, when it began
    now = progress = 0.0
    next_arrival = math.inf if arrivals is None else works.rng.expovariate(arrivals)
    change_at, changed = change or (math.inf, capacity)
    waiting: float = math.inf if arrivals is None else 0

    def begin() -> None:
        nonlocal waiting
        while waiting and len(under_way) < max(1, policy.limit):
            heapq.heappush(under_way, (progress + works.draw(), next(order), now))
            waiting -= 1

    begin()
    while now < seconds:
        n = len(under_way)
        speed = capacity(n) / n if n else 0.0
        end = now + (under_way[0][0] - progress) / speed if n else math.inf
        then = min(end, change_at, next_arrival)
        out.inflight_s[min(buckets - 1, int(now / BUCKET_S))] += n * (then - now)
        progress += speed * (then - now)
        now = then
        if then == change_at:
            capacity, change_at = changed, math.inf
            continue
        if then == next_arrival:
            assert arrivals is not None
            waiting += 1
            next_arrival += works.rng.expovariate(arrivals)
        else:
            progress, _, began = heapq.heappop(under_way)
            out.completed[min(buckets - 1, int(now / BUCKET_S))] += 1
            before = policy.limit
            policy.on_complete(now, now - began, n, True)
            if policy.limit != before:
                out.limits.append((now, policy.limit))
        begin()
    out.left = 0 if arrivals is None else int(waiting)
    return out

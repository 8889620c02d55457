"""How many items a batch should take: the size whose cost an item is least, learnt from what batches took.

A batch of b items is taken to cost ``T(b) = c0 + a b + q b²`` seconds: what a call costs whatever it carries, what
each item adds, and what size itself costs (memory, locks, long statements). Then ``b / T(b)`` is highest at
``sqrt(c0 / q)``. Pure: no clock, no event loop. `bench/control/bench_batch_backlog.py` holds it to its bars.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

from asyncworker.errors import BadParameters

HALF_LIFE = 24
"""Batches after which an observation counts half."""
PROBES = (1.25, 1.0, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0)
"""The sizes tried around the best one, in turn: batches of one size alone would tell no slope."""
TRUST = 1.25
"""By how much the size may grow from one batch to the next once it is fitted: not beyond what was tried."""
FIRST = 4.0
"""Items of the first batch: one alone would let a queue grow while there is much to do."""
LARGE_STEP, STEP = 4.0, 2.0
"""By how much the first sizes grow: largely while the rate grows nearly as much, then with care."""
CASES = tuple(case for case in product((1, 0), repeat=3) if any(case))
"""Which of c0, a and q are more than nothing."""

Cost = tuple[float, float, float]


class BatchSize:
    """Find the size.

    It starts at four items and grows while that makes the rate grow; then it fits the cost to what was seen, weighted
    by age, takes the smallest size within *knee* of the best rate, and tries its neighbours now and then. When
    batches take far longer or shorter than the fit says, all is forgotten and it starts over from a quarter.

    Args:
        max_size: a promise: `size` is never above it.
        slo: seconds that 99 of 100 batches may take at most; None: no bound.
        knee: share of the best rate to give away for smaller batches, 0..1.

    Attributes: ``cost``, the fit (c0, a, q) or None; ``relearned``, how often it started over.
    """

    def __init__(self, max_size: int, *, slo: float | None = None, knee: float = 0.01) -> None:
        if max_size < 1:
            raise BadParameters(f"a batch takes 1 item or more, not {max_size}")
        if slo is not None and slo <= 0:
            raise BadParameters(f"an SLO is more than 0 seconds, not {slo}")
        self.max_size, self.slo, self.knee = max_size, slo, knee
        self.relearned = 0
        self._next = self._centre = FIRST
        self._start(FIRST)

    @property
    def size(self) -> int:
        """Items that the next batch should take at most, 1..max_size."""
        return max(1, min(self.max_size, round(self._next)))

    def seconds(self, items: float) -> float:
        """Return how long a batch of so many items is expected to take; 0 while nothing is known."""
        return _seconds(self.cost, items) if self.cost else 0.0

    def on_batch(self, items: int, seconds: float, *, waited: float = 0.0) -> int:
        """Learn from one batch; returns the next `size`.

        Args:
            items: how many it took; fewer than `size` where no more were there.
            seconds: how long the handler worked on it.
            waited: seconds that items wait before their batch starts: the SLO counts them, to half of it at most
                (under overload smaller batches would only make the wait longer).

        Cost: a 3x3 solution for each of seven cases, about 50 us.
        """
        seconds = max(seconds, 1e-9)
        if self.cost and not self._growing and self._is_strange(items, seconds):
            self.relearned += 1
            self._start(max(1.0, self._next / 16))
        elif self._odd:
            # A stall, or do batches take another time now? It is not learnt from; a small batch tells for little.
            self._next = max(1.0, self._next / 4)
            return self.size
        self._learn(items, seconds)
        if self._growing and items >= self.size and self._grow(items, seconds):
            self._centre = 2 * self._next
            return self.size
        self._fit()
        if self._growing:
            return self.size
        self._turn += 1
        probe = PROBES[self._turn % len(PROBES)]
        self._centre = min(self._best(waited), TRUST * self._centre)
        self._next = self._centre * (min(probe, 1.0) if self.slo else probe)
        return self.size

    def _start(self, size: float) -> None:
        self._next = self._centre = size
        self._growing: bool = True
        self._turn: int = 0
        self._step, self._rate = LARGE_STEP, 0.0
        self._full: list[float] = []  # seconds of the full batches of this size
        self.cost: Cost | None = None
        # Weighted sums of items to the power 0..4, of seconds times items to the power 0..2, and of seconds squared.
        self._powers, self._products, self._squares = [0.0] * 5, [0.0] * 3, 0.0
        self._noise = 0.2  # coefficient of variation of the seconds
        self._odd: int = 0
        self._longer, self._shorter = 0.0, 0.0  # sums of deviations

    def _grow(self, items: int, seconds: float) -> bool:
        """Return whether the sizes are still growing."""
        self._full.append(seconds)
        if self._step == STEP and len(self._full) < 2:
            return True
        rate = items * len(self._full) / sum(self._full)
        gain = rate / self._rate if self._rate else self._step
        self._rate, self._full = rate, []
        if gain < 0.6 * LARGE_STEP:
            self._step = STEP
        allowed = not self.slo or seconds * self._step <= self.slo
        self._growing = gain > 1.05 and self.size < self.max_size and allowed
        if self._growing:
            self._next = min(self._next * self._step, float(self.max_size))
        return self._growing

    def _is_strange(self, items: int, seconds: float) -> bool:
        """Return whether two batches in a row, or the sum of small deviations (CUSUM), say that the cost has changed."""
        deviation = math.log(seconds / self.seconds(items)) / max(0.08, 1.5 * self._noise)
        deviation = max(-5.0, min(5.0, deviation))
        self._odd = self._odd + 1 if abs(deviation) > 3 else 0
        self._longer = max(0.0, self._longer + deviation - 0.7)
        self._shorter = max(0.0, self._shorter - deviation - 0.7)
        return self._odd == 2 or max(self._longer, self._shorter) > 6

    def _learn(self, items: int, seconds: float) -> None:
        weight = 1 / (self.seconds(items) or seconds) ** 2
        decay = 0.5 ** (1 / HALF_LIFE)
        self._powers = [decay * old + weight * items**power for power, old in enumerate(self._powers)]
        self._products = [decay * old + weight * seconds * items**power for power, old in enumerate(self._products)]
        self._squares = decay * self._squares + weight * seconds**2

    def _fit(self) -> None:
        """Take the cost with the least squared error, none of its three parts below nothing."""
        best = math.inf
        for case in CASES:
            cost = self._solve(case)
            if min(cost) < 0 or not any(cost):
                continue
            error = self._squares + sum(
                part * (sum(other * self._powers[i + j] for j, other in enumerate(cost)) - 2 * self._products[i])
                for i, part in enumerate(cost)
            )
            if error < best - 1e-12:
                best, self.cost = error, cost
            if all(case):
                break  # nothing had to be left out: this is the least of all
        if best < math.inf:
            # Four observations with 20 % of noise are taken for seen: the first few lie on any curve.
            self._noise = math.sqrt((max(best, 0.0) + 4 * 0.2**2) / (self._squares + 4))

    def _solve(self, case: tuple[int, ...]) -> Cost:
        """Return the least-squares cost with only the parts of *case*, by elimination on scaled columns."""
        parts = [part for part, there in enumerate(case) if there]
        scales = [math.sqrt(self._powers[2 * part]) for part in parts]
        rows = [
            [self._powers[i + j] / si / sj + (1e-9 if i == j else 0.0) for j, sj in zip(parts, scales, strict=True)]
            + [self._products[i] / si]
            for i, si in zip(parts, scales, strict=True)
        ]
        for at, pivot in enumerate(rows):  # positive definite: no exchange of rows is needed
            for row in rows:
                if row is not pivot:
                    factor = row[at] / pivot[at]
                    row[at:] = [value - factor * above for value, above in zip(row[at:], pivot[at:], strict=True)]
        cost = [0.0, 0.0, 0.0]
        for at, (part, scale) in enumerate(zip(parts, scales, strict=True)):
            cost[part] = rows[at][-1] / rows[at][at] / scale
        return cost[0], cost[1], cost[2]

    def _best(self, waited: float) -> float:
        """Return the smallest size within the knee of the best rate, and within the SLO."""
        if self.cost is None:
            return self._next
        fixed, _, square = self.cost
        high = float(self.max_size)
        peak = max(1.0, min(high, math.sqrt(fixed / square) if square else high if fixed else 1.0))
        enough = (1 - self.knee) * peak / self.seconds(peak)
        best = _first(lambda size: size / self.seconds(size) >= enough, peak)
        if self.slo:
            allowed = (self.slo - min(waited, self.slo / 2)) / (1 + 2.33 * self._noise)
            best = min(best, _first(lambda size: self.seconds(size) > allowed, high))
        return best


def _seconds(cost: Cost, items: float) -> float:
    return cost[0] + cost[1] * items + cost[2] * items * items


def _first(true: Callable[[float], bool], high: float) -> float:
    """Return the least size in 1..high from which on *true* holds, or *high*."""
    low = 1.0
    if true(low):
        return low
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if true(middle) else (middle, high)
    return high

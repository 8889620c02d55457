"""The universal scalability law: how throughput grows with concurrency, flattens, and falls again.

``X(N) = lambda N / (1 + sigma (N-1) + kappa N (N-1))`` (Gunther): *sigma* is what calls wait for in turn, *kappa* what
each costs all the others. By Little's law the response time is then linear in three unknowns,
``R(N) = a0 + a1 (N-1) + a2 N (N-1)``, so a plain least-squares fit finds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

SUBSETS = ((0, 1, 2), (0, 2), (0, 1), (0,))
"""The coefficients that may be positive together; the others are 0."""


class Curve(NamedTuple):
    """A fitted law: ``a0 = 1/lambda``, ``a1 = sigma/lambda``, ``a2 = kappa/lambda``, all of them 0 or more."""

    a0: float
    a1: float
    a2: float

    def rate(self, n: float) -> float:
        """Return throughput a second at concurrency *n*, 1 or more."""
        return n / (self.a0 + self.a1 * (n - 1) + self.a2 * n * (n - 1))

    def peak(self, low: float, high: float) -> float:
        """Return where throughput is greatest in ``low..high``: ``sqrt((a0-a1)/a2)``."""
        if self.a0 <= self.a1:
            return low
        return min(high, max(low, math.sqrt((self.a0 - self.a1) / self.a2))) if self.a2 > 0 else high

    def knee(self, low: float, high: float, tolerance: float) -> float:
        """Return the least concurrency whose throughput is within *tolerance* (a share) of the best in ``low..high``."""
        top = self.peak(low, high)
        wanted = self.rate(top) * (1 - tolerance)
        if tolerance <= 0 or self.rate(low) >= wanted:
            return top if tolerance <= 0 else low
        for _ in range(20):
            middle = (low + top) / 2
            low, top = (low, middle) if self.rate(middle) >= wanted else (middle, top)
        return top

    def within(self, seconds: float, low: float, high: float) -> float:
        """Return the greatest concurrency in ``low..high`` at which a call takes no more than so many seconds."""
        if (high / self.rate(high)) <= seconds:
            return high
        if self.a2 > 0:
            half = (self.a1 - self.a2) / (2 * self.a2)
            most = math.sqrt(max(0.0, half * half + (seconds + self.a1 - self.a0) / self.a2)) - half
        else:  # a1 is more than 0, else each concurrency would take the same
            most = 1 + (seconds - self.a0) / self.a1 if self.a1 > 0 else low
        return min(high, max(low, most))


def fit(points: Iterable[tuple[float, float, float]]) -> Curve | None:
    """Fit ``(concurrency, response time, weight)`` by weighted least squares, no coefficient below 0.

    Returns None where nothing can be fitted. The four subsets of `SUBSETS` are tried, which for three unknowns is
    cheaper than an iteration. Cost: some 50 us for 64 points.
    """
    a = [[0.0] * 3 for _ in range(3)]
    b = [0.0] * 3
    for n, seconds, weight in points:
        row = (1.0, n - 1.0, n * (n - 1.0))
        for i in range(3):
            weighted = weight * row[i]
            b[i] += weighted * seconds
            for j in range(3):
                a[i][j] += weighted * row[j]
    best, curve = math.inf, None
    for subset in SUBSETS:
        found = _solve([[a[i][j] for j in subset] for i in subset], [b[i] for i in subset])
        if found is None or found[0] <= 0 or min(found) < 0:
            continue
        x = [0.0] * 3
        for i, value in zip(subset, found, strict=True):
            x[i] = value
        # The error but for the sum of squares, which all subsets share.
        error = sum(x[i] * (sum(a[i][j] * x[j] for j in range(3)) - 2 * b[i]) for i in range(3))
        if error < best:
            best, curve = error, Curve(*x)
    return curve


def _solve(a: list[list[float]], b: list[float]) -> list[float] | None:
    """Solve a small symmetric system; columns are scaled to one size and a ridge keeps it from being singular."""
    size = len(b)
    scale = [math.sqrt(a[i][i]) for i in range(size)]
    if not all(0 < value < math.inf for value in scale):
        return None
    rows = [
        [a[i][j] / (scale[i] * scale[j]) + (1e-9 if i == j else 0.0) for j in range(size)] + [b[i] / scale[i]]
        for i in range(size)
    ]
    for i in range(size):  # positive definite: no pivot is 0
        for lower in range(i + 1, size):
            factor = rows[lower][i] / rows[i][i]
            for column in range(i, size + 1):
                rows[lower][column] -= factor * rows[i][column]
    x = [0.0] * size
    for i in reversed(range(size)):
        x[i] = (rows[i][size] - sum(rows[i][j] * x[j] for j in range(i + 1, size))) / rows[i][i]
    return [value / factor for value, factor in zip(x, scale, strict=True)]

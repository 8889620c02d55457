"""Does a series grow, or does it only look so? Pure functions on numbers, for counts of objects and bytes.

A count in a healthy process warms up, saws with the garbage collector and sways with the load: comparing last with
first calls all of that a leak. Here the warm-up is dropped, the rest is cut into blocks of which only the lowest
value counts (what is left after collections), and those must rise by rank, significantly, and by enough to matter.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import msgspec

K = TypeVar("K", bound=Hashable)

WARM_UP = 0.3
"""The share of a series that is dropped at its start."""
BLOCKS = 14
MIN_SAMPLES = 60
"""Fewer leave blocks of less than three samples, whose minima still carry the noise of neighbours."""
Z = 3.09
"""One false alarm in a thousand, one-sided, for a single series."""
RATE = 0.01
"""Which share of the series called growing may be false, when many are looked at together."""
MIN_GROWTH = 0.002
"""Growth over the span, as a share of the level, below which nobody would care."""


class Trend(msgspec.Struct, frozen=True, gc=False):
    """``z`` and ``p`` of the Mann-Kendall test (one-sided), ``slope`` per sample, and the growth over what was looked at."""

    z: float
    p: float
    slope: float
    growth: float
    level: float

    @property
    def matters(self) -> bool:
        """Whether it rises significantly, taken alone, and by more than a trifle of its level."""
        return self.z > Z and self.growth > MIN_GROWTH * abs(self.level)


def block_minima(series: Sequence[float], blocks: int = BLOCKS) -> list[float]:
    """Return the lowest value of each of at least *blocks* equal runs, oldest first; a short rest at the start is dropped."""
    size = max(1, len(series) // blocks)
    rest = len(series) % size
    return [min(series[at : at + size]) for at in range(rest, len(series), size)]


def mann_kendall(series: Sequence[float]) -> float:
    """Return the z of the Mann-Kendall trend test: 0 without trend, positive when it rises; corrected for ties.

    Source: Mann 1945, Kendall 1975. Cost: n log n.
    """
    n = len(series)
    score, seen = 0, list[float]()
    for value in series:
        below = bisect_left(seen, value)
        equal = 0
        while below + equal < len(seen) and seen[below + equal] == value:
            equal += 1
        score += below - (len(seen) - below - equal)
        seen.insert(below, value)
    ties = {value: seen.count(value) for value in set(seen)} if len(set(seen)) < n else {}
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties.values())) / 18
    if variance <= 0 or score == 0:
        return 0.0
    return (score - math.copysign(1, score)) / math.sqrt(variance)


def sen_slope(series: Sequence[float]) -> float:
    """Return the median of the slopes of all pairs: what a line through the series would have, whatever the outliers.

    Source: Theil 1950, Sen 1968. Cost: n squared.
    """
    slopes = sorted((series[j] - series[i]) / (j - i) for i in range(len(series)) for j in range(i + 1, len(series)))
    middle, odd = divmod(len(slopes), 2)
    if not slopes:
        return 0.0
    return slopes[middle] if odd else (slopes[middle - 1] + slopes[middle]) / 2


def one_sided(z: float) -> float:
    """Return the probability of a standard normal value above *z*."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def benjamini_hochberg(ps: Mapping[K, float], rate: float = RATE) -> set[K]:
    """Return the keys whose p-values are significant together, with an expected share of false ones of *rate* at most.

    Source: Benjamini and Hochberg 1995.
    """
    ranked = sorted(ps, key=ps.__getitem__)
    last = max((rank for rank, key in enumerate(ranked, 1) if ps[key] <= rate * rank / len(ranked)), default=0)
    return set(ranked[:last])


def trend(series: Sequence[float]) -> Trend | None:
    """Return the trend of a series of equally spaced samples, or None while it is too short to say."""
    if len(series) < MIN_SAMPLES:
        return None
    settled = series[int(len(series) * WARM_UP) :]
    minima = block_minima(settled)
    z, slope = mann_kendall(minima), sen_slope(minima)
    size = max(1, len(settled) // BLOCKS)
    return Trend(z, one_sided(z), slope / size, slope * len(minima), minima[0])


def growing(many: Mapping[K, Sequence[float]], rate: float = RATE) -> dict[K, Trend]:
    """Return those of many series that grow, each alone and all together; the rest, and what is too short, is left out."""
    trends = {key: found for key, series in many.items() if (found := trend(series)) is not None}
    together = benjamini_hochberg({key: found.p for key, found in trends.items()}, rate)
    return {key: found for key, found in trends.items() if key in together and found.matters}

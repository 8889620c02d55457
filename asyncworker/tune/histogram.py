"""A histogram of durations in buckets that grow by a fixed ratio: small, quick, and mergeable.

Means of quantiles say nothing; sums of such histograms do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

FINEST_S = 1e-6
A_DOUBLING = 4
"""Buckets to each doubling: a quantile is true to within 10 %."""
SIZE = 28 * A_DOUBLING
"""From 1 microsecond to 4 minutes; what is longer counts in the last bucket, and in ``longest``."""


class LogHistogram:
    """Counts, sum and longest. Written in one thread; may be read in another.

    Attributes: ``sum`` and ``longest`` in seconds.
    """

    __slots__ = ("_counts", "longest", "sum")

    def __init__(self) -> None:
        self._counts = [0] * SIZE
        self.sum = 0.0
        self.longest = 0.0

    def __repr__(self) -> str:
        return f"<LogHistogram {self.count} p50={self.quantile(0.5):.2g} p99={self.quantile(0.99):.2g}>"

    @property
    def count(self) -> int:
        return sum(self._counts)

    @property
    def mean(self) -> float:
        return self.sum / count if (count := self.count) else 0.0

    @classmethod
    def of(cls, counts: Mapping[int, int], total: float, longest: float) -> LogHistogram:
        """Return the histogram that `sparse`, ``sum`` and ``longest`` tell of; what lies outside the buckets is left out."""
        made = cls()
        made.sum, made.longest = total, longest
        for index, number in counts.items():
            if 0 <= index < SIZE:
                made._counts[index] = number
        return made

    def sparse(self) -> dict[int, int]:
        """Return the buckets that are not empty."""
        return {index: number for index, number in enumerate(self._counts) if number}

    def below(self, doublings: Sequence[int]) -> list[tuple[float, int]]:
        """Return ``2**n`` times `FINEST_S`, for each *n*, and how many were shorter than that."""
        counts = self._counts.copy()
        return [(FINEST_S * 2**n, sum(counts[: n * A_DOUBLING + 1])) for n in doublings]

    def since(self, before: LogHistogram) -> LogHistogram:
        """Return what came after *before*, an earlier copy; ``longest`` stays that of all."""
        made = LogHistogram()
        made._counts = [mine - theirs for mine, theirs in zip(self._counts, before._counts, strict=True)]
        made.sum, made.longest = self.sum - before.sum, self.longest
        return made

    def copy(self) -> LogHistogram:
        made = LogHistogram()
        made._counts, made.sum, made.longest = self._counts.copy(), self.sum, self.longest
        return made

    def add(self, seconds: float) -> None:
        index = int(math.log2(seconds / FINEST_S) * A_DOUBLING) + 1 if seconds > FINEST_S else 0
        self._counts[index if index < SIZE else -1] += 1
        self.sum += seconds
        if seconds > self.longest:  # noqa: PLR1730 - a call of max costs as much as all the rest
            self.longest = seconds

    def merge(self, other: LogHistogram) -> None:
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        self.sum += other.sum
        self.longest = max(self.longest, other.longest)

    def quantile(self, share: float) -> float:
        """Return the duration in seconds below which this *share* (0..1) lies; 0.0 when empty."""
        counts = self._counts.copy()
        wanted = max(1.0, share * sum(counts))
        below = 0
        for index, number in enumerate(counts):
            below += number
            if below >= wanted:
                # The middle of the bucket, on its own scale.
                return min(self.longest, FINEST_S * 2 ** ((index - 0.5) / A_DOUBLING))
        return 0.0

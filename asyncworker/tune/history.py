"""What was measured at which concurrency, and how much that still says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import msgspec

HALF_LIFE = 24
"""Epochs after which a measurement counts half."""
NEIGHBOURHOOD = 0.8
"""Width, in ln N, of what a fit looks at around its centre."""
ALIKE = 0.12
"""Concurrencies so near, in ln N, count as one."""
SLOW_S, CLUMPS = 0.3, 3.0
"""Of calls that take longer than the first, a span of fewer calls' times than the second may have seen a clump end."""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One epoch: mean calls under way, good completions a second, completions counted, and its number."""

    inflight: float
    rate: float
    count: int
    epoch: int


def throughput(completed: int, elapsed: float, area: float, seconds: float) -> float:
    """Return how many calls ended a second.

    Slow calls that began together end together: by the clock a short span may count far too many. By Little's law they
    cannot be more than those under way by the time that each takes.

    Args:
        area: calls under way, integrated over the span. seconds: what the completed calls took, summed up.
    """
    counted = completed / elapsed
    if SLOW_S * completed < seconds and elapsed * completed < CLUMPS * seconds:
        return min(counted, area / elapsed * completed / seconds)
    return counted


def effective_count(samples: Iterable[Sample], inflight: float, epoch: int) -> float:
    """Return how many completions, of now and at about this concurrency, the samples are worth."""
    return sum(sample.count * _kept(sample, epoch) * _near(sample, inflight) for sample in samples)


def points(
    samples: Iterable[Sample], epoch: int, centre: float, variance: float
) -> Iterator[tuple[float, float, float]]:
    """Yield concurrency, response time and weight: what is new, near, and was counted often weighs most.

    Args:
        epoch: the present one. variance: of call times, squared coefficient of variation.
    """
    for sample in samples:
        near = _near(sample, centre)
        exact = sample.count * (sample.rate / sample.inflight) ** 2 / max(0.05, variance)
        yield sample.inflight, sample.inflight / sample.rate, exact * near * _kept(sample, epoch)


def usual_rate(samples: Iterable[Sample], inflight: float, epoch: int) -> tuple[float, float]:
    """Return completions a second at about this concurrency, and how many completions say so; one must have been."""
    alike = [sample for sample in samples if abs(math.log(sample.inflight / inflight)) < ALIKE]
    weight = sum(sample.count * _kept(sample, epoch) for sample in alike)
    return sum(sample.count * _kept(sample, epoch) * sample.rate for sample in alike) / weight, weight


def _kept(sample: Sample, epoch: int) -> float:
    return float(0.5 ** ((epoch - sample.epoch) / HALF_LIFE))


def _near(sample: Sample, centre: float) -> float:
    return math.exp(-((math.log(sample.inflight / centre) / NEIGHBOURHOOD) ** 2))

"""What measurements are still worth: the newer, the nearer and the more often counted, the more."""

from __future__ import annotations

import pytest

from asyncworker.tune.history import HALF_LIFE, Sample, effective_count, points, usual_rate


def test_a_measurement_counts_half_after_its_half_life_and_less_further_off() -> None:
    here = Sample(10.0, 100.0, 50, HALF_LIFE)
    assert effective_count([here], 10.0, HALF_LIFE) == 50
    assert effective_count([here], 10.0, 2 * HALF_LIFE) == 25
    assert effective_count([here, here], 10.0, HALF_LIFE) == 100
    assert effective_count([here], 30.0, HALF_LIFE) < 10
    assert effective_count([], 10.0, HALF_LIFE) == 0


def test_what_is_near_and_new_weighs_most_in_a_fit() -> None:
    samples = [Sample(10.0, 100.0, 50, 4), Sample(30.0, 100.0, 50, 4), Sample(10.0, 100.0, 50, 0)]
    near, far, old = points(samples, 4, 10.0, 0.25)
    assert near[:2] == (10.0, 0.1)
    assert far[2] < near[2]
    assert 0.8 * near[2] < old[2] < near[2]


def test_the_usual_rate_is_that_of_about_this_concurrency() -> None:
    samples = [Sample(10.0, 100.0, 50, 1), Sample(10.5, 120.0, 50, 1), Sample(20.0, 500.0, 50, 1)]
    rate, weight = usual_rate(samples, 10.0, 1)
    assert (rate, weight) == (pytest.approx(110.0), 100)

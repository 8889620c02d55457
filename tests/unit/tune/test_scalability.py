from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.tune.scalability import Curve, fit

curves = st.builds(
    lambda alone, sigma, kappa: Curve(1 / alone, sigma / alone, kappa / alone),
    st.floats(0.01, 1e4),
    st.floats(0, 0.5),
    st.floats(1e-6, 0.05),
)


@given(curve=curves)
@settings(max_examples=50, deadline=None)
def test_a_law_is_found_again(curve: Curve) -> None:
    points = [(n, n / curve.rate(n), 1.0) for n in (1.0, 2.0, 5.0, 12.0, 30.0)]
    found = fit(points)
    assert found is not None
    for n in (1.0, 3.0, 20.0):
        assert found.rate(n) == pytest.approx(curve.rate(n), rel=0.01)


@given(curve=curves)
@settings(max_examples=50, deadline=None)
def test_the_peak_is_the_best_and_the_knee_before_it(curve: Curve) -> None:
    peak = curve.peak(1.0, 200.0)
    assert all(curve.rate(n) <= curve.rate(peak) * (1 + 1e-9) for n in range(1, 201))
    knee = curve.knee(1.0, 200.0, 0.02)
    assert 1.0 <= knee <= peak
    assert curve.rate(knee) >= 0.98 * curve.rate(peak) * (1 - 1e-9)
    assert knee == 1.0 or curve.rate(knee * 0.99) < 0.981 * curve.rate(peak)
    assert curve.knee(1.0, 200.0, 0.0) == peak


@given(points=st.lists(st.tuples(st.floats(1, 500), st.floats(1e-6, 1e3), st.floats(0, 1e6)), min_size=0, max_size=20))
@settings(max_examples=80, deadline=None)
def test_anything_is_fitted_without_a_coefficient_below_0(points: list[tuple[float, float, float]]) -> None:
    found = fit(points)
    if found is not None:
        assert found.a0 > 0
        assert min(found) >= 0
        assert all(map(math.isfinite, found))


def test_noise_does_not_bend_it_upwards() -> None:
    rng = random.Random(4)
    points = [(float(n), 0.1 * rng.uniform(0.9, 1.1), 1.0) for n in range(1, 30)]  # linear: each call takes the same
    found = fit(points)
    assert found is not None
    assert found.peak(1.0, 200.0) > 29
    assert Curve(1.0, 2.0, 0.0).peak(1.0, 9.0) == 1.0


@given(curve=curves, seconds=st.floats(1e-4, 1e3))
@settings(max_examples=50, deadline=None)
def test_so_many_keep_to_a_time(curve: Curve, seconds: float) -> None:
    most = curve.within(seconds, 1.0, 200.0)
    assert 1.0 <= most <= 200.0
    assert most == 1.0 or most / curve.rate(most) <= seconds * (1 + 1e-6)
    assert most == 200.0 or (most + 0.01) / curve.rate(most + 0.01) > seconds * (1 - 1e-6)


def test_calls_that_do_not_hinder_each_other_keep_to_a_time_or_never_do() -> None:
    assert Curve(0.1, 0.0, 0.0).within(0.05, 1.0, 200.0) == 1.0
    assert Curve(0.1, 0.0, 0.0).within(0.2, 1.0, 200.0) == 200.0
    assert Curve(0.1, 0.01, 0.0).within(0.2, 1.0, 200.0) == pytest.approx(11)

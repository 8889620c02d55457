from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.tune.trend import (
    BLOCKS,
    MIN_SAMPLES,
    benjamini_hochberg,
    block_minima,
    growing,
    mann_kendall,
    one_sided,
    sen_slope,
    trend,
)
from bench.control.bench_memory_leaks import CLEAN, LEAKING, families, series

NUMBERS = st.lists(st.integers(-50, 50), min_size=2, max_size=40)


def naive_kendall(values: list[int]) -> float:
    """Compute the textbook's double sum, with its correction for ties."""
    n = len(values)
    score = sum((values[j] > values[i]) - (values[j] < values[i]) for i in range(n) for j in range(i + 1, n))
    ties = [values.count(value) for value in set(values)]
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    return 0.0 if not score or variance <= 0 else (score - (1 if score > 0 else -1)) / variance**0.5


def test_mann_kendall_on_known_vectors() -> None:
    # Ten rising values: S = 45, Var = 125.
    assert mann_kendall(range(10)) == pytest.approx(44 / 125**0.5)
    assert mann_kendall(range(10, 0, -1)) == pytest.approx(-44 / 125**0.5)
    assert mann_kendall([5.0] * 10) == 0.0
    # One tie of two; S = 5.
    assert mann_kendall([1, 2, 2, 3]) == pytest.approx(4 / ((4 * 3 * 13 - 2 * 1 * 9) / 18) ** 0.5)
    assert mann_kendall([]) == mann_kendall([1.0]) == 0.0


@given(NUMBERS)
def test_mann_kendall_is_the_textbooks(values: list[int]) -> None:
    assert mann_kendall(values) == pytest.approx(naive_kendall(values))


@given(NUMBERS)
def test_a_series_backwards_has_the_opposite_trend(values: list[int]) -> None:
    assert mann_kendall(values[::-1]) == pytest.approx(-mann_kendall(values))
    assert sen_slope(values[::-1]) == pytest.approx(-sen_slope(values))


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(2, 20))
def test_sen_slope_of_a_line_is_its_slope(slope: int, level: int, length: int) -> None:
    assert sen_slope([level + slope * x for x in range(length)]) == slope


def test_sen_slope_minds_no_outlier() -> None:
    assert sen_slope([0, 1, 2, 3, 1000, 5, 6, 7]) == 1
    assert sen_slope([3.0]) == 0.0


def test_block_minima_keep_the_floor_of_each_block() -> None:
    assert block_minima([5, 1, 4, 2, 9, 3], blocks=3) == [1, 2, 3]
    assert block_minima([0, 5, 1, 4, 2, 9, 3], blocks=3) == [1, 2, 3]
    assert block_minima([3, 1, 2], blocks=14) == [3, 1, 2]
    assert len(block_minima(range(84))) == BLOCKS


def test_benjamini_hochberg_on_the_papers_example() -> None:
    # Benjamini and Hochberg 1995, section 3: fifteen p-values, of which four are significant at 5 %.
    ps = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    ps += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000]
    assert benjamini_hochberg(dict(enumerate(ps)), 0.05) == {0, 1, 2, 3}
    assert benjamini_hochberg({}, 0.05) == set()
    assert benjamini_hochberg({"a": 0.9}, 0.05) == set()
    # The second alone would not do; together they do.
    assert benjamini_hochberg({"a": 0.04, "b": 0.05}, 0.05) == {"a", "b"}


def test_one_sided_probabilities() -> None:
    assert one_sided(0.0) == 0.5
    assert one_sided(1.6448536) == pytest.approx(0.05)
    assert one_sided(3.0902323) == pytest.approx(0.001)


def test_a_short_series_says_nothing() -> None:
    assert trend(range(MIN_SAMPLES - 1)) is None
    assert growing({"short": list(range(10))}) == {}


def test_the_slope_is_told_per_sample() -> None:
    found = trend([1000 + 5 * t for t in range(120)])
    assert found is not None
    assert found.slope == pytest.approx(5)
    assert found.growth == pytest.approx(5 * 84)
    assert found.matters


def test_a_significant_trifle_does_not_matter() -> None:
    found = trend([1_000_000 + t for t in range(120)])
    assert found is not None
    assert found.z > 3.09
    assert not found.matters


@pytest.mark.bars
def test_s42_a_count_that_is_larger_than_at_first_is_no_leak(seed: int) -> None:
    figures = families(random.Random(seed), 20)
    assert all(figures[family]["ours"] <= 0.15 for family in CLEAN), seed
    assert all(figures[family]["ours"] >= 0.85 for family in LEAKING), seed
    assert figures["warm-up"]["first against last"] >= 0.9, seed


def test_only_the_leak_is_named_among_many_types() -> None:
    rng = random.Random(3)
    many = {f"{family} {number}": series(family, rng) for family in CLEAN for number in range(20)}
    many["leak"] = series("leak 5", rng)
    assert set(growing(many)) == {"leak"}

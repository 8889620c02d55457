from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.tune.histogram import LogHistogram

DURATIONS = st.lists(st.floats(2e-6, 200), min_size=1, max_size=50)


def filled(values: list[float]) -> LogHistogram:
    histogram = LogHistogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(DURATIONS, st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_true_to_a_bucket(values: list[float], share: float) -> None:
    true = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    assert 0.9 <= filled(values).quantile(share) / true <= 1.1


@given(DURATIONS, DURATIONS)
def test_merged_is_as_counted_in_one(these: list[float], those: list[float]) -> None:
    merged, whole = filled(these), filled([*these, *those])
    merged.merge(filled(those))
    assert (merged.count, merged.longest) == (whole.count, whole.longest)
    assert merged.sum == pytest.approx(whole.sum)
    assert merged.quantile(0.9) == whole.quantile(0.9)


def test_what_is_out_of_range_counts_at_its_ends() -> None:
    histogram = filled([0.0, 1e-9, 1e6])
    assert (histogram.count, histogram.longest) == (3, 1e6)
    assert histogram.quantile(0.1) < 2e-6
    assert filled([]).quantile(0.5) == filled([]).mean == 0.0
    assert filled([1.0, 3.0]).mean == 2.0
    assert "2 p50" in repr(filled([1.0, 1.0]))


def test_it_travels_sparse_and_tells_what_came_since() -> None:
    histogram = LogHistogram()
    for seconds in (0.001, 0.001, 2.0):
        histogram.add(seconds)
    there = LogHistogram.of(histogram.sparse(), histogram.sum, histogram.longest)
    assert (there.count, there.sum, there.longest) == (3, histogram.sum, 2.0)
    assert [there.quantile(share) for share in (0.5, 0.99)] == [histogram.quantile(share) for share in (0.5, 0.99)]
    before = histogram.copy()
    histogram.add(0.5)
    since = histogram.since(before)
    assert (since.count, since.sum) == (1, pytest.approx(0.5))
    assert since.quantile(0.5) == pytest.approx(0.5, rel=0.1)
    assert before.count == 3


def test_buckets_that_are_none_are_left_out() -> None:
    assert LogHistogram.of({-1: 5, 10**6: 5, 3: 2}, 1.0, 1.0).count == 2

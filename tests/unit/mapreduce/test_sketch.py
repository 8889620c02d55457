"""The spread of numbers against the statistics module, and against itself in pieces."""

from __future__ import annotations

import math
import random
import statistics
from fractions import Fraction
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.mapreduce import sketch
from asyncworker.mapreduce.sketch import DISTINCT, Spread, add, join, new, root, shown

QUARTERS = [Fraction(part, 4) for part in range(5)]


def counted(numbers: list[Any]) -> sketch.State:
    state = new()
    for number in numbers:
        add(state, number)
    return state


def travelled(state: sketch.State) -> sketch.State:
    decoded: sketch.State = msgspec.msgpack.decode(msgspec.msgpack.encode(state))
    return decoded


def told(state: sketch.State) -> str:
    spread = Spread(state)
    numbers = [spread.count, spread.low, spread.high, spread.total, spread.variance, spread.exact]
    return repr((numbers, [spread.quantile(share) for share in QUARTERS], spread.below(Fraction(3))))


finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.one_of(st.integers(-5, 5), st.integers(-(2**70), 2**70), finite, st.sampled_from([1, 1.0, 0.0, -0.0, 0.1]))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), distinct=st.sampled_from([2, 5, DISTINCT]))
def test_any_cut_and_any_order_of_merging_says_the_same(data: st.DataObject, distinct: int) -> None:
    given_ = data.draw(st.lists(numbers, max_size=40))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketch, "DISTINCT", distinct)
        whole = told(travelled(counted(given_)))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(given_)), max_size=6)))
        parts = [travelled(counted(given_[start:stop])) for start, stop in pairwise([0, *cuts, len(given_)])]
        parts = data.draw(st.permutations(parts))
        while len(parts) > 1:
            at = data.draw(st.integers(0, len(parts) - 2))
            join(parts[at], parts.pop(at + 1))
            parts[at] = travelled(parts[at])
        assert told(parts[0]) == whole


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6)), min_size=2, max_size=60))
def test_few_values_agree_with_the_statistics_module(given_: list[Any]) -> None:
    spread = Spread(counted(given_))
    exact = [Fraction(number) for number in given_]
    assert spread.exact
    assert (spread.low, spread.high) == (min(given_), max(given_))
    assert spread.total == sum(exact)
    assert spread.mean == statistics.mean(exact)
    assert spread.variance == statistics.variance(exact)
    assert [spread.quantile(share) for share in QUARTERS[1:4]] == statistics.quantiles(exact, method="inclusive")
    assert float(root(spread.variance) or 0) == pytest.approx(statistics.stdev(exact), rel=1e-15)
    for bound in exact[:5]:
        assert spread.below(bound) == sum(number < bound for number in exact)
        assert spread.above(bound) == sum(number > bound for number in exact)


def test_many_values_are_near_and_the_sums_still_exact() -> None:
    draw = random.Random(7)
    given_ = [draw.lognormvariate(3, 2) * draw.choice([-1, 1, 1]) for _ in range(20_000)]
    state = counted(given_)
    assert len(state[0]) <= DISTINCT
    spread = Spread(travelled(state))
    assert not spread.exact
    exact = list(map(Fraction, given_))
    assert spread.total == sum(exact)
    assert spread.variance == statistics.variance(exact)
    ranked = sorted(given_)
    for permille in (0, 1, 10, 100, 250, 500, 750, 900, 990, 999, 1000):
        found = float(spread.quantile(Fraction(permille, 1000)) or 0)
        assert found == pytest.approx(ranked[round(permille / 1000 * 19_999)], rel=0.01, abs=0.01)
    assert (spread.quantile(Fraction(0)), spread.quantile(Fraction(1))) == (ranked[0], ranked[-1])
    assert spread.above(Fraction(1000)) == pytest.approx(sum(number > 1000 for number in given_), rel=0.05)
    assert len(msgspec.msgpack.encode(state)) < 60_000


@given(finite)
@settings(max_examples=200)
def test_a_bucket_holds_what_is_within_four_thousandths(value: float) -> None:
    middle = sketch._middle(sketch._bucket(value))
    assert math.isclose(middle, value, rel_tol=1 / 256) or abs(value) < 1e-300


@given(st.lists(finite, min_size=2, max_size=2))
@settings(max_examples=200)
def test_buckets_are_in_the_order_of_values(two: list[float]) -> None:
    low, high = sorted(two)
    assert sketch._bucket(low) <= sketch._bucket(high)


def test_of_nothing_there_is_nothing() -> None:
    spread = Spread(new())
    assert (spread.count, spread.low, spread.mean, spread.variance, spread.quantile(Fraction(1, 2))) == (0,) + (
        None,
    ) * 4
    assert spread.sum == 0
    assert (spread.below(Fraction(0)), spread.above(Fraction(0))) == (0, 0)


def test_two_and_two_point_zero_are_one_value() -> None:
    assert counted([2, 2.0])[0] == {2: 2}
    assert type(next(iter(counted([2.0, 2])[0]))) is int


def test_extreme_numbers_are_told_in_digits_not_in_infinities() -> None:
    spread = Spread(counted([1.7e308, -1.7e308, 1.7e308, 1.7e308]))
    assert spread.sum == str(round(2 * Fraction(1.7e308)))
    assert shown(root(spread.variance)) == pytest.approx(1.7e308)
    tiny = Spread(counted([5e-324, 1e-200, 0]))
    assert 0 < float(root(tiny.variance) or 0) < 1e-199


@pytest.mark.parametrize(
    ("number", "expected"), [(Fraction(4), 4), (Fraction(1, 2), 0.5), (Fraction(2**64), 2.0**64), (None, None)]
)
def test_shown(number: Fraction | None, expected: Any) -> None:
    assert repr(shown(number)) == repr(expected)

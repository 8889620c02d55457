"""Exact sums: whatever the order and the cuts, the same bits."""

from __future__ import annotations

import sys
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.mapreduce import numeric
from asyncworker.mapreduce.numeric import add, join, keep, lower, mean_of, total_of, unkept, upper, zero

finite = st.floats(allow_nan=False, allow_infinity=False)
whole = st.one_of(st.integers(-9, 9), st.integers(-(2**64), 2**64), st.integers(-(10**60), 10**60))
numbers = st.lists(
    st.one_of(whole, finite, st.sampled_from([1e308, -1e308, 5e-324, 0.1, -0.0, 1e16, 1.0])), max_size=120
)


def total(given_):
    made = zero()
    for one in given_:
        add(made, one)
        assert len(made) <= numeric._ROOM + 2
    return msgspec.msgpack.decode(msgspec.msgpack.encode(made))


def bits(value):
    return repr(value)


@settings(max_examples=100)
@given(numbers, st.randoms(use_true_random=False), st.integers(1, 7))
def test_any_order_and_any_cut_give_the_same_bits(given_, random, cuts):
    expected = total_of(total(given_))
    shuffled = random.sample(given_, len(given_))
    made = zero()
    for start in range(cuts):
        join(made, total(shuffled[start::cuts]))
    assert bits(total_of(made)) == bits(expected)
    if given_:
        assert bits(mean_of(made, len(given_))) == bits(mean_of(total(given_), len(given_)))


@settings(max_examples=100)
@given(numbers)
def test_the_total_is_the_exact_sum_rounded_once(given_):
    exact = sum(map(Fraction, given_), Fraction())
    found = total_of(total(given_))
    if not any(type(one) is float for one in given_):
        assert unkept(found) == exact
    elif abs(exact) <= Fraction(sys.float_info.max):
        assert bits(found) == bits(float(exact))
    else:
        assert Fraction(found) == round(exact) or abs(Fraction(found)) == Fraction(sys.float_info.max)


@given(st.lists(whole, max_size=60))
def test_whole_numbers_stay_whole(given_):
    assert unkept(total_of(total(given_))) == sum(given_)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ([], 0),
        ([0.1] * 10, 1.0),
        ([1e16, 1.0, -1e16], 1.0),
        ([1e308, 1e308, -1e308], 1e308),
        ([1, 2.0], 3.0),
        ([-0.0], 0.0),
        ([2**63 - 1], 2**63 - 1),
        ([2**63 - 1, 1], str(2**63)),
        ([2**63 - 1, 1, -1], 2**63 - 1),
        ([2**53, 1, 0.0], 9007199254740992.0),
    ],
)
def test_sums(given_, expected):
    assert bits(total_of(total(given_))) == bits(expected)


def test_a_sum_beyond_all_doubles_is_given_as_digits():
    found = total_of(total([1e308] * 10))
    assert isinstance(found, str)
    assert int(found) == 10 * int(1e308)
    assert mean_of(total([1e308] * 10), 10) == 1e308


@given(st.lists(st.one_of(whole, finite), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_lows_and_highs_do_not_know_the_order(given_, random):
    ends = []
    for order in (given_, random.sample(given_, len(given_))):
        low = high = None
        for one in order:
            low, high = lower(low, one), upper(high, one)
        ends.append((low, high))
    (low, high), other = ends
    assert unkept(low) == min(given_)
    assert unkept(high) == max(given_)
    assert type(low) is type(other[0])
    assert type(high) is type(other[1])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(ends)) == [list(pair) for pair in ends]


def test_of_equals_the_double_is_kept():
    assert bits(lower(lower(None, 1), 1.0)) == bits(lower(lower(None, 1.0), 1)) == "1.0"
    assert bits(upper(upper(None, 1), 1.0)) == bits(upper(upper(None, 1.0), 1)) == "1.0"


def test_what_travels():
    assert [keep(1), keep(1.5), keep(2**63 - 1), keep(2**63), keep(-(2**63) - 1)] == [
        1,
        1.5,
        2**63 - 1,
        str(2**63),
        str(-(2**63) - 1),
    ]

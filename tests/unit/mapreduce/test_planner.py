from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from asyncworker.mapreduce.planner import cut, split


@given(st.integers(0, 500), st.integers(1, 32))
def test_s53_split_keeps_each_item_and_differs_by_one_at_most(count: int, parts: int):
    ranges = split(count, parts)
    assert list(chain.from_iterable(ranges)) == list(range(count))
    assert len(ranges) == parts
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


@given(st.integers(0, 500), st.integers(1, 600))
def test_cut_keeps_each_item_in_ranges_of_one_size(count: int, size: int):
    ranges = list(cut(count, size))
    assert list(chain.from_iterable(ranges)) == list(range(count))
    assert all(len(part) == size for part in ranges[:-1])
    assert all(0 < len(part) <= size for part in ranges)

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asyncworker.tune.census import Series, count, type_name


class Thing:
    pass


async def test_objects_are_counted_by_type() -> None:
    things = [Thing() for _ in range(5_000)]
    names, longest = await count()
    assert names[type_name(Thing)] == len(things)
    assert 0 < longest < 5


def test_a_type_that_comes_later_had_none_before() -> None:
    series = Series(worth=10)
    series.add(0, {"a": 20})
    series.add(1, {"a": 20, "b": 9})
    series.add(2, {"b": 10})
    assert series.many == {"a": [20, 20, 0], "b": [0, 0, 10]}
    assert series["b"] == [0, 0, 10]
    assert series.spacing == 1


def test_when_it_is_full_the_lower_of_each_two_stays() -> None:
    series = Series(length=4, worth=1)
    for time, value in enumerate([5, 3, 8, 9, 7, 6]):
        series.add(time, {"a": value})
    assert (series.many, series.times, series.run_length) == ({"a": [3, 8, 6]}, [1, 3, 5], 2)
    assert series.spacing == 2


def test_no_more_types_are_followed_than_there_is_room_for() -> None:
    series = Series(most=2, worth=1)
    series.add(0, {"a": 1, "b": 1, "c": 1})
    assert series.many.keys() == {"a", "b"}
    assert series.spacing == 0.0


@given(st.lists(st.integers(0, 100), min_size=1, max_size=200), st.sampled_from([4, 10]))
def test_it_stays_short_and_keeps_the_lowest(values: list[int], length: int) -> None:
    series = Series(length=length, worth=0)
    for time, value in enumerate(values):
        series.add(time, {"a": value})
    kept = series.many.get("a", [])
    assert len(kept) == len(series.times) < length
    whole = len(kept) * series.run_length
    assert len(values) - series.run_length < whole <= len(values)
    assert not kept or min(kept) == min(values[:whole])

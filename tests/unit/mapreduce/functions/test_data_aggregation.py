"""Groups and their numbers: who is apart, what is exact, in which order."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from asyncworker.errors import BadParameters
from asyncworker.mapreduce.functions.data_aggregation import FUNCTION


def run(config: dict[str, Any], items: list[Any]) -> list[dict[str, Any]]:
    """Aggregate, item by item over the wire."""
    work = FUNCTION.prepare({"aggregation_config": json.loads(json.dumps(config))})
    total = work.initial()
    for item in items:
        acc = work.fold(work.initial(), work.map(item))
        total = work.merge(total, msgspec.msgpack.decode(msgspec.msgpack.encode(acc)))
    return work.finish(msgspec.msgpack.decode(msgspec.msgpack.encode(total)))["groups"]


def test_the_example():
    items = [{"c": "UA", "d": "2"}, {"c": "AA", "d": 33}, {"c": "UA", "d": "-1"}, {"c": "UA", "d": ""}, {"c": "UA"}]
    assert run({"group_by": ["c"], "aggregate_fields": {"d": ["count", "sum", "avg", "min", "max"]}}, items) == [
        {"key": {"c": "AA"}, "items": 1, "d_count": 1, "d_sum": 33, "d_avg": 33.0, "d_min": 33, "d_max": 33},
        {"key": {"c": "UA"}, "items": 4, "d_count": 2, "d_sum": 1, "d_avg": 0.5, "d_min": -1, "d_max": 2},
    ]


def test_s16_one_text_null_and_missing_stay_four_groups_after_the_wire():
    items = [{"k": 1}, {"k": "1"}, {"k": None}, {}, {"k": "1"}, {"k": ""}]
    assert run({"group_by": ["k"]}, items) == [
        {"key": {}, "items": 2},
        {"key": {"k": None}, "items": 1},
        {"key": {"k": 1}, "items": 1},
        {"key": {"k": "1"}, "items": 2},
    ]


def test_s16_groups_are_sorted_across_types_whatever_came_first():
    keys = [None, False, True, -5, 0, 0.5, 1, 1.0, 2**70, "", "1", "A", "a", "null", "é", "[]"]
    items = [{"k": key} for key in keys]
    random.Random(1).shuffle(items)
    found = [group["key"].get("k", "") for group in run({"group_by": ["k"]}, items)]
    expected = ["", None, False, True, -5, 0, 0.5, 1, 1.0, str(2**70), "1", "A", "[]", "a", "null", "é"]
    assert list(map(repr, found)) == list(map(repr, expected))


def test_s16_composite_keys_and_the_whole():
    items = [{"a": "x", "b": 1}, {"a": "x"}, {"b": 1}, {}, {"a": "x", "b": 1}]
    assert run({"group_by": ["a", "b"]}, items) == [
        {"key": {}, "items": 1},
        {"key": {"b": 1}, "items": 1},
        {"key": {"a": "x"}, "items": 1},
        {"key": {"a": "x", "b": 1}, "items": 2},
    ]
    assert run({"aggregate_fields": {"b": "sum"}}, items) == [{"key": {}, "items": 5, "b_sum": 3}]
    assert run({"aggregate_fields": {"b": "sum"}}, []) == []


def test_s16_minus_zero_is_zero():
    assert run({"group_by": ["k"]}, [{"k": 0.0}, {"k": -0.0}]) == [{"key": {"k": 0.0}, "items": 2}]


def test_s16_of_no_value_there_is_no_average():
    [group] = run({"aggregate_fields": {"a": ["count", "sum", "avg", "min", "max"]}}, [{"a": None}, {"a": ""}, {}])
    assert group == {"key": {}, "items": 3, "a_count": 0, "a_sum": 0, "a_avg": None, "a_min": None, "a_max": None}


def test_s51_zero_is_a_value():
    [group] = run({"aggregate_fields": {"a": ["count", "avg", "min"]}}, [{"a": 0}, {"a": "0"}, {"a": 3}])
    assert (group["a_count"], group["a_avg"], group["a_min"]) == (3, 1.0, 0)


def test_count_takes_values_of_any_type():
    [group] = run({"aggregate_fields": {"a": "count"}}, [{"a": "x"}, {"a": []}, {"a": False}, {"a": None}])
    assert group["a_count"] == 3


def test_sums_are_exact_and_large_ones_travel_as_digits():
    [group] = run({"aggregate_fields": {"a": ["sum", "avg", "max"]}}, [{"a": 2**63 - 1}] * 4)
    assert group["a_sum"] == str(4 * (2**63 - 1))
    assert group["a_avg"] == float(2**63 - 1)
    assert group["a_max"] == 2**63 - 1
    [group] = run({"aggregate_fields": {"a": ["sum", "min"]}}, [{"a": "99999999999999999999"}, {"a": 1}])
    assert group["a_sum"] == "100000000000000000000"
    [group] = run(
        {"aggregate_fields": {"a": ["sum", "avg"]}}, [{"a": value} for value in [1e16, 1.0, -1e16, "0.1"] * 30]
    )
    assert group["a_sum"] == 33.0
    assert group["a_avg"] == 33.0 / 120


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("12 min", "text"),
        (" 1", "text"),
        ("nan", "text"),
        (float("nan"), "nan or infinity"),
        (float("inf"), "nan or infinity"),
        ("1e999", "text"),
        (True, "a bool"),
        ([1], "a list"),
        ({"canary": 1}, "an object"),
    ],
)
def test_s22_what_is_no_number_fails_its_item_and_says_only_what_it_is(value, kind):
    work = FUNCTION.prepare({"aggregation_config": {"aggregate_fields": {"a": "avg"}}})
    with pytest.raises(ValueError) as caught:
        work.map({"a": value})
    assert str(caught.value) == f"field 'a' is {kind}, and no number"


@pytest.mark.parametrize(
    ("value", "kind"), [([1], "a list"), ({}, "an object"), (float("nan"), "nan or infinity"), ((1,), "a list")]
)
def test_s16_what_makes_no_group_fails_its_item(value, kind):
    work = FUNCTION.prepare({"aggregation_config": {"group_by": ["k"]}})
    with pytest.raises(ValueError, match=f"field 'k' is {kind}, which makes no group"):
        work.map({"k": value})


def test_s14_items_that_look_like_outcomes_are_plain_data_and_others_fail():
    odd = {"status": "failed", "error": "x", "original_index": 3}
    assert run({"group_by": ["status"], "aggregate_fields": {"original_index": "sum"}}, [odd, odd]) == [
        {"key": {"status": "failed"}, "items": 2, "original_index_sum": 6}
    ]
    for item in (None, 1, "text", [odd]):
        with pytest.raises(ValueError, match="not an object"):
            FUNCTION.prepare({"aggregation_config": {"group_by": ["a"]}}).map(item)


def test_s16_items_are_not_kept():
    work = FUNCTION.prepare({"aggregation_config": {"group_by": ["k"], "aggregate_fields": {"a": ["avg", "max"]}}})
    acc = work.initial()
    sizes = []
    for number in range(2000):
        acc = work.fold(acc, work.map({"k": number % 7, "a": number / 10, "b": "x" * 100}))
        sizes.append(len(msgspec.msgpack.encode(acc)))
    assert max(sizes) < 7 * 400


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "aggregation_config must have 1 or more of group_by, aggregate_fields"),
        ({"aggregate_fields": {"a": "average"}}, "aggregate_fields.a must be one of count, sum, avg, min, max"),
        ({"aggregate_fields": {"a": "summ"}}, "did you mean 'sum'"),
        ({"aggregate_fields": {"a": ["sum", "median"]}}, r"aggregate_fields.a\[1\] must be one of count, sum, avg"),
        ({"aggregate_fields": {"a": []}}, "aggregate_fields.a must have 1 or more entries"),
        ({"group_by": "a"}, "group_by must be a list of entries, each text, not text"),
        ({"groupby": ["a"]}, "unknown key 'groupby'; did you mean 'group_by'"),
    ],
)
def test_s16_unknown_aggregates_and_keys_are_refused_at_submit(config, message):
    with pytest.raises(BadParameters, match=message):
        FUNCTION.prepare({"aggregation_config": config})

"""Rules over items of every kind: which hold, which are broken, and what is told of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asyncworker.errors import BadParameters
from asyncworker.mapreduce.functions.data_validation import FUNCTION

EMAIL = r"^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}$"
SEED = {
    "validation_rules": {
        "required_fields": ["id", "name", "email"],
        "type_validations": {"id": "int", "name": "str", "email": "str"},
        "pattern_validations": {"email": EMAIL},
    }
}
ANN = {"id": 1, "name": "Ann", "email": "ann@example.org"}


def run(rules: dict[str, Any], items: list[Any], failed: int = 0) -> dict[str, Any]:
    work = FUNCTION.prepare({"validation_rules": rules})
    acc = work.initial()
    for item in items:
        acc = work.fold(acc, work.map(item))
    return work.finish(acc, failed)


def broken(rules: dict[str, Any], item: Any) -> set[tuple[str, str]]:
    """Return the rules that one item breaks, as pairs of rule and field."""
    summary = run(rules, [item])["validation_summary"]
    return {(rule, field) for rule, fields in summary.items() for field in fields}


def test_s18_the_seeds_example_travels_as_json_and_is_obeyed():
    work = FUNCTION.prepare(json.loads(json.dumps(SEED)))
    acc = work.initial()
    for item in [ANN, {**ANN, "id": "x1"}, {**ANN, "email": "nobody"}, {"id": 2, "name": "Bo"}]:
        acc = work.fold(acc, work.map(item))
    assert work.finish(acc) == {
        "valid_count": 1,
        "invalid_count": 3,
        "error_count": 0,
        "validation_summary": {
            "required": {"email": {"count": 1, "expected": "a value", "examples": [{"item_id": 2}]}},
            "type": {"id": {"count": 1, "expected": "int", "examples": [{"item_id": "x1", "value": "x1"}]}},
            "pattern": {"email": {"count": 1, "expected": EMAIL, "examples": [{"item_id": 1, "value": "nobody"}]}},
        },
    }


def test_s18_a_type_that_is_no_name_is_refused_with_the_names():
    for given in (int, "integer", "flaot", None):
        with pytest.raises(BadParameters, match=r"type_validations\.id must be one of int, float, number, str, bool"):
            FUNCTION.prepare({"validation_rules": {"type_validations": {"id": given}}})


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"a": 1}, set()),
        ({"a": 0}, set()),
        ({"a": False}, set()),
        ({"a": []}, set()),
        ({"a": " "}, set()),
        ({}, {("required", "a")}),
        ({"a": None}, {("required", "a")}),
        ({"a": ""}, {("required", "a")}),
    ],
)
def test_s51_required_is_missing_when_absent_null_or_empty_only(item, expected):
    assert broken({"required_fields": ["a", "a"]}, item) == expected


@pytest.mark.parametrize("value", [None, ""])
def test_other_rules_skip_what_is_missing(value):
    rules = {
        "type_validations": {"a": "int", "b": "int"},
        "range_validations": {"a": {"min": 1}, "b": {"min": 1}},
        "pattern_validations": {"a": "x", "b": "x"},
    }
    assert broken(rules, {"a": value}) == set()


@pytest.mark.parametrize(
    ("value", "strict", "holds"),
    [(5, True, True), ("5", True, False), ("5", False, True), (True, False, False), (5.0, False, False)],
)
def test_s17_a_bool_is_no_int_and_text_is_read_unless_types_are_strict(value, strict, holds):
    rules = {"type_validations": {"a": "int"}, "strict_types": strict}
    assert broken(rules, {"a": value}) == (set() if holds else {("type", "a")})


def test_strict_types_leave_text_to_be_text():
    assert broken({"type_validations": {"a": "str"}, "strict_types": True}, {"a": "5"}) == set()


@pytest.mark.parametrize(
    ("span", "holding", "others"),
    [
        ({"min": 0, "max": 120}, [0, 120, 60.5, "0", "120.0", "1e2", -0.0], [-1, 121, "121", 120.0001]),
        ({"min": 0}, [0, 10**300, "9e307"], [-1, float("inf"), float("nan"), 10**400, "1e999"]),
        ({"max": 0}, [0, -(10**300)], [1, float("-inf")]),
        ({"min": 2**53}, [2**53, 2**53 + 1], [2**53 - 1]),
        ({"min": 0.1, "max": 0.1}, [0.1, "0.1", "0.10"], [0.1000001, 0]),
        ({"min": -5}, [0], ["abc", " 1", "1_0", True, False, [], [1], {}, {"a": 1}]),
    ],
)
def test_s17_ranges_include_their_ends_and_what_is_no_number_breaks_them(span, holding, others):
    rules = {"range_validations": {"a": span}}
    for value in holding:
        assert broken(rules, {"a": value}) == set(), value
    for value in others:
        assert broken(rules, {"a": value}) == {("range", "a")}, value


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        *(("123", True), (123, True), ("123\n", False), ("1234", False), (12, False), (123.0, False), (True, False)),
        *(([123], False), ({}, False), ("\ud800", False)),
    ],
)
def test_s20_patterns_match_in_full_text_and_digits_of_whole_numbers(value, holds):
    assert broken({"pattern_validations": {"a": r"\d{3}"}}, {"a": value}) == (set() if holds else {("pattern", "a")})


@pytest.mark.parametrize("value", [1.5, True, [], ["a"], {"a": 1}])
def test_a_pattern_matches_nothing_but_text_and_whole_numbers(value):
    assert broken({"pattern_validations": {"a": "(?s).*"}}, {"a": value}) == {("pattern", "a")}


def test_s20_a_slow_pattern_is_refused_or_fast_and_says_where():
    for pattern in (r"(a)\1", "(?=a)a", "(a{1000}){1000}", "("):
        with pytest.raises(BadParameters, match=r"validation_rules\.pattern_validations\.a is no pattern"):
            FUNCTION.prepare({"validation_rules": {"pattern_validations": {"a": pattern}}})
    assert broken({"pattern_validations": {"a": "^(a+)+$"}}, {"a": "a" * 100_000 + "!"}) == {("pattern", "a")}


def test_s14_items_that_look_like_outcomes_are_plain_data():
    odd = {"id": 1, "status": "failed", "error": "x", "valid": False, "original_index": 3}
    result = run({"required_fields": ["status", "error", "original_index"]}, [odd, odd])
    assert (result["valid_count"], result["invalid_count"], result["error_count"]) == (2, 0, 0)


@pytest.mark.parametrize("item", [None, 1, "text", [], [{"a": 1}], True])
def test_s14_an_item_that_is_no_object_fails_and_does_not_crash(item):
    with pytest.raises(ValueError, match=r"the item is (null|a number|text|a list|a bool), not an object"):
        FUNCTION.prepare(SEED).map(item)


def test_s15_each_item_is_counted_in_one_bucket():
    items = [ANN, {}, {"id": "x", "email": "y"}, *[{**ANN, "id": n} for n in range(5)]]
    result = run(SEED["validation_rules"], items, failed=4)
    counts = [result[name] for name in ("valid_count", "invalid_count", "error_count")]
    assert counts == [6, 2, 4]
    assert sum(counts) == len(items) + 4


def test_s22_examples_are_three_and_short_and_errors_hold_none():
    items = [{"id": n, "a": "canary" * 100} for n in range(10)]
    of = run({"type_validations": {"a": "int"}}, items)["validation_summary"]["type"]["a"]
    assert of["count"] == 10
    assert [example["item_id"] for example in of["examples"]] == [0, 1, 2]
    assert all(len(example["value"]) == 61 for example in of["examples"])
    with pytest.raises(ValueError, match="the item is text, not an object"):
        FUNCTION.prepare(SEED).map("canary")


def test_the_first_examples_win_whatever_is_merged():
    work = FUNCTION.prepare({"validation_rules": {"range_validations": {"a": {"max": 0}}}})
    accs = []
    for start in range(4):
        acc = work.initial()
        for number in range(10 * start + 1, 10 * start + 3):
            acc = work.fold(acc, work.map({"a": number}))
        accs.append(acc)
    left = work.merge(work.merge(accs[0], accs[1]), work.merge(accs[2], accs[3]))
    of = work.finish(left)["validation_summary"]["range"]["a"]
    assert (of["count"], of["examples"]) == (8, [{"value": 1}, {"value": 2}, {"value": 11}])


def test_one_item_may_break_many_rules_and_is_one_invalid_item():
    rules = {
        "required_fields": ["b"],
        "type_validations": {"a": "int"},
        "range_validations": {"a": {"min": 0}},
        "pattern_validations": {"a": r"\d+"},
    }
    assert broken(rules, {"a": "x"}) == {("required", "b"), ("type", "a"), ("range", "a"), ("pattern", "a")}
    assert run(rules, [{"a": "x"}])["invalid_count"] == 1


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"required": ["a"]}, "unknown key 'required'; did you mean 'required_fields'"),
        ({"range_validations": {"a": {}}}, "range_validations.a must have 1 or more of min, max"),
        ({"range_validations": {"a": {"mim": 1}}}, "unknown key 'mim'; did you mean 'min'"),
        ({"range_validations": {"a": {"min": "1"}}}, "range_validations.a.min must be a number, not text"),
        ({"range_validations": {"a": {"min": 2, "max": 1}}}, "range_validations.a: min is greater than max"),
        ({"required_fields": "a"}, "required_fields must be a list"),
        ({"pattern_validations": {"a": 1}}, "pattern_validations.a must be text, not a number"),
    ],
)
def test_s15_rules_that_do_not_fit_are_refused_at_submit(rules, message):
    with pytest.raises(BadParameters, match=message):
        FUNCTION.prepare({"validation_rules": rules})

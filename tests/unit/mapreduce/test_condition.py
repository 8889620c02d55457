"""Conditions: when they hold, and when they are refused."""

from __future__ import annotations

from typing import Any

import pytest

from asyncworker.errors import BadParameters
from asyncworker.mapreduce.condition import CONDITION, compile_condition
from asyncworker.mapreduce.expression import ExpressionError
from asyncworker.mapreduce.schema import check

ITEM = {"n": 5, "text_n": "7.5", "name": "UA", "flag": True, "nothing": None, "empty": "", "list": [1]}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("n > 4 and name == 'UA'", True),
        ("absent", False),
        ({"n": {"min": 5, "max": 5}}, True),
        ({"n": {"min": 5.1}}, False),
        ({"text_n": {"max": 7.5}}, True),
        ({"name": {"min": 0}}, False),
        ({"absent": {"min": 0}}, False),
        ({"name": {"equals": "UA"}}, True),
        ({"n": {"equals": "5"}}, True),
        ({"text_n": {"equals": 7.5}}, True),
        ({"flag": {"equals": 1}}, False),
        ({"flag": {"equals": True}}, True),
        ({"nothing": {"equals": None}}, False),
        ({"name": {"in": ["AA", "UA"]}}, True),
        ({"n": {"in": ["4", "5"]}}, True),
        ({"absent": {"in": [None]}}, False),
        ({"name": {"pattern": "U."}}, True),
        ({"name": {"pattern": "U"}}, False),
        ({"n": {"pattern": "[0-9]"}}, True),
        ({"list": {"pattern": ".*"}}, False),
        ({"flag": {"pattern": ".*"}}, False),
        ({"nothing": {"missing": True}, "empty": {"missing": True}, "absent": {"missing": True}}, True),
        ({"n": {"missing": False, "min": 1}, "name": {"in": ["UA"]}}, True),
        ({"n": {"min": 1}, "name": {"in": ["AA"]}}, False),
    ],
)
def test_when_it_holds(given: Any, expected: bool) -> None:
    check(CONDITION, given)
    assert compile_condition(given, "when")(ITEM) is expected


@pytest.mark.parametrize(
    ("given", "because"),
    [
        ("n >", "when is no expression"),
        ("n.real", "when: Attribute is not allowed"),
        ({"n": {"min": 2, "max": 1}}, r"when\.n: min is greater than max"),
        ({"n": {"pattern": "(?=x)"}}, r"when\.n\.pattern is no pattern that RE2 takes"),
    ],
)
def test_s19_what_is_no_condition_is_refused_with_its_place(given: Any, because: str) -> None:
    with pytest.raises(BadParameters, match=because):
        compile_condition(given, "when")


@pytest.mark.parametrize("given", [{}, {"n": {}}, {"n": {"is": 1}}, {"n": 5}, 5, "", {"n": {"in": []}}])
def test_what_does_not_fit_the_schema(given: Any) -> None:
    with pytest.raises(BadParameters):
        check(CONDITION, given)


def test_an_expression_without_a_value_is_told() -> None:
    with pytest.raises(ExpressionError):
        compile_condition("name > 5", "when")(ITEM)


def test_it_knows_its_fields() -> None:
    assert compile_condition("a > b", "when").fields == ("a", "b")
    assert compile_condition({"c": {"min": 1}, "d": {"missing": True}}, "when").fields == ("c", "d")

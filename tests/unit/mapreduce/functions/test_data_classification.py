"""Classification by rules and by score, and the distribution of classes."""

from __future__ import annotations

from typing import Any

import pytest

from asyncworker.errors import BadParameters
from asyncworker.mapreduce.expression import ExpressionError
from asyncworker.mapreduce.functions.data_classification import FUNCTION
from asyncworker.mapreduce.functions.function import Yielding

CONFIG: dict[str, Any] = {
    "rules": [
        {"class": "cancelled", "when": {"time": {"missing": True}}},
        {"class": "late", "when": "delay > 180"},
        {"class": "cancelled", "when": {"delay": {"equals": 99}}},
    ],
    "scores": {
        "late": [{"when": "delay > 15", "weight": 1}, {"value": "delay / 60", "weight": 0.5}],
        "early": [{"when": {"delay": {"max": -5}}, "weight": 1}],
    },
    "threshold": 0.5,
    "default_class": "on time",
}


def classified(items: list[Any], config: dict[str, Any]) -> dict[str, Any]:
    work = FUNCTION.prepare({"classification_config": config})
    acc = work.initial()
    for item in items:
        acc = work.fold(acc, work.map(item))
    result: dict[str, Any] = work.finish(acc)
    return result


def classes(items: list[Any], **config: Any) -> list[Any]:
    return [item["class"] for item in classified(items, {**config, "keep_items": True})["classified_items"]]


def test_rules_first_then_scores_then_the_default() -> None:
    delays = [200, 99, 30, 75, -10, 0, 15, "70", ""]
    items = [{"time": 1, "delay": delay} for delay in delays] + [{"delay": 300}]
    assert classes(items, **CONFIG) == [
        *("late", "cancelled", "late", "late", "early", "on time", "on time", "late", "on time", "cancelled")
    ]
    result = classified(items, CONFIG)
    assert result["classification_summary"] == {
        "items": 10,
        "classified": 10,
        "unclassified": 0,
        "by_rule": 3,
        "by_score": 4,
        "by_default": 3,
        "failed": 0,
    }
    assert result["class_distribution"] == [
        {"class": "cancelled", "count": 2, "share": 0.2, "mean_score": None},
        {"class": "late", "count": 4, "share": 0.4, "mean_score": pytest.approx((1.25 + 1.625 + 1 + 70 / 120) / 3)},
        {"class": "early", "count": 1, "share": 0.1, "mean_score": 1.0},
        {"class": "on time", "count": 3, "share": 0.3, "mean_score": None},
    ]


def test_s15_each_item_is_counted_once_also_without_a_default() -> None:
    items = [{"n": number} for number in range(10)]
    result = classified(items, {"rules": [{"class": "big", "when": "n > 6"}]})
    assert (result["classification_summary"]["classified"], result["classification_summary"]["unclassified"]) == (3, 7)
    assert classes(items, rules=[{"class": "big", "when": "n > 6"}]) == [None] * 7 + ["big"] * 3


def test_the_first_named_of_equal_scores_wins_and_the_threshold_must_be_passed() -> None:
    scores = {"b": [{"value": "n", "weight": 1}], "a": [{"value": "n", "weight": 1}]}
    assert classes([{"n": 2}, {"n": 0}, {"n": -1}], scores=scores) == ["b", None, None]
    assert classes([{"n": 2}, {"n": 0}, {"n": -1}], scores=scores, threshold=-1) == ["b", "b", None]


def test_an_item_whose_score_is_no_number_fails() -> None:
    for value, item in (("n", {"n": "x"}), ("n", {"n": [1]}), ("n", {"n": 1e308})):
        with pytest.raises(ExpressionError, match="makes no score"):
            classified([item], {"scores": {"a": [{"value": value, "weight": 100}]}})


def test_kept_items_have_their_class_in_a_field_of_choice_and_can_be_taken() -> None:
    config = {"rules": [{"class": "x", "when": "n > 0"}], "keep_items": True, "class_field": "kind"}
    work = FUNCTION.prepare({"classification_config": config})
    assert isinstance(work, Yielding)
    acc = work.fold(work.initial(), work.map({"n": 1, "class": "their own"}))
    assert work.take_rows(acc) == [{"n": 1, "class": "their own", "kind": "x"}]
    assert "classified_items" not in work.finish(acc)
    without = FUNCTION.prepare({"classification_config": {**config, "keep_items": False}})
    assert isinstance(without, Yielding)
    assert without.take_rows(without.initial()) is None


@pytest.mark.parametrize(
    ("config", "because"),
    [
        ({}, "1 or more of rules"),
        ({"rules": [{"class": "a"}]}, r"rules\[0\]\.when is missing"),
        ({"rules": [{"class": "a", "when": "x.y"}]}, r"rules\[0\]\.when: Attribute is not allowed"),
        ({"scores": {"a": []}}, "must have 1 or more entries"),
        ({"scores": {"a": [{"weight": 1}]}}, "2 or more of when, value, weight"),
        (
            {"scores": {"a": [{"weight": 1, "when": "x", "value": "y"}]}},
            r"scores\.a\[0\] must have one of when and value",
        ),
        ({"default_class": ""}, "1 or more characters"),
    ],
)
def test_s15_what_does_not_fit_is_refused_at_submit(config: Any, because: str) -> None:
    with pytest.raises(BadParameters, match=because):
        FUNCTION.prepare({"classification_config": config})


def test_it_asks_for_the_fields_that_an_item_must_have() -> None:
    assert FUNCTION.prepare({"classification_config": CONFIG}).fields == ("time", "delay")

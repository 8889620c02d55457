"""Transformations: what becomes of each item, and what is counted."""

from __future__ import annotations

from typing import Any

import pytest

from asyncworker.errors import BadParameters
from asyncworker.mapreduce.functions.data_transformation import FUNCTION
from asyncworker.mapreduce.functions.function import Yielding


def transformed(items: list[Any], **config: Any) -> dict[str, Any]:
    work = FUNCTION.prepare({"transformations": config})
    acc = work.initial()
    for item in items:
        acc = work.fold(acc, work.map(item))
    result: dict[str, Any] = work.finish(acc)
    return result


def rows(items: list[Any], **config: Any) -> list[Any]:
    found: list[Any] = transformed(items, **config)["transformed_items"]
    return found


def test_s19_the_seeds_example_gives_the_right_numbers() -> None:
    items = [
        {"name": " Ann ", "email": "ANN@X.ORG", "age": "41", "score": "1.5"},
        {"email": None, "age": "old", "score": ""},
        {"name": "", "email": "b@x.org", "age": 7, "score": 2},
    ]
    result = transformed(
        items,
        normalize_fields=["name", "email"],
        calculated_fields={"name_length": "len(name) if 'name' in locals() and name else 0"},
        type_conversions={"age": "int", "score": "float"},
    )
    assert result["transformed_items"] == [
        {"name": "ann", "email": "ann@x.org", "age": 41, "score": 1.5, "name_length": 3},
        {"email": None, "age": None, "score": None, "name_length": 0},
        {"name": "", "email": "b@x.org", "age": 7, "score": 2.0, "name_length": 0},
    ]
    summary = result["transformation_summary"]
    assert {name: of for name, of in summary.items() if name != "steps"} == {
        "items": 3,
        "kept": 3,
        "filtered_out": 0,
        "failed": 0,
    }
    assert summary["steps"]["normalized"]["name"] == {"done": 1, "missing": 2, "failed": 0}
    assert summary["steps"]["calculated"]["name_length"] == {"done": 3, "missing": 0, "failed": 0}
    assert summary["steps"]["converted"]["age"] == {
        "done": 2,
        "missing": 0,
        "failed": 1,
        "examples": [{"value": "old", "error": "text where a number is needed"}],
    }
    assert summary["steps"]["converted"]["score"] == {"done": 2, "missing": 1, "failed": 0}


def test_the_items_themselves_are_not_changed() -> None:
    item = {"a": " X "}
    rows([item], normalize_fields=["a"], field_mappings={"a": "b"})
    assert item == {"a": " X "}


def test_fields_change_names_all_at_once_and_keep_their_places() -> None:
    assert rows([{"a": 1, "b": 2, "c": 3}], field_mappings={"a": "b", "b": "a"}) == [{"b": 1, "a": 2, "c": 3}]
    assert list(rows([{"a": 1, "b": 2, "c": 3}], field_mappings={"a": "c"})[0].items()) == [("c", 1), ("b", 2)]
    assert rows([{"b": 2}], field_mappings={"a": "b"}) == [{"b": 2}]
    assert rows([{"a": 1}], field_mappings={"a": "a"}) == [{"a": 1}]


def test_calculated_fields_see_those_before_them() -> None:
    assert rows([{"a": "2"}], calculated_fields={"b": "a * 2", "c": "b + 1"}) == [{"a": "2", "b": 4, "c": 5}]


def test_items_are_filtered_and_fields_kept_in_the_order_asked_for() -> None:
    items = [{"a": number, "b": str(number), "c": 0} for number in range(5)]
    result = transformed(items, filter="a % 2 == 0", keep_fields=["b", "x"])
    assert result["transformed_items"] == [{"b": "0", "x": None}, {"b": "2", "x": None}, {"b": "4", "x": None}]
    assert result["transformation_summary"]["filtered_out"] == 2
    assert list(result["transformed_items"][0]) == ["b", "x"]


def test_what_fails_is_null_or_fails_its_item() -> None:
    items = [{"id": 7, "a": "x"}] * 5
    config = {"calculated_fields": {"b": "a * 2"}, "type_conversions": {"a": "int"}}
    result = transformed(items, **config)
    assert result["transformed_items"] == [{"id": 7, "a": None, "b": None}] * 5
    calculated = result["transformation_summary"]["steps"]["calculated"]["b"]
    assert (calculated["failed"], len(calculated["examples"])) == (5, 3)
    assert calculated["examples"][0] == {"item_id": 7, "error": "text where a number is needed"}
    with pytest.raises(ValueError, match="field 'b': text where a number is needed"):
        transformed(items, **config, on_error="fail")


def test_s14_items_that_look_like_outcomes_are_plain_data() -> None:
    items = [{"status": "failed", "error": "x", "original_index": 7, "valid": False}]
    assert rows(items, normalize_fields=["status"]) == items


@pytest.mark.parametrize("item", [{"a": 2**64}, {"a": "\ud800"}, {"a": -(2**70)}, {"a": object()}])
def test_what_cannot_travel_fails_its_item(item: Any) -> None:
    with pytest.raises(ValueError, match="the row cannot travel"):
        rows([item], normalize_fields=["b"])


@pytest.mark.parametrize(
    ("config", "because"),
    [
        ({}, "1 or more of filter, normalize_fields"),
        (
            {"calculated_fields": {"x": "().__class__"}},
            r"transformations\.calculated_fields\.x: Attribute is not allowed",
        ),
        ({"filter": "a b"}, r"transformations\.filter is no expression"),
        ({"type_conversions": {"a": "integer"}}, "did you mean 'int'|must be one of int"),
        ({"field_mappings": {"a": "c", "b": "c"}}, "two fields become 'c'"),
        ({"keep_fields": []}, "must have 1 or more entries"),
        ({"on_error": "skip"}, "must be one of null, fail"),
    ],
)
def test_s15_what_does_not_fit_is_refused_at_submit(config: Any, because: str) -> None:
    with pytest.raises(BadParameters, match=because):
        FUNCTION.prepare({"transformations": config})


def test_it_asks_for_the_fields_that_an_item_must_have() -> None:
    work = FUNCTION.prepare(
        {
            "transformations": {
                "filter": "f > 1",
                "normalize_fields": ["n"],
                "calculated_fields": {"x": "a + b", "y": "x + c"},
                "field_mappings": {"m": "renamed", "y": "z"},
                "type_conversions": {"renamed": "int", "t": "int"},
                "keep_fields": ["z", "k", "x"],
            }
        }
    )
    assert work.fields == ("f", "n", "a", "b", "c", "m", "t", "k")


def test_rows_can_be_taken_before_the_end() -> None:
    work = FUNCTION.prepare({"transformations": {"filter": "a > 0"}})
    assert isinstance(work, Yielding)
    acc = work.initial()
    for number in range(3):
        acc = work.fold(acc, work.map({"a": number}))
    assert work.take_rows(acc) == [{"a": 1}, {"a": 2}]
    result = work.finish(work.merge(work.initial(), acc))
    assert "transformed_items" not in result
    assert result["transformation_summary"]["kept"] == 2

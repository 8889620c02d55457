"""Objects of which some fields alone are read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from asyncworker import Engine
from asyncworker.mapreduce.catalogue import find_function
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.slim import SlimDecoder
from asyncworker.mapreduce.sources.source import BadItem, Clean, Narrow, Slim
from tests.support.datasets import all_pairs, all_partitions, fill

RULES = {"validation_rules": {"required_fields": ["a b", "é"], "type_validations": {"a b": "int"}}}


def test_they_have_what_was_asked_for_and_become_dicts() -> None:
    decode = SlimDecoder({"a b": Any, "c": Any})
    some = decode(b'[{"a b": 1, "x": {}}, {"c": null, "a b": [2]}, {}]')
    assert all(isinstance(item, Slim) for item in some)
    assert [msgspec.to_builtins(item) for item in some] == [{"a b": 1}, {"a b": [2], "c": None}, {}]
    for other in (b"[1]", b"[null]", b'[{}, "x"]', b"[[]]", b"["):
        with pytest.raises(ValueError, match=r"."):
            decode(other)


def test_they_are_clean_until_some_are_not() -> None:
    decode = SlimDecoder({"a": int, "b": Any, "c": int})
    some = decode(b'[{"c": 1, "a": 2}, {"a": 3, "x": [], "b": null, "c": 4}]')
    assert all(isinstance(item, Clean) for item in some)
    assert [msgspec.to_builtins(item) for item in some] == [{"a": 2, "c": 1}, {"a": 3, "b": None, "c": 4}]
    for dirty in ({"a": 2}, {"a": "2", "c": 1}, {"a": True, "c": 1}, {"a": None, "c": 1}):
        decode = SlimDecoder({"a": int, "b": Any, "c": int})
        (item,) = decode(msgspec.json.encode([dirty]))
        assert not isinstance(item, Clean)
        assert msgspec.to_builtins(item) == dirty
        assert not isinstance(*decode(b'[{"a": 1, "c": 1}]'), Clean), "it tries but once"


def test_names_that_cannot_be_told_leave_dicts() -> None:
    assert SlimDecoder({'a"b': Any, "c": Any})(b'[{"c": 1}, 2]') == [{"c": 1}, 2]


async def test_what_is_no_object_is_read_among_objects(postgres_dsn: str) -> None:
    rows = [{"a b": 1, "é": "x", "more": number} for number in range(2000)]
    await fill(postgres_dsn, "slim", [*rows, "text", None, {"a b": "x"}, *rows])
    source = open_source(f"{postgres_dsn}?dataset=slim")
    assert isinstance(source, Narrow)
    parts = await all_partitions(source, 1500)
    whole = await all_pairs(source, parts)
    slim = [
        pair for part in parts async for pairs in source.read_fields(part, {"a b": int, "é": Any}) for pair in pairs
    ]
    await source.close()
    assert [key for key, _ in slim] == [key for key, _ in whole] == list(range(4003))
    assert any(isinstance(value, Clean) for _, value in slim)
    assert not any(isinstance(value, Slim | BadItem) for _, value in whole)
    assert [value for _, value in slim[2000:2003]] == [value for _, value in whole[2000:2003]]
    async with Engine() as engine:
        job = await engine.map_reduce(
            f"{postgres_dsn}?dataset=slim", "data_validation", params=RULES, partition_size=1500
        )
        summary: Any = await job.result(20)
    assert summary["total_failed"] == 2
    assert summary["final_result"] == {
        "valid_count": 4000,
        "invalid_count": 1,
        "error_count": 2,
        "validation_summary": {
            "required": {"é": {"count": 1, "expected": "a value", "examples": []}},
            "type": {"a b": {"count": 1, "expected": "int", "examples": [{"value": "x"}]}},
        },
    }
    assert find_function("data_validation").prepare(RULES).fields == ("a b", "é")

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from asyncworker.cli.functions import kind, parameters
from asyncworker.mapreduce.catalogue import find_function, function_names
from tests.support.command import call

APP = """
from asyncworker import Engine
engine = Engine()
@engine.mapper
async def score(item, params):
    "Score one row."
"""


def test_functions_are_listed_with_what_they_do(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(APP)
    code, out, err = call("functions", "--app", "mine", "--json", cwd=tmp_path)
    assert (code, err) == (0, "")
    told = {function["name"]: function["summary"] for function in json.loads(out)}
    assert set(told) == {*function_names(), "score+"}
    assert told["score+"] == "Score one row."
    assert "word_count" in call("functions", cwd=tmp_path)[1]


@pytest.mark.parametrize("name", function_names())
def test_the_example_of_a_function_fits_its_parameters(name: str, tmp_path: Path) -> None:
    code, out, _ = call("functions", "show", name, cwd=tmp_path)
    assert code == 0
    assert call("functions", name, cwd=tmp_path)[1] == out
    example = shlex.split(out.partition("Example:\n")[2].splitlines()[0])
    assert example[:5] == ["asyncworker", "run", "data.csv", "--function", name]
    find_function(name).prepare(json.loads(example[-1]))
    assert json.loads(call("functions", name, "--json", cwd=tmp_path)[1])["schema"] == find_function(name).schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer"}, "integer"),
        ({"enum": ["a", "b"]}, "a | b"),
        ({"type": "array", "items": {"type": "string"}}, "list of string"),
        ({"type": "array", "items": {"enum": [1, 2]}}, "list of (1 | 2)"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "object of string"),
        ({"type": "object", "properties": {"min": {}, "max": {}}}, "{min, max}"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string or null"),
        ({}, "any"),
    ],
)
def test_a_type_is_told_in_few_words(schema: dict[str, Any], words: str) -> None:
    assert kind(schema) == words


@pytest.mark.parametrize("name", function_names())
def test_each_parameter_is_described(name: str) -> None:
    rows = list(parameters(find_function(name).schema))
    assert rows
    assert [where for where, _, told in rows if len(told.partition("(default")[0].strip()) < 8] == []


def test_one_function_at_a_time(tmp_path: Path) -> None:
    assert call("functions", "ls", cwd=tmp_path)[1] == call("functions", cwd=tmp_path)[1]
    code, _, err = call("functions", "show", "word_count", "more", cwd=tmp_path)
    assert (code, "one function at a time" in err) == (2, True)


def test_nested_parameters_are_told_by_their_path() -> None:
    inner = {"type": "object", "properties": {"top": {"type": "integer", "default": 5, "description": "how many"}}}
    assert list(parameters({"properties": {"config": inner}})) == [("config.top", "integer", "how many (default 5)")]
    listed = {"type": "array", "items": inner, "description": "some"}
    assert list(parameters({"properties": {"all": listed}})) == [
        ("all", "list of {top}", "some"),
        ("all[].top", "integer", "how many (default 5)"),
    ]

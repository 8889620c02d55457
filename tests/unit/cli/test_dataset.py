from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asyncworker import Engine
from asyncworker.cli import run, submit
from asyncworker.cli.dataset import FLAGS, Request, json_object
from asyncworker.cli.enqueue import value_of
from asyncworker.errors import BadParameters
from asyncworker.settings import flag, load

ELSEWHERE = {"source", "map", "reduce", "database"}
"""Words of a command's own, said in another way: SOURCE, --function of mapper+reducer, the engine's --database."""


def test_an_object_is_read_from_a_text_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text(' {"a": [1, "é"]}\n')
    assert json_object(None, "--params") == {}
    assert json_object(' {"a": 1}', "--params") == {"a": 1}
    assert json_object(str(tmp_path / "rules.json"), "--params") == {"a": [1, "é"]}


@pytest.mark.parametrize("given", ["{", '{"a": 1} x', "[1]", "nothing.json", "", "{" * 100_000, "\0", "/"])
def test_what_is_no_object_is_refused(given: str) -> None:
    with pytest.raises(BadParameters, match="--params"):
        json_object(given, "--params")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("-1.5", -1.5), ("null", None), ('"1"', "1"), ("[1, 2]", [1, 2]), ("two words", "two words"), ("", "")],
)
def test_an_argument_is_json_or_else_a_text(text: str, value: Any) -> None:
    assert value_of(text) == value


async def test_every_option_of_map_reduce_has_a_flag() -> None:
    given = {
        "max_failures": "5%",
        "item_attempts": "2",
        "partition_attempts": "7",
        "partitions_at_once": "9",
        "partition_size": "11",
        "fan_in": "3",
        "reducers": "4",
        "no_speculate": "true",
        "priority": "8",
        "cache_version": "v2",
        "to": "rows.csv",
        "failed_to": "bad.jsonl",
    }
    assert given.keys() < {*FLAGS}
    asked: dict[str, Any] = {}

    async def map_reduce(source: str, function: str, **options: Any) -> None:
        asked.update(options, source=source, function=function)

    call: Any = SimpleNamespace(settings=load(given, {}).settings)
    engine: Any = SimpleNamespace(map_reduce=map_reduce)
    await Request("rows.csv", "gate+", {"a": 1}).submit(call, engine)
    assert asked == {
        "source": "rows.csv",
        "function": "gate+",
        "params": {"a": 1},
        "max_failures": 0.05,
        "item_attempts": 2,
        "partition_attempts": 7,
        "workers": 9,
        "partition_size": 11,
        "fan_in": 3,
        "reducers": 4,
        "speculate": False,
        "priority": 8,
        "cache": "v2",
        "to": "rows.csv",
        "failed_to": "bad.jsonl",
    }
    options = inspect.signature(Engine.map_reduce).parameters.keys() - {"self"}
    assert options == (asked.keys() | ELSEWHERE)
    for one in (run, submit):
        known = {name for parameter in one.COMMAND.params for name in parameter.opts}
        assert {flag(name) for name in (*given, "cache", "result_cache", "cache_ttl", "database", "function")} <= known


async def test_what_is_not_given_is_as_in_python() -> None:
    asked: dict[str, Any] = {}

    async def map_reduce(source: str, function: str, **options: Any) -> None:
        asked.update(options)

    call: Any = SimpleNamespace(settings=load({}, {}).settings)
    engine: Any = SimpleNamespace(map_reduce=map_reduce)
    await Request("rows.csv", "gate+", {}).submit(call, engine)
    defaults = {name: one.default for name, one in inspect.signature(Engine.map_reduce).parameters.items()}
    assert {name: value for name, value in asked.items() if name != "params"} == {
        name: defaults[name] for name in asked if name != "params"
    }

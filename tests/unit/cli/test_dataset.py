from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asyncworker.cli.dataset import json_object
from asyncworker.cli.enqueue import value_of
from asyncworker.errors import BadParameters


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

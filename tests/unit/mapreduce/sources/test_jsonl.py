from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from asyncworker.errors import SourceError
from asyncworker.mapreduce.dataset import open_sink
from asyncworker.mapreduce.sources import jsonl
from asyncworker.mapreduce.sources.source import BadItem
from tests.support.datasets import pairs_of


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
async def test_a_line_that_is_no_json_is_a_bad_item_under_its_number(tmp_path: Path, suffix: str):
    bad = [b"{", b"nope", b'{"a":1} 2', b'"\xff"', b"[" * 5000, b"NaN", b"1e999", b'"\\ud800"', b"\xff\xfe"]
    text = b"\n".join(line for each in bad for line in (b'{"ok":true}', each)) + b"\n"
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    pairs = await pairs_of(path, 3)
    assert [key for key, _ in pairs] == list(range(1, 2 * len(bad) + 1))
    assert [value for key, value in pairs if key % 2] == [{"ok": True}] * len(bad)
    errors = [value for key, value in pairs if not key % 2]
    assert all(isinstance(error, BadItem) for error in errors)
    assert errors[0].error.startswith("no JSON: ")
    assert errors[3].error.startswith("no UTF-8: ")


async def test_items_that_look_like_outcomes_stay_items(tmp_path: Path):
    items: list[Any] = [{"status": "failed", "error": "x"}, 0, "", None, [], False, {"original_index": 3}, 2**70]
    sink = open_sink(tmp_path / "data.jsonl")
    await sink.write(items)
    await sink.commit()
    assert await pairs_of(tmp_path / "data.jsonl") == list(enumerate(items, 1))


def test_rows_that_json_cannot_carry_are_told():
    assert jsonl.encode([float("nan"), {"a": [1, "é"]}]) == 'null\n{"a":[1,"é"]}\n'.encode()
    with pytest.raises(SourceError, match="cannot be written as JSON"):
        jsonl.encode([object()])


@pytest.mark.parametrize("url", ["data.csv", "data.jsonl.bz2", "data.jsonl\0.jsonl", "jsonl", ""])
def test_paths_of_other_files_are_refused(url: str):
    with pytest.raises(SourceError, match=r"is no path of a \.jsonl"):
        jsonl.open(url)

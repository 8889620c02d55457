from __future__ import annotations

import io
import json
from typing import Any

import pytest

from asyncworker.cli.command import Call
from asyncworker.cli.summary import ROWS, show_outcome, tables
from asyncworker.errors import JobFailed
from asyncworker.settings import load

SUMMARY: dict[str, Any] = {
    "job_id": "01jd",
    "dataset_id": "postgresql://u:***@h/d",
    "processing_function": "word_count",
    "total_processed": 27_004,
    "total_successful": 27_003,
    "total_failed": 1,
    "success_rate": 99.9963,
    "final_result": {"distinct": 2, "words": [{"word": "a", "count": 7}, {"word": "b", "count": 1}]},
    "partitions_processed": 3,
    "partitions_failed": 0,
    "processing_stats": {"wall_time": 1.5, "average_items_per_second": 18_002.7},
    "failures": [{"key": 7, "error_type": "BadItem", "error_text": "no JSON"}],
    "completed_at": 0.0,
}


def call_to(out: io.StringIO, **flags: str) -> Call:
    return Call(load(flags, {}), out, io.StringIO())


async def summary_of(given: dict[str, Any]) -> Any:
    return given


async def test_a_summary_is_read_from_top_to_bottom() -> None:
    out = io.StringIO()
    await show_outcome(call_to(out), summary_of(SUMMARY))
    lines = [line for line in out.getvalue().splitlines() if line]
    assert lines[0].split() == ["job", "01jd"]
    assert "items         27,004" in lines
    assert "success rate  100.00 %" in lines
    assert lines[-7:] == ["words", "word  count", "a         7", "b         1", "failed items", *lines[-2:]]
    assert lines[-2].split() == ["key", "error", "text"]
    assert lines[-1].split() == ["7", "BadItem", "no", "JSON"]


async def test_with_json_it_is_one_document() -> None:
    out = io.StringIO()
    await show_outcome(call_to(out, json="true"), summary_of(SUMMARY))
    assert json.loads(out.getvalue()) == SUMMARY


async def test_of_a_failed_job_it_shows_what_did_succeed_and_then_fails() -> None:
    async def fails() -> Any:
        raise JobFailed("too many", partial=SUMMARY)

    out = io.StringIO()
    with pytest.raises(JobFailed):
        await show_outcome(call_to(out, json="true"), fails())
    assert json.loads(out.getvalue()) == SUMMARY


async def test_a_long_table_is_cut_and_says_so() -> None:
    out = io.StringIO()
    many = [{"word": str(number), "count": number} for number in range(ROWS + 5)]
    await show_outcome(call_to(out), summary_of({**SUMMARY, "final_result": many, "failures": []}))
    assert out.getvalue().splitlines()[-1] == "… and 5 more; --json prints all"


def test_any_json_value_is_tables() -> None:
    validation = {
        "valid_count": 1,
        "validation_summary": {"required": {"a": {"count": 2, "examples": [{"value": "x" * 99}]}}},
    }
    (plain, nested) = tables("result", validation)
    assert plain.rows == [("valid count", 1)]
    assert nested.title == "validation_summary"
    groups = {"groups": [{"key": {"carrier": "UA"}, "items": 3}, {"key": {}, "items": 1}]}
    (grouped,) = tables("result", groups)
    assert (grouped.title, list(grouped.columns), grouped.rows) == (
        "groups",
        ["carrier", "items"],
        [["UA", 3], [None, 1]],
    )
    rules = {"required": {"a": {"count": 2}}, "type": {"b": {"count": 1}}}
    (broken,) = tables("rules", rules)
    assert broken.rows == [["required a", 2], ["type b", 1]]
    assert [table.rows for table in tables("x", [1, "a", [2]])] == [[(1,), ("a",), ("[2]",)]]
    assert [table.rows for table in tables("x", 5)] == [[(5,)]]
    assert list(tables("x", None)) == []
    (empty,) = tables("x", {"a": [], "b": {}})
    assert empty.rows == [("a", "[]"), ("b", "{}")]

"""Rows on their way from the items to a sink: in order, a partition at a time, all of them or none."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from asyncworker.mapreduce.catalogue import find_function, from_callables
from asyncworker.mapreduce.row import pack_row, unpack_rows
from asyncworker.queue.job import State
from tests.support.mapreduce import Collect, Fleet

CLEAN = {"transformations": {"filter": "n % 2 == 0", "calculated_fields": {"half": "n // 2"}}}
ITEMS = [{"n": number} for number in range(100)]
ROWS = [{"n": number, "half": number // 2} for number in range(0, 100, 2)]


def fleet() -> Fleet:
    made = Fleet()
    made.functions["data_transformation"] = find_function("data_transformation")
    return made


def lines(path: Path) -> list[Any]:
    return list(map(json.loads, path.read_text().splitlines()))


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_rows_reach_a_file_in_order_and_the_result_says_where(tmp_path: Path, size: int) -> None:
    out = tmp_path / "rows.jsonl"
    summary = await fleet().summary(ITEMS, "data_transformation", params=CLEAN, partition_size=size, to=str(out))
    assert lines(out) == ROWS
    result = summary["final_result"]
    assert (result["saved_to"], result["rows"], "transformed_items" in result) == (str(out), 50, False)
    assert result["transformation_summary"]["kept"] == 50


async def test_without_a_place_they_are_in_the_result() -> None:
    summary = await fleet().summary(ITEMS, "data_transformation", params=CLEAN)
    assert summary["final_result"]["transformed_items"] == ROWS


async def test_s11_the_reducer_holds_the_rows_of_one_partition(tmp_path: Path) -> None:
    class Rows(Collect):
        held = 0

        def take_rows(self, acc: Any) -> list[Any]:
            rows = list(acc)
            acc.clear()
            return rows

        def merge(self, left: Any, right: Any) -> Any:
            self.held = max(self.held, len(left) + len(right))
            return left + right

    work = Rows()
    out = tmp_path / "rows.jsonl"
    summary = await Fleet(rows=work).summary(list(range(95)), "rows", to=str(out))
    assert lines(out) == list(range(95))
    assert (work.held, summary["final_result"]["rows"]) == (0, 95)


async def test_a_mapper_alone_gives_rows_too(tmp_path: Path) -> None:
    async def double(item: Any, params: Any) -> Any:
        return {"twice": 2 * item}

    out = tmp_path / "rows.jsonl"
    summary = await Fleet(double=from_callables(double)).summary(list(range(30)), "double", to=str(out))
    assert lines(out) == [{"twice": 2 * number} for number in range(30)]
    assert summary["final_result"] == {"saved_to": str(out), "rows": 30}


async def test_of_no_rows_there_is_an_empty_file(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    nothing = {"transformations": {"filter": "n > 1000"}}
    for items in (ITEMS, []):
        summary = await fleet().summary(items, "data_transformation", params=nothing, to=str(out))
        assert (lines(out), summary["final_result"]["rows"]) == ([], 0)


async def test_a_job_that_fails_leaves_no_row_and_what_was_there_before(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    await asyncio.to_thread(out.write_text, '"before"\n')
    items = [*ITEMS, 5]
    state, record = await fleet().run(
        items, "data_transformation", params=CLEAN, to=str(out), max_failures=0, partition_size=10
    )
    assert (state, record.error_type) == (State.FAILED, "JobFailed")
    assert (lines(out), os.listdir(tmp_path)) == (["before"], ["rows.jsonl"])  # noqa: PTH208 - within a coroutine


async def test_what_holds_connections_gives_them_back_when_its_partition_is_over() -> None:
    class Holding(Collect):
        closed = 0

        async def close(self) -> None:
            self.closed += 1

    work = Holding()
    await Fleet(holding=work).summary(list(range(30)), "holding")
    assert work.closed == 3


async def test_s23_a_failed_job_has_one_state_and_a_record_that_can_be_read() -> None:
    class Broken(Collect):
        def finish(self, acc: Any, failed: int = 0) -> Any:
            raise LookupError("the end is broken")

    broken = Fleet(broken=Broken())
    state, record = await broken.run(list(range(30)), "broken")
    assert (state, record.error_type, record.error_text) == (State.FAILED, "LookupError", "the end is broken")
    async with broken.working():
        job_id = await broken.sealed(list(range(30)), "broken")
        ended = [await broken.end(job_id) for _ in range(3)]
    assert [state for state, _ in ended] == [State.FAILED] * 3
    assert len({repr(record) for _, record in ended}) == 1


def test_a_row_is_json_and_travels() -> None:
    rows = [{"a": 1.5, "b": [None, True]}, 7, "x", {"nan": float("nan")}]
    assert unpack_rows(map(pack_row, rows)) == [*rows[:3], {"nan": None}]
    for odd in (2**64, {"a": "\ud800"}, {1, object()}, -(2**63) - 1):
        with pytest.raises(ValueError, match="the row cannot travel"):
            pack_row(odd)

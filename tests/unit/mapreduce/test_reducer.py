"""The end of a job: in order, once, summed up truly; and every way in which it fails says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.errors import EmptyDataset, JobFailed
from asyncworker.mapreduce import outlet, reducer
from asyncworker.mapreduce.job import FAILURES_KEPT, Summary
from asyncworker.queue.brokers import memory
from asyncworker.queue.job import State, child_id
from tests.support.clock import FrozenClock
from tests.support.mapreduce import PATIENCE, Collect, Fleet


async def test_the_summary_has_the_keys_that_people_know() -> None:
    summary = await Fleet().summary([1, {"raise": "no"}, 3, 4], partition_size=2)
    assert summary.keys() == Summary.__annotations__.keys()
    assert summary["processing_stats"].keys() == {
        "partitions_total",
        "partitions_processed",
        "partitions_failed",
        "total_processing_time",
        "wall_time",
        "average_items_per_second",
        "digest",
    }
    numbers = ("total_processed", "total_successful", "total_failed", "success_rate", "partitions_processed")
    assert [summary[name] for name in numbers] == [4, 3, 1, 75.0, 2]
    assert summary["final_result"] == {"items": [1, 3, 4], "failed": 1}
    assert summary["failures"] == [{"key": 1, "error_type": "ValueError", "error_text": "no"}]
    stats = summary["processing_stats"]
    assert stats["average_items_per_second"] == pytest.approx(4 / stats["wall_time"], rel=0.01)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 60), st.integers(1, 60))
async def test_s15_the_counts_add_up_and_the_order_is_kept_in_any_partitions(count: int, size: int) -> None:
    items = [{"raise": "no"} if number % 5 == 3 else number for number in range(count)]
    summary = await Fleet().summary(items, partition_size=size)
    good = [item for item in items if isinstance(item, int)]
    assert summary["final_result"] == {"items": good, "failed": count - len(good)}
    assert summary["total_processed"] == count == summary["total_successful"] + summary["total_failed"]
    assert summary["partitions_processed"] == -(-count // size)
    assert (await Fleet().summary(good))["final_result"]["items"] == good


@pytest.mark.parametrize("falsy", [0, "", [], None, False])
async def test_s51_falsy_accumulators_and_results_complete_once(falsy: Any) -> None:
    class Falsy(Collect):
        def initial(self) -> Any:
            return falsy

        def fold(self, acc: Any, value: Any) -> Any:
            return acc

        def merge(self, left: Any, right: Any) -> Any:
            self.merged += 1
            return right

        def finish(self, acc: Any, failed: int = 0) -> Any:
            return acc

    work = Falsy()
    summary = await Fleet(falsy=work).summary([1, 2, 3], "falsy", partition_size=1)
    assert summary["final_result"] == falsy
    assert type(summary["final_result"]) is type(falsy)
    assert (work.mapped, work.merged) == (3, 3)


async def test_s09_one_partition_of_ten_that_fails_for_good_fails_the_job_and_nothing_hangs() -> None:
    class Picky(Collect):
        def fold(self, acc: Any, value: Any) -> Any:
            return object() if value == 35 else super().fold(acc, value)  # nothing that can travel

    work = Picky()
    state, record = await Fleet(picky=work).run(range(100), "picky", ahead=10)
    assert state is State.FAILED
    assert record.error_type == "JobFailed"
    assert record.error_text.startswith("1 of 10 partitions failed for good; partition 3: BadParameters:")
    partial = record.detail["partial"]
    assert (partial["partitions_failed"], partial["partitions_processed"]) == (1, partial["total_processed"] // 10)
    assert partial["partitions_processed"] <= 9
    assert record.attempt == 1


async def test_a_failed_partition_is_tried_again_before_it_fails_the_job() -> None:
    class Flaky(Collect):
        tries = 0

        def initial(self) -> Any:
            self.tries += 1
            if self.tries < 3:
                raise RuntimeError("not yet")
            return []

    summary = await Fleet(flaky=Flaky()).summary([1, 2], "flaky")
    assert summary["final_result"]["items"] == [1, 2]


@pytest.mark.parametrize(
    ("limit", "ends"),
    [(None, "succeeded"), (3, "succeeded"), (2, "failed"), (0.3, "succeeded"), (0.29, "failed"), (0, "failed")],
)
async def test_max_failures_is_a_count_or_a_share(limit: float | None, ends: str) -> None:
    items = [{"raise": "no"} if number < 3 else number for number in range(10)]
    state, record = await Fleet().run(items, partition_size=1, max_failures=limit)
    assert state == ends
    if ends == "failed":
        assert "failed" in record.error_text
        assert record.detail["failures"][0]["error_text"] == "no"


async def test_failures_told_of_are_bounded_for_the_whole_job_too() -> None:
    summary = await Fleet().summary([{"raise": "no"}] * 500)
    assert summary["total_failed"] == 500
    assert [failure["key"] for failure in summary["failures"]] == list(range(FAILURES_KEPT))
    assert summary["success_rate"] == 0.0


def dies_twice_at_the_end() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the first two reduces die when all is written and nothing settled."""
    runs = 0

    def around(reduce: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal runs
            runs += 1
            value = await reduce(*args, **kwargs)
            if runs < 3:
                raise ConnectionResetError("after the rows were written, before the job was settled")
            return value

        return call

    return around


async def test_s10_a_reduce_that_runs_again_writes_its_rows_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    fleet = Fleet()
    fleet.around_reduce(dies_twice_at_the_end())
    summary = await fleet.summary([{"n": 1}, {"n": 2}], to=str(path))
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"n": 1}, {"n": 2}]
    assert summary["final_result"]["items"] == [{"n": 1}, {"n": 2}]


async def test_rows_that_cannot_be_written_fail_the_job_and_leave_no_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    state, record = await Fleet().run([1, 2], to=str(path))
    assert state is State.FAILED
    assert record.error_type == "SourceError"
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240 - a look at an empty folder


async def test_a_result_too_large_to_carry_asks_for_a_place_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(reducer, "RESULT_BYTES", 5000)
    monkeypatch.setattr(reducer, "CHUNK_BYTES", 5000)
    items = [{"n": "x" * 600}] * 10
    state, record = await Fleet().run(items)
    assert state is State.FAILED
    assert "with to=" in record.error_text
    assert record.detail["partial"]["total_processed"] == 10
    path = tmp_path / "rows.jsonl"
    summary = await Fleet().summary(items, to=str(path))
    assert summary["final_result"] == {"saved_to": str(path), "rows": 10}
    assert len(path.read_text().splitlines()) == 10


async def test_s39_partials_outlive_every_ttl() -> None:
    clock = FrozenClock()
    fleet = Fleet(memory.open(clock=clock))
    async with fleet.working(lease_s=5.0):
        job_id, feeding = await fleet.submit([1, 2, {"await": "months later"}], partition_size=1)
        await feeding
        await fleet.broker.wait([child_id(job_id, 0), child_id(job_id, 1)], PATIENCE)
        clock.advance(90 * 86400)
        fleet.collect.gate("months later").set()
        state, record = await fleet.end(job_id)
    assert state is State.SUCCEEDED
    assert record.value["total_processed"] == 3


async def test_p5_the_reduce_runs_once_after_every_partition_is_over() -> None:
    fleet = Fleet()
    done_then: list[int] = []

    def counted(reduce: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            (found,) = await fleet.broker.find([kwargs["ctx"].id])
            assert found is not None
            assert found.children is not None
            done_then.append(found.children.done)
            return await reduce(*args, **kwargs)

        return call

    fleet.around_reduce(counted)
    await fleet.summary(range(200), partition_size=1)
    assert done_then == [200]


async def test_nothing_of_a_job_is_left_but_its_result() -> None:
    fleet = Fleet()
    job_id = await fleet.sealed(range(50), ahead=5)
    async with fleet.working():
        await fleet.end(job_id)
    assert await fleet.broker.find([child_id(job_id, part) for part in range(5)]) == [None] * 5


async def rows_of(dsn: str, query: str) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [dict(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def test_s10_the_result_row_is_there_once_however_often_the_end_is_run(postgres_dsn: str) -> None:
    await rows_of(postgres_dsn, "CREATE TABLE dataset_items (dataset_id text, item_index int, data jsonb)")
    await rows_of(
        postgres_dsn,
        "INSERT INTO dataset_items SELECT 'dataset_001', n, to_jsonb(n) FROM generate_series(1, 25) AS n",
    )
    fleet = Fleet()
    fleet.around_reduce(dies_twice_at_the_end())
    summary = await fleet.summary("dataset_001", database=postgres_dsn)
    assert (summary["dataset_id"], summary["total_processed"]) == ("dataset_001", 25)
    (row,) = await rows_of(postgres_dsn, "SELECT * FROM distributed_processing_results")
    assert (row["job_id"], row["dataset_id"], row["total_processed"]) == (summary["job_id"], "dataset_001", 25)
    assert json.loads(row["result_data"])["final_result"] == summary["final_result"]
    assert row["success_rate"] == 100.0


async def test_the_result_row_goes_where_it_is_wanted(postgres_dsn: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    first = await Fleet().summary([1], to=postgres_dsn)
    second = await Fleet().summary([1], to=str(rows), database=postgres_dsn)
    third = await Fleet().summary([{"n": 1}], to=f"{postgres_dsn}?table=kept")
    saved = await rows_of(postgres_dsn, "SELECT job_id FROM distributed_processing_results")
    ids = {row["job_id"] for row in saved}
    assert {first["job_id"], second["job_id"]} <= ids
    assert third["job_id"] not in ids
    assert rows.read_text() == "1\n"
    assert len(await rows_of(postgres_dsn, "SELECT * FROM kept")) == 1


async def test_s03_an_empty_dataset_is_told_at_submit(postgres_dsn: str) -> None:
    fleet = Fleet()
    await rows_of(
        postgres_dsn, "CREATE TABLE IF NOT EXISTS dataset_items (dataset_id text, item_index int, data jsonb)"
    )
    with pytest.raises(EmptyDataset):
        await fleet.submit("nothing", database=postgres_dsn)
    assert (await fleet.broker.depth(["default"])).queues["default"].enqueued == 0


@pytest.mark.parametrize(
    ("result", "rows"),
    [
        ([1, 2], [1, 2]),
        ({"groups": [{"a": 1}], "items": 3}, [{"a": 1}]),
        ({"valid_count": 3}, [{"valid_count": 3}]),
        ({"a": [1], "b": [2]}, [{"a": [1], "b": [2]}]),
        (7, [7]),
    ],
)
def test_the_rows_of_a_result(result: Any, rows: list[Any]) -> None:
    assert outlet._rows(result) == rows


async def test_an_error_of_the_end_itself_is_tried_again_and_then_told() -> None:
    class Broken(Collect):
        def finish(self, acc: Any, failed: int = 0) -> Any:
            self.merged = 99
            raise ZeroDivisionError("nothing to divide")

    state, record = await Fleet(broken=Broken()).run([1], "broken")
    assert (state, record.error_type, record.attempt) == (State.FAILED, "ZeroDivisionError", 3)


async def test_a_result_that_cannot_travel_fails_the_job() -> None:
    class Odd(Collect):
        def finish(self, acc: Any, failed: int = 0) -> Any:
            return {1j: 2}

    state, record = await Fleet(odd=Odd()).run([1], "odd")
    assert state is State.FAILED
    assert "no plain value" in record.error_text


def test_a_failed_job_carries_its_partial_summary() -> None:
    assert JobFailed("x", partial={"a": 1}, failures=[2]).detail == {"partial": {"a": 1}, "failures": [2]}

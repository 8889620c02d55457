"""One partition: what is mapped, what fails apart, what is awaited, and what travels."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.errors import JobFailed, Snooze, UnknownName
from asyncworker.mapreduce import skew
from asyncworker.mapreduce.folding import WINDOW, Folding, Pair
from asyncworker.mapreduce.job import ERROR_CHARS, FAILURES_KEPT, Partial, read
from asyncworker.mapreduce.mapper import Mapper
from asyncworker.mapreduce.sources.source import BadItem
from asyncworker.queue.codec import Ids, born_ms, unpack, unpack_record
from asyncworker.queue.context import Context
from asyncworker.queue.job import State, child_id
from tests.support.clock import FrozenClock
from tests.support.mapreduce import PATIENCE, Collect, Fleet


async def folded(pairs: list[Pair], work: Any = None, max_failures: int | None = None, concurrency: int = 4) -> Folding:
    folding = Folding(work or Collect(), max_failures, concurrency)
    try:
        for start in range(0, len(pairs), 1000):
            await folding.take(pairs[start : start + 1000])
        await folding.drain()
    finally:
        folding.abandon()
    return folding


async def test_items_are_folded_in_order_and_counted() -> None:
    folding = await folded([(key, key) for key in range(2500)])
    assert folding.acc == list(range(2500))
    assert (folding.items, folding.failed, folding.failures) == (2500, 0, [])


async def test_what_is_folded_many_at_once_is_counted_and_fails_as_one_by_one() -> None:
    class Even(Collect):
        reads: ClassVar[dict[str, Any]] = {}

        def fold_list(self, acc: Any, items: list[Any]) -> tuple[Any, list[int]]:
            plain = [item for item in items if type(item) is int and item % 2 == 0]
            return acc + plain, [at for at, item in enumerate(items) if type(item) is not int or item % 2]

        def map(self, item: Any) -> Any:
            if item % 10 == 9:
                raise KeyError(item)
            return item

    folding = await folded([(key, BadItem("no JSON") if key == 1500 else key) for key in range(2500)], Even())
    assert sorted(folding.acc) == [key for key in range(2500) if key % 10 != 9 and key != 1500]
    assert (folding.items, folding.failed) == (2500, 251)
    assert [failure.key for failure in folding.failures] == list(range(9, 1000, 10))
    with pytest.raises(JobFailed, match="more than 3 items failed; the first, 9: KeyError"):
        await folded([(key, key) for key in range(2500)], Even(), max_failures=3)


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["plain", "awaited", "fails", "fails later", "bad"]), max_size=40), st.integers(1, 5))
async def test_s15_each_item_is_counted_once_and_the_order_is_kept(kinds: list[str], concurrency: int) -> None:
    class Mixed(Collect):
        def map(self, item: Any) -> Any:
            if item[1] == "fails":
                raise KeyError(item[0])
            return self.later(item) if item[1] in {"awaited", "fails later"} else item

        async def later(self, item: Any) -> Any:
            await asyncio.sleep(0.001 * (item[0] % 3))
            if item[1] == "fails later":
                raise KeyError(item[0])
            return item

    items = [(key, BadItem("no JSON") if kind == "bad" else (key, kind)) for key, kind in enumerate(kinds)]
    folding = await folded(items, Mixed(), concurrency=concurrency)
    good = [(key, kind) for key, kind in enumerate(kinds) if kind in {"plain", "awaited"}]
    assert folding.acc == good
    assert folding.items == len(kinds)
    assert folding.items - folding.failed == len(good)
    assert {failure.key for failure in folding.failures} == set(range(len(kinds))) - {key for key, _ in good}


async def test_a_failed_item_is_told_of_by_key_type_and_text() -> None:
    folding = await folded([("k7", {"raise": "no such colour"}), (8, BadItem("no JSON: x"))])
    assert [(each.key, each.error_type, each.error_text) for each in folding.failures] == [
        ("k7", "ValueError", "no such colour"),
        (8, "BadItem", "no JSON: x"),
    ]
    assert folding.failed == folding.items == 2


async def test_failures_told_of_are_bounded_and_their_count_is_exact() -> None:
    folding = await folded([(key, {"raise": "x" * 5000}) for key in range(1234)])
    assert folding.failed == 1234
    assert [failure.key for failure in folding.failures] == list(range(FAILURES_KEPT))
    assert {len(failure.error_text) for failure in folding.failures} == {ERROR_CHARS}


async def test_s22_no_secret_and_no_broken_text_is_told() -> None:
    folding = await folded([("\ud800", {"raise": "postgresql://me:geheim@db/x \udfff"})])
    (failure,) = folding.failures
    assert "geheim" not in failure.error_text
    assert (failure.key, failure.error_text) == ("\\ud800", "postgresql://me:***@db/x \\udfff")


async def test_too_many_failures_fail_the_partition_at_once() -> None:
    work = Collect()
    items = [(key, {"raise": "no"}) for key in range(3)] + [(key, key) for key in range(3, 5000)]
    with pytest.raises(JobFailed, match=r"more than 2 items failed; the first, 0: ValueError: no") as caught:
        await folded(items, work, max_failures=2)
    assert work.mapped == 3
    assert len(caught.value.failures) == 3  # type: ignore[arg-type]
    assert (await folded(items, max_failures=3)).failed == 3


async def test_coroutines_run_together_within_bounds_and_are_folded_in_order() -> None:
    running = most = begun = 0

    class Slow(Collect):
        async def _later(self, item: Any) -> Any:
            nonlocal running, most, begun
            running, begun = running + 1, begun + 1
            most = max(most, running)
            ahead.append(begun - len(folding.acc))
            await asyncio.sleep(0.002 if item["n"] % 7 else 0.01)
            running -= 1
            return item["n"]

    ahead: list[int] = []
    folding = Folding(Slow(), None, 4)
    for start in range(0, 100, 10):
        await folding.take([(key, {"await": "", "n": key}) for key in range(start, start + 10)])
    await folding.drain()
    assert folding.acc == list(range(100))
    assert 4 <= most <= 5  # the first one tells that it must be awaited, and is not counted
    assert max(ahead) <= 4 * WINDOW + 1


async def test_an_item_that_cancels_itself_fails_alone() -> None:
    class Odd(Collect):
        async def _later(self, item: Any) -> Any:
            if item["await"] == "odd":
                raise asyncio.CancelledError
            return item["await"]

    folding = await folded([(key, {"await": name}) for key, name in enumerate(["a", "odd", "b"])], Odd())
    assert folding.acc == ["a", "b"]
    assert [failure.error_type for failure in folding.failures] == ["CancelledError"]


async def test_cancelling_a_partition_cancels_what_it_awaits() -> None:
    work = Collect()
    task = asyncio.create_task(folded([(key, {"await": "never"}) for key in range(10)], work))
    async with asyncio.timeout(PATIENCE):
        while work.mapped < 4:
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_loop_turns_while_a_partition_is_mapped() -> None:
    class Busy(Collect):
        def map(self, item: Any) -> Any:
            deadline = loop.time() + 0.001
            while loop.time() < deadline:
                pass
            return item

    loop = asyncio.get_running_loop()
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = asyncio.create_task(turn())
    await folded([(key, key) for key in range(200)], Busy())
    turning.cancel()
    assert turns > 20  # 200 ms of work in slices of some 5 ms


async def test_s14_users_data_is_never_taken_for_ours() -> None:
    items = [{"status": "failed", "error": "x", "original_index": 9}, 0, "", [], None, "failed", True]
    summary = await Fleet().summary(items)
    assert summary["final_result"]["items"] == items
    assert (summary["total_successful"], summary["total_failed"]) == (7, 0)


async def test_s02_a_partition_that_is_empty_where_items_were_planned_fails(tmp_path: Path) -> None:
    path = tmp_path / 'dataset_001_partition\'s "ü".jsonl'
    path.write_text("1\n2\n3\n")
    fleet = Fleet()
    summary = await fleet.summary(str(path))
    assert summary["total_processed"] == 3
    job_id = await fleet.sealed(str(path))
    path.write_text("")
    async with fleet.working():
        state, record = await fleet.end(job_id)
    assert state is State.FAILED
    assert "1 of 1 partitions failed for good; partition 0: SourceError" in record.error_text


async def test_a_large_accumulator_is_sent_in_chunks() -> None:
    fleet = Fleet()
    items = ["x" * 300_000, "y" * 900_000, "z", "ä" * 1_000_000]
    async with fleet.working():
        job_id, feeding = await fleet.submit([*items, {"await": "go"}], partition_size=4)
        await feeding
        (ended,) = await fleet.broker.wait([child_id(job_id, 0)], PATIENCE)
        assert ended is not None
        partial = read(Partial, unpack_record(ended.record).value)
        assert (partial.acc, partial.chunks, partial.items) == (b"", 4, 4)
        chunks = await fleet.broker.wait([f"{child_id(job_id, 0)}:{number}" for number in range(4)], 0)
        assert unpack(b"".join(chunk.record for chunk in chunks if chunk)) == items
        fleet.collect.gate("go").set()
        state, record = await fleet.end(job_id)
    assert state is State.SUCCEEDED
    assert record.value["final_result"]["items"] == [*items, {"await": "go"}]


async def test_what_a_job_is_asked_to_do_is_looked_up_once_a_worker() -> None:
    fleet = Fleet()
    looks: list[list[str]] = []
    find = fleet.broker.find
    fleet.broker.find = lambda ids: looks.append(list(ids)) or find(ids)  # type: ignore[method-assign,func-returns-value]
    mapper = Mapper(fleet.broker, fleet.find, fleet.openings)
    job_id = await fleet.sealed([1])
    plans = [await mapper._plan(job_id) for _ in range(5)]
    assert len({id(plan) for plan in plans}) == 1
    assert looks == [[job_id]]


async def test_a_worker_that_lacks_the_function_leaves_the_job_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skew, "AGAIN_S", 0.01)
    newer = Fleet()
    newer.functions["colour"] = newer.collect
    newer.collect.name = "colour"
    older = Fleet(newer.broker)
    async with older.working():
        job_id = await newer.sealed([1, 2], "colour")
        (found,) = await newer.broker.find([child_id(job_id, 0)])
        async with asyncio.timeout(PATIENCE):
            while not (found and "colour" in found.error):
                await asyncio.sleep(0.001)
                (found,) = await newer.broker.find([child_id(job_id, 0)])
        assert found.attempt <= 1  # no attempt was spent
    async with newer.working():
        assert (await newer.end(job_id))[0] is State.SUCCEEDED


async def test_after_an_hour_nobody_is_waited_for() -> None:
    clock = FrozenClock()
    ctx = Context(Ids()(), "asyncworker.map", "default", 1, 0, lambda _op, _number, _data: asyncio.sleep(0))
    clock.advance(born_ms(ctx.id) / 1000 - clock.now() + 3599)
    with pytest.raises(Snooze):
        skew.function_or_snooze(Fleet().find, "colour", ctx, clock)
    clock.advance(2)
    with pytest.raises(UnknownName):
        skew.function_or_snooze(Fleet().find, "colour", ctx, clock)

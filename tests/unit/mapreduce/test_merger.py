"""Steps of a reduction: in a tree and by shares of keys, over any broker, the result is that of one reducer."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.errors import BadParameters, DecodeError, Discard, JobFailed
from asyncworker.mapreduce import levels, mapper, pieces, reducer, textfile
from asyncworker.mapreduce.catalogue import find_function
from asyncworker.mapreduce.functions import word_count
from asyncworker.mapreduce.job import MERGE_TASK, REDUCE_TASK, Partial
from asyncworker.mapreduce.levels import LEVEL, Step
from asyncworker.mapreduce.outlet import in_order
from asyncworker.mapreduce.pieces import deal, load, share_of
from asyncworker.mapreduce.resume import resume
from asyncworker.mapreduce.straggler import tame
from asyncworker.queue.brokers.memory import MemoryBroker
from asyncworker.queue.codec import Ids
from asyncworker.queue.context import Context
from asyncworker.queue.job import Op, Settled, State, WorkerCard, child_id
from tests.support.mapreduce import Collect, Fleet

GROUPS = {"aggregation_config": {"group_by": ["k"], "aggregate_fields": {"v": ["sum", "max"]}}}


class Floats(Collect):
    """Add doubles as they come: any other order of merging gives another sum."""

    def initial(self) -> float:
        return 0.0

    def fold(self, acc: float, value: float) -> float:
        return acc + value

    def merge(self, left: float, right: float) -> float:
        self.merged += 1
        return left + right

    def finish(self, acc: float, failed: int = 0) -> float:
        return acc


def rows(count: int, keys: int) -> list[dict[str, Any]]:
    draw = random.Random(count)
    return [
        {"k": f"key {draw.randrange(keys)}", "v": draw.random() * 10 ** draw.randrange(-9, 9)} for _ in range(count)
    ]


def aggregating() -> Fleet:
    fleet = Fleet()
    fleet.functions["data_aggregation"] = find_function("data_aggregation")
    return fleet


class Calls:
    """Which tasks ran how often, and what was done before each."""

    def __init__(self, fleet: Fleet) -> None:
        self.steps: list[Step] = []
        known = fleet.tasks[MERGE_TASK]
        inner = known.call

        async def call(spec: dict[str, Any], ctx: Any) -> Any:
            self.steps.append(msgspec.convert(spec, Step))
            return await inner(spec, ctx)

        fleet.tasks._known[MERGE_TASK] = msgspec.structs.replace(known, call=call)


@pytest.mark.parametrize("fan_in", [2, 3, 9, 10])
async def test_a_tree_comes_to_what_one_reducer_does(fan_in: int) -> None:
    fleet = Fleet()
    calls = Calls(fleet)
    summary = await fleet.summary(range(100), fan_in=fan_in)
    assert summary["final_result"] == {"items": list(range(100)), "failed": 0}
    assert (summary["total_processed"], summary["partitions_processed"]) == (100, 10)
    widths = {2: [5, 3, 2], 3: [4, 2], 9: [2], 10: []}[fan_in]
    per_level = [sum(1 for step in calls.steps if step.first // LEVEL == level) for level in range(len(widths))]
    assert per_level == widths
    assert len(calls.steps) == sum(widths)


async def test_few_or_small_partials_are_left_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet()
    calls = Calls(fleet)
    await fleet.summary(range(400))
    assert calls.steps == [], "forty small ones"
    monkeypatch.setattr(levels, "TREE_BYTES", 100)
    assert (await fleet.summary(range(320)))["final_result"]["items"] == list(range(320))
    assert calls.steps == [], "few"
    assert (await fleet.summary(range(400)))["final_result"]["items"] == list(range(400))
    assert sorted((step.first, step.stop) for step in calls.steps) == [(n, min(n + 7, 40)) for n in range(0, 40, 7)]


async def test_a_tree_merges_in_the_order_of_partitions() -> None:
    values = [row["v"] for row in rows(200, 1)]
    (one,) = {(await Fleet(floats=Floats()).summary(values, "floats", fan_in=4))["final_result"] for _ in range(3)}

    def plain(numbers: list[float]) -> float:
        return reduce(add, numbers, 0.0)  # since Python 3.12 `sum` makes up for what is rounded

    def tree(sums: list[float]) -> float:
        while len(sums) > 4:
            sums = [plain(sums[n : n + 4]) for n in range(0, len(sums), 4)]
        return plain(sums)

    assert one == tree([plain(values[n : n + 10]) for n in range(0, 200, 10)])


@pytest.mark.parametrize("reducers", [2, 8])
async def test_shares_of_keys_come_to_what_one_reducer_does(reducers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "INLINE_BYTES", 300)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 128)
    items = rows(500, 60)
    fleet = aggregating()
    calls = Calls(fleet)
    wanted = await fleet.summary(items, "data_aggregation", params=GROUPS, reducers=1)
    assert calls.steps == []
    shared = await fleet.summary(items, "data_aggregation", params=GROUPS, reducers=reducers, partition_size=60)
    assert shared["final_result"] == wanted["final_result"]
    assert len(shared["final_result"]["groups"]) == 60
    assert sorted(step.share for step in calls.steps) == list(range(reducers))


async def test_keys_are_shared_out_where_there_are_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(levels, "SHARE_BYTES", 2000)
    monkeypatch.setattr(pieces, "KEYS_HELD", 50)
    items = rows(3000, 1000)
    fleet = aggregating()
    calls = Calls(fleet)
    out = tmp_path / "out.jsonl"
    options = {"params": GROUPS, "partition_size": 1500, "to": str(out)}
    summary = await fleet.summary(items, "data_aggregation", **options)
    assert len(calls.steps) > 4
    groups = [msgspec.json.decode(line) for line in out.read_text().splitlines()]
    assert summary["final_result"] == {"saved_to": summary["final_result"]["saved_to"], "rows": len(groups)}
    direct = await fleet.summary(items, "data_aggregation", params=GROUPS, reducers=1)
    assert groups == direct["final_result"]["groups"]


class Keys(Collect):
    """Count items by what shows them."""

    def initial(self) -> Any:
        return {}

    def fold(self, acc: Any, value: Any) -> Any:
        return self.merge(acc, {str(value): 1})

    def merge(self, left: Any, right: Any) -> Any:
        for key, count in right.items():
            left[key] = left.get(key, 0) + count
        return left

    def order(self, key: str) -> str:
        return key

    def row(self, key: str, value: Any) -> Any:
        return [key, value]

    def whole(self, rows: list[Any]) -> Any:
        return rows

    def finish(self, acc: Any, failed: int = 0) -> Any:
        return [self.row(key, acc[key]) for key in sorted(acc)]


@pytest.mark.parametrize("held", [40, 250], ids=["sent ahead before the worker died", "after it"])
async def test_who_takes_a_partition_over_sends_its_keys_ahead_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, held: int
) -> None:
    monkeypatch.setattr(mapper, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(pieces, "KEYS_HELD", held)
    monkeypatch.setattr(textfile, "LIST_ITEMS", 50)
    items = [*range(200), {"await": "gate"}, *range(100, 400)]
    (tmp_path / "items.jsonl").write_text("".join(msgspec.json.encode(item).decode() + "\n" for item in items))
    broker = MemoryBroker()
    first, second = Fleet(broker, keys=Keys()), Fleet(broker, keys=Keys())
    second.functions["keys"].gate("gate").set()
    job_id = await first.sealed(str(tmp_path / "items.jsonl"), "keys", partition_size=9000, reducers=4)
    async with first.working(), asyncio.timeout(20):
        while first.functions["keys"].mapped < 201:
            await asyncio.sleep(0)
        (epoch,) = [epoch for epoch, card in (await broker.depth([])).workers.items() if card.role == "worker"]
        await broker.reap(epoch, "", crashed=True)
    async with second.working():
        state, record = await second.end(job_id)
    assert state is State.SUCCEEDED, record
    assert second.functions["keys"].mapped < len(items), "it went on from a checkpoint"
    counts = Counter(map(str, items))
    assert record.value["final_result"] == [[key, counts[key]] for key in sorted(counts)]


async def test_rows_that_nobody_can_carry_are_not_even_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reducer, "RESULT_BYTES", 5000)
    fleet = aggregating()
    state, record = await fleet.run(rows(500, 400), "data_aggregation", params=GROUPS, reducers=4)
    assert (state, record.error_type) == (State.FAILED, "JobFailed")
    assert "name a file or table for its rows with to=" in record.error_text
    assert record.detail["partial"]["final_result"] is None
    assert record.detail["partial"]["total_processed"] == 500


async def test_very_many_words_are_shared_out_by_themselves_and_the_frequent_ones_are_joined(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(levels, "SHARE_BYTES", 4000)
    monkeypatch.setattr(pieces, "INLINE_BYTES", 2000)
    monkeypatch.setattr(reducer, "RESULT_BYTES", 8000)  # of all words together much more would come
    texts = [" ".join(f"w{n * k % 3001}" for k in range(1, 20)) for n in range(600)]
    counts = Counter(word for text in texts for word in text.split())
    frequent = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:50]
    fleet = Fleet(words=word_count.WordCount())
    out = tmp_path / "words.jsonl"
    for to in (None, str(out)):
        summary = await fleet.summary(texts, "words", params={"top": 50}, partition_size=100, to=to)
        result = summary["final_result"]
        assert (result["total"], result["distinct"]) == (counts.total(), len(counts))
        assert result["words"] == [{"word": word, "count": count} for word, count in frequent]
    assert [msgspec.json.decode(line) for line in out.read_text().splitlines()] == result["words"]


async def test_a_step_that_fails_for_good_fails_the_job() -> None:
    fleet = Fleet()
    known = fleet.tasks[MERGE_TASK]

    async def call(spec: dict[str, Any], ctx: Any) -> Any:
        if spec["first"] == 4:
            raise JobFailed("no merge")
        return await known.call(spec, ctx)

    fleet.tasks._known[MERGE_TASK] = msgspec.structs.replace(known, call=call)
    state, record = await fleet.run(range(100), fan_in=4)
    assert (state, record.error_type) == (State.FAILED, "JobFailed")
    assert record.error_text == "its reduction failed: JobFailed: no merge"
    assert record.detail["partial"]["final_result"]["items"] == list(range(100))


async def test_a_job_that_failed_in_a_step_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("".join(f"{number}\n" for number in range(100)))
    fleet = Fleet()
    known, breaks = fleet.tasks[MERGE_TASK], [True]

    async def call(spec: dict[str, Any], ctx: Any) -> Any:
        if breaks and spec["first"] == 4:
            raise JobFailed("no merge")
        return await known.call(spec, ctx)

    fleet.tasks._known[MERGE_TASK] = msgspec.structs.replace(known, call=call)
    async with fleet.working():
        job_id = await fleet.sealed(str(tmp_path / "items.jsonl"), fan_in=4)
        assert (await fleet.end(job_id))[0] is State.FAILED
        breaks.clear()

        async def two() -> int:
            return 2

        feeding = await resume(fleet.broker, job_id, fleet.find, openings=fleet.openings, ahead=two)
        assert feeding is not None
        async with asyncio.timeout(20):
            await feeding
        state, record = await fleet.end(job_id)
    assert state is State.SUCCEEDED, record
    assert record.value["final_result"]["items"] == list(range(100))
    assert fleet.collect.mapped == 100, "no partition was mapped again"


async def test_a_reducer_that_dies_while_it_leaves_steps_comes_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet()
    calls = Calls(fleet)
    monkeypatch.setattr(reducer, "A_ROUND_TRIP", 2)
    deaths = [0, 2, 4]
    enqueue = fleet.broker.enqueue

    async def dying(jobs: Any) -> Any:
        if deaths and jobs[0].id.endswith(str(LEVEL + deaths[0])):
            del deaths[0]
            await enqueue(jobs)
            raise ConnectionError
        return await enqueue(jobs)

    monkeypatch.setattr(fleet.broker, "enqueue", dying)
    known = fleet.tasks[REDUCE_TASK]
    more = msgspec.structs.replace(known.options, max_attempts=9)
    fleet.tasks._known[REDUCE_TASK] = msgspec.structs.replace(known, options=more)
    summary = await fleet.summary(range(110), fan_in=2)
    assert deaths == []
    assert summary["final_result"]["items"] == list(range(110))
    firsts = [step.first for step in calls.steps]
    assert sorted(set(firsts)) == sorted(firsts), "each step was done once"


async def test_a_job_is_cancelled_while_its_steps_run() -> None:
    fleet = Fleet()
    begun, known = asyncio.Event(), fleet.tasks[MERGE_TASK]

    async def call(spec: dict[str, Any], ctx: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    fleet.tasks._known[MERGE_TASK] = msgspec.structs.replace(known, call=call)
    async with fleet.working():
        job_id, feeding = await fleet.submit(range(100), fan_in=2)
        await feeding
        async with asyncio.timeout(20):
            await begun.wait()
        taming = asyncio.create_task(tame(fleet.broker, job_id))
        await fleet.broker.wait([job_id], 0.01)
        assert not taming.done(), "steps are never late"
        assert await fleet.broker.cancel(job_id) is State.BLOCKED
        state, _ = await fleet.end(job_id)
        assert state is State.CANCELLED
        await taming


async def test_a_step_of_a_job_that_is_over_is_dropped() -> None:
    fleet = Fleet()
    ctx = Context(child_id(Ids()(), LEVEL), MERGE_TASK, "default", 1, 0, lambda _op, _number, _data: asyncio.sleep(0))
    with pytest.raises(Discard, match="the job of this step is over"):
        await fleet.tasks[MERGE_TASK].call({"first": 0, "stop": 2}, ctx)


@given(parts=st.lists(st.lists(st.tuples(st.text(max_size=3), st.integers())), max_size=5))
async def test_streams_in_order_are_one_in_order(parts: list[list[tuple[str, int]]]) -> None:
    async def stream(pairs: list[tuple[str, int]]) -> AsyncIterator[list[Any]]:
        for start in range(0, len(pairs), 3):
            yield pairs[start : start + 3]

    streams = [stream(sorted((key, (key, value)) for key, value in part)) for part in parts]
    together = [row async for some in in_order(streams, str) for row in some]
    assert [key for key, _ in together] == sorted(key for part in parts for key, _ in part)
    assert sorted(together) == sorted(pair for part in parts for pair in part)


@given(keys=st.sets(st.text(max_size=8)), low=st.integers(0, 5), more=st.integers(0, 5))
def test_a_share_is_made_of_shares(keys: set[str], low: int, more: int) -> None:
    acc = dict.fromkeys(sorted(keys), 1)
    few, many = deal(acc, low), deal(acc, low + more)
    assert [dict(sorted(share.items())) for share in few] == [
        dict(sorted((key, 1) for part in many[share :: 1 << low] for key in part)) for share in range(1 << low)
    ]
    assert few == [share_of(acc, low, share) for share in range(1 << low)]


def test_s04_keys_are_dealt_out_alike_in_each_process() -> None:
    assert ["".join(share) for share in deal(dict.fromkeys("abcdefgh", 1), 2)] == ["df", "b", "eg", "ach"]


def test_keys_that_are_no_text_are_refused() -> None:
    with pytest.raises(BadParameters, match="a reducer with row"):
        deal({1: 2}, 1)  # type: ignore[dict-item]


async def test_bytes_that_are_no_piece_are_refused() -> None:
    fleet = Fleet()
    partial = Partial(1, 1, 0, 0.0, runs=[0])
    job_id = await fleet.sealed([1])
    epoch = await fleet.broker.join(WorkerCard("h", 1, ("default",), 1, 30.0, 0.0), lambda _word: None)
    (delivery,) = (await fleet.broker.step(epoch, (), {"default": 1}, 1)).deliveries
    await fleet.broker.step(epoch, [Settled(delivery.id, Op.CHUNK, "default", 0, b"no piece")], {}, 0)
    with pytest.raises(DecodeError, match="these bytes are no piece"):
        [acc async for acc in load(fleet.broker, [(child_id(job_id, 0), partial)])]

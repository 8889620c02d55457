"""A long partition goes on where it was left; an item is tried again; what fails for good is put aside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from asyncworker.errors import BadParameters
from asyncworker.mapreduce import folding, mapper
from asyncworker.mapreduce.job import CHUNK_BYTES
from asyncworker.queue.brokers.memory import MemoryBroker
from asyncworker.queue.job import State
from tests.support.mapreduce import Fleet

PATIENCE = 20.0


def rows(path: Path, items: list[Any]) -> str:
    path.write_text("".join(msgspec.json.encode(item).decode() + "\n" for item in items))
    return str(path)


async def given_up(fleet: Fleet, mapped: int) -> None:
    """Return when so many items were mapped and its worker has been given up."""
    async with asyncio.timeout(PATIENCE):
        while fleet.collect.mapped < mapped:
            await asyncio.sleep(0)
        (epoch,) = [epoch for epoch, card in (await fleet.broker.depth([])).workers.items() if card.role == "worker"]
        await fleet.broker.reap(epoch, "", crashed=True)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapper, "CHECKPOINT_S", 0.0)


@pytest.mark.usefixtures("often")
async def test_whoever_takes_a_partition_over_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    items = [*range(2000), {"raise": "no"}, {"await": "gate"}, *range(500)]
    broker = MemoryBroker()
    first, second = Fleet(broker), Fleet(broker)
    second.collect.gate("gate").set()
    job_id = await first.sealed(rows(tmp_path / "rows.jsonl", items), partition_size=5000)
    async with first.working():
        await given_up(first, 2002)
    async with second.working():
        state, record = await second.end(job_id)
    assert state is State.SUCCEEDED
    assert record.value["final_result"] == {"items": [item for item in items if item != {"raise": "no"}], "failed": 1}
    assert record.value["total_processed"] == len(items)
    assert [failure["key"] for failure in record.value["failures"]] == [2001]
    assert second.collect.mapped < 700


@pytest.mark.usefixtures("often")
async def test_a_checkpoint_that_is_too_large_is_left_out(tmp_path: Path) -> None:
    items = ["x" * 1000] * (CHUNK_BYTES // 1000 + 500) + [{"await": "gate"}]
    broker = MemoryBroker()
    first, second = Fleet(broker), Fleet(broker)
    second.collect.gate("gate").set()
    job_id = await first.sealed(rows(tmp_path / "rows.jsonl", items), partition_size=5000)
    async with first.working():
        await given_up(first, len(items))
    async with second.working():
        state, record = await second.end(job_id)
    assert state is State.SUCCEEDED
    assert record.value["final_result"]["items"] == items


@pytest.mark.usefixtures("often")
async def test_what_was_put_aside_before_a_checkpoint_is_not_forgotten(tmp_path: Path) -> None:
    items = [{"raise": "a"}, *range(1500), {"await": "gate"}, {"raise": "b"}]
    broker = MemoryBroker()
    first, second = Fleet(broker), Fleet(broker)
    second.collect.gate("gate").set()
    bad = tmp_path / "bad.jsonl"
    job_id = await first.sealed(rows(tmp_path / "rows.jsonl", items), partition_size=5000, failed_to=str(bad))
    async with first.working():
        await given_up(first, 1502)
    async with second.working():
        assert (await second.end(job_id))[0] is State.SUCCEEDED
    assert [msgspec.json.decode(line)["error_text"] for line in bad.read_text().splitlines()] == ["a", "b"]


class Flaky:
    """Fails the first time, and the second."""

    name = "flaky"
    summary = "Fail twice."
    schema: ClassVar[dict[str, Any]] = {}
    fields = ()

    def __init__(self) -> None:
        self.tried: dict[int, int] = {}

    def prepare(self, params: Any) -> Flaky:
        return self

    def initial(self) -> Any:
        return []

    def map(self, item: Any) -> Any:
        self.tried[item] = self.tried.get(item, 0) + 1
        if self.tried[item] < 3:
            raise OSError(f"{item} is busy")
        return item

    def fold(self, acc: Any, value: Any) -> Any:
        acc.append(value)
        return acc

    def merge(self, left: Any, right: Any) -> Any:
        return left + right

    def finish(self, acc: Any, failed: int = 0) -> Any:
        return acc


async def test_an_item_is_tried_again_and_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "BACKOFF_S", 0.0)
    summary = await Fleet(flaky=Flaky()).summary(list(range(50)), "flaky", item_attempts=3)
    assert (summary["final_result"], summary["total_failed"]) == (list(range(50)), 0)
    assert summary["processing_stats"]["digest"]["item_retries"] == 100
    summary = await Fleet(flaky=Flaky()).summary(list(range(50)), "flaky", item_attempts=2)
    assert (summary["final_result"], summary["total_failed"]) == ([], 50)


async def test_a_partition_is_tried_as_often_as_was_asked_for() -> None:
    class Broken(Flaky):
        runs = 0

        def initial(self) -> Any:
            Broken.runs += 1
            raise OSError("no")

    fleet = Fleet(broken=Broken())
    state, record = await fleet.run([1], "broken", partition_attempts=2)
    assert state is State.FAILED
    assert "partition 0: OSError: no" in record.error_text or record.error_type == "OSError"
    mapped = Broken.runs
    assert mapped >= 2


@pytest.mark.parametrize("wrong", [{"item_attempts": 0}, {"partition_attempts": 0}, {"item_attempts": 1.5}])
async def test_attempts_are_whole_numbers(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadParameters):
        await Fleet().submit([1], **wrong)


async def test_failed_items_go_to_their_own_sink_with_their_errors(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    items = [{"raise": f"no {n}"} if n % 3 == 0 else n for n in range(300)]
    summary = await Fleet().summary(items, to=str(good), failed_to=str(bad))
    assert summary["total_failed"] == 100
    told = [msgspec.json.decode(line) for line in bad.read_text().splitlines()]
    assert told[1] == {"key": 3, "error_type": "ValueError", "error_text": "no 3", "item": {"raise": "no 3"}}
    assert [one["key"] for one in told] == list(range(0, 300, 3))


async def test_failed_items_are_there_also_of_a_job_that_failed_of_them(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    state, _ = await Fleet().run([{"raise": "no"}, 1], max_failures=0.1, failed_to=str(bad))
    assert state is State.FAILED
    assert len(bad.read_text().splitlines()) == 1


async def test_too_many_failed_items_to_hold_fail_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "REJECTED_BYTES", 1000)
    state, record = await Fleet().run([{"raise": "no" * 100}] * 10, failed_to=str(tmp_path / "bad.jsonl"))
    assert state is State.FAILED
    assert "make partitions smaller" in record.error_text


async def test_an_item_that_cannot_travel_is_told_of_without_itself() -> None:
    deep: Any = []
    for _ in range(100_000):  # deeper than any Python goes
        deep = [deep]
    under_way = folding.Folding(Flaky(), None, 1, reject=True)
    under_way._put_aside(1, "E", "text", deep)
    assert msgspec.json.decode(under_way.rejected[0])["item"] is None

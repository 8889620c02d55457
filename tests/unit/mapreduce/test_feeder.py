"""Submitting: what is wrong leaves no job; what goes wrong later ends it; and no more is shipped than is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from asyncworker.errors import BadParameters, BrokerDown, QueueFull, SourceError, UnknownName
from asyncworker.mapreduce import feeder
from asyncworker.queue.brokers.memory import MemoryBroker
from asyncworker.queue.codec import is_id
from asyncworker.queue.job import Depth, Job, State, child_id
from tests.support.mapreduce import PATIENCE, Fleet


async def nothing_left(fleet: Fleet) -> Depth:
    depth = await fleet.broker.depth(["default"])
    assert depth.queues["default"].enqueued == 0
    assert depth.workers == {}
    return depth


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"source": "no/such/file.jsonl"}, SourceError),
        ({"source": "data.unheard_of"}, (UnknownName, SourceError)),
        ({"params": {"wrong": 1}}, BadParameters),
        ({"params": {"x": object()}}, BadParameters),
        ({"to": "rows.unheard_of"}, UnknownName),
        ({"partition_size": 0}, BadParameters),
        ({"partition_size": True}, BadParameters),
        ({"in_flight": 0}, BadParameters),
        ({"max_failures": -1}, BadParameters),
        ({"max_failures": 1.5}, BadParameters),
        ({"max_failures": float("nan")}, BadParameters),
        ({"max_failures": True}, BadParameters),
    ],
)
async def test_s03_wrong_input_is_told_to_the_caller_and_leaves_no_job(changed: dict[str, Any], error: Any) -> None:
    fleet = Fleet()
    options = {"source": [1, 2, 3]} | changed
    with pytest.raises(error):
        await fleet.submit(options.pop("source"), **options)
    await nothing_left(fleet)


async def test_s03_a_broker_that_is_down_leaves_nothing_either() -> None:
    class Down(MemoryBroker):
        async def enqueue(self, jobs: Any) -> Any:
            raise BrokerDown

    fleet = Fleet(Down())
    with pytest.raises(BrokerDown):
        await fleet.submit([1])
    await nothing_left(fleet)


async def test_s15_an_unknown_function_is_refused_at_submit() -> None:
    with pytest.raises(UnknownName):
        await Fleet().submit([1], "colect")


async def test_s05_a_thousand_submits_at_once_have_a_thousand_ids() -> None:
    fleet = Fleet()
    submitted = await asyncio.gather(*(fleet.submit([number]) for number in range(1000)))
    await asyncio.gather(*(feeding for _, feeding in submitted))
    ids = {job_id for job_id, _ in submitted}
    assert len(ids) == 1000
    assert all(is_id(job_id) for job_id in ids)
    assert all(found and found.children and found.children.sealed for found in await fleet.broker.find(list(ids)))


async def test_an_iterable_is_shipped_and_comes_back_in_order() -> None:
    items = [*range(95), "ünïcode", None, 1.5, [], {"a": 1}]
    summary = await Fleet().summary(items)
    assert summary["final_result"] == {"items": items, "failed": 0}
    assert summary["partitions_processed"] == 10


async def test_a_file_is_read_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text("".join(f"{number}\n" for number in range(2500)))
    fleet = Fleet()
    job_id = await fleet.sealed(str(path), partition_size=1000)
    (found,) = await fleet.broker.find([child_id(job_id, 0)])
    assert found is not None
    assert len(found.payload) < 200
    async with fleet.working():
        state, record = await fleet.end(job_id)
    assert state is State.SUCCEEDED
    assert record.value["final_result"]["items"] == list(range(2500))
    assert record.value["partitions_processed"] == 3


@pytest.mark.parametrize("limit", [{"ahead": 3}, {"in_flight": 3}, {"ahead": 9, "in_flight": 3}])
async def test_no_more_is_read_ahead_than_wanted(limit: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "WINDOW", 1)
    fleet = Fleet()
    pulled = 0

    def items() -> Iterator[int]:
        nonlocal pulled
        for pulled in range(1, 21):  # noqa: UP028 - counts as it goes
            yield pulled

    job_id, feeding = await fleet.submit(items(), partition_size=1, **limit)
    for _ in range(100):
        await asyncio.sleep(0)
    assert pulled == 4  # three shipped, one in hand
    assert (await fleet.broker.depth(["default"])).queues["default"].queued == 3
    async with fleet.working():
        state, record = await fleet.end(job_id)
    await feeding
    assert state is State.SUCCEEDED
    assert record.value["total_processed"] == 20


async def test_small_partitions_are_shipped_and_bounded_by_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(MemoryBroker):
        calls = 0

        async def enqueue(self, jobs: Sequence[Job]) -> Any:
            self.calls += 1
            return await super().enqueue(jobs)

    monkeypatch.setattr(feeder, "WINDOW", 4)
    fleet = Fleet(broker := Counting())
    pulled = 0

    def items() -> Iterator[int]:
        nonlocal pulled
        for pulled in range(1, 41):  # noqa: UP028 - counts as it goes
            yield pulled

    job_id, feeding = await fleet.submit(items(), partition_size=1, ahead=2)
    for _ in range(100):
        await asyncio.sleep(0)
    assert pulled == 12  # two windows shipped, one in hand
    assert (await broker.depth(["default"])).queues["default"].queued == 8
    async with fleet.working():
        state, record = await fleet.end(job_id)
    await feeding
    assert (state, record.value["total_processed"]) == (State.SUCCEEDED, 40)
    assert broker.calls <= 1 + 11


async def test_large_partitions_are_windows_of_their_own() -> None:
    fleet = Fleet()
    pulled = 0

    def items() -> Iterator[str]:
        nonlocal pulled
        for pulled in range(1, 11):  # noqa: B007 - counts as it goes
            yield "x" * feeder.WINDOW_BYTES

    job_id, feeding = await fleet.submit(items(), partition_size=1, ahead=2)
    for _ in range(100):
        await asyncio.sleep(0)
    assert pulled == 3
    async with fleet.working():
        assert (await fleet.end(job_id))[0] is State.SUCCEEDED
    await feeding


async def test_a_lone_partition_waits_for_nobody() -> None:
    fleet = Fleet()
    go_on = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        for number in range(3):
            yield number
            await go_on.wait()

    async with fleet.working():
        job_id, feeding = await fleet.submit(items(), partition_size=1)
        async with asyncio.timeout(PATIENCE):
            while fleet.collect.mapped < 1:
                await asyncio.sleep(0)
        go_on.set()
        await feeding
        assert (await fleet.end(job_id))[0] is State.SUCCEEDED


async def test_in_flight_bounds_files_too(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text("1\n" * 20)
    fleet = Fleet()
    job_id, feeding = await fleet.submit(str(path), partition_size=1, in_flight=2)
    async with fleet.working():
        state, _ = await fleet.end(job_id)
    await feeding
    assert state is State.SUCCEEDED
    assert fleet.collect.mapped == 20


async def test_a_slow_partition_does_not_hold_back_the_others() -> None:
    fleet = Fleet()
    items = [{"await": "slow"}, *range(30)]
    async with fleet.working():
        job_id, feeding = await fleet.submit(items, partition_size=1, in_flight=2)
        async with asyncio.timeout(PATIENCE):
            await feeding
            await fleet.broker.wait([child_id(job_id, number) for number in range(1, 31)], None)
        fleet.collect.gate("slow").set()
        state, _ = await fleet.end(job_id)
    assert state is State.SUCCEEDED


async def test_a_source_that_breaks_half_way_fails_the_job_for_the_same_reason() -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(25):
            yield number
        raise OSError("the disk is gone")

    fleet = Fleet()
    job_id, feeding = await fleet.submit(items(), ahead=10)
    with pytest.raises(OSError, match="the disk is gone"):
        await feeding
    state, record = await fleet.end(job_id)
    assert state is State.FAILED
    assert (record.reason, record.error_type, record.error_text) == ("error", "OSError", "the disk is gone")
    assert record.task == "asyncworker.reduce"
    async with fleet.working():  # what was shipped already is dropped, not run
        assert await fleet.summary([1])
    assert fleet.collect.mapped == 1
    assert (await fleet.broker.depth([])).workers == {}


async def test_cancelling_the_feeding_cancels_the_job() -> None:
    fleet = Fleet()
    job_id, feeding = await fleet.submit(range(100), ahead=1)
    feeding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await feeding
    state, record = await fleet.end(job_id)
    assert state is State.CANCELLED
    assert "interrupted" in record.error_text
    assert (await fleet.broker.depth([])).workers == {}


async def test_s13_a_cancelled_job_is_fed_no_more() -> None:
    fleet = Fleet()
    job_id, feeding = await fleet.submit([{"await": "never"}] * 100, partition_size=1, in_flight=4)
    async with fleet.working():
        async with asyncio.timeout(PATIENCE):
            while fleet.collect.mapped < 4:
                await asyncio.sleep(0)
            assert await fleet.broker.cancel(job_id) is State.RUNNING
            await feeding
        state, _ = await fleet.end(job_id)
        assert state is State.CANCELLED
        assert await fleet.summary([1])
    assert fleet.collect.mapped == 5


async def test_another_job_that_ends_makes_no_room_for_this_one() -> None:
    fleet = Fleet()
    job_id, feeding = await fleet.submit([{"await": "gate"}] * 9, partition_size=1, in_flight=3)
    async with fleet.working():
        for _ in range(3):
            assert await fleet.summary([1])
        assert fleet.collect.mapped == 3 + 3
        fleet.collect.gate("gate").set()
        assert (await fleet.end(job_id))[0] is State.SUCCEEDED
        await feeding


async def test_a_submitter_that_dies_fails_its_job_instead_of_leaving_it() -> None:
    fleet = Fleet()
    go_on = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2
        await go_on.wait()
        yield 3
        yield 4

    async with fleet.working():
        job_id, feeding = await fleet.submit(items(), partition_size=1)
        await fleet.reached(job_id, done=1)
        (epoch,) = [epoch for epoch, card in (await fleet.broker.depth([])).workers.items() if card.role == "feeder"]
        assert await fleet.broker.reap(epoch, "", crashed=True) == 1
        state, record = await fleet.end(job_id)
        go_on.set()
        await feeding  # it finds its job closed, and leaves it at that
    assert state is State.FAILED
    assert "the submitter died" in record.error_text
    assert record.error_type == "JobFailed"
    assert record.detail["partial"]["final_result"]["items"][0] == 1


async def test_outages_and_full_queues_are_waited_out_and_nothing_is_shipped_twice() -> None:
    class Shaky(MemoryBroker):
        calls = 0

        async def enqueue(self, jobs: Any) -> Any:
            self.calls += 1
            if self.calls % 5 == 2:
                await super().enqueue(jobs)  # the answer is lost
                raise BrokerDown
            if self.calls == 4:
                raise QueueFull
            return await super().enqueue(jobs)

    summary = await Fleet(Shaky()).summary(list(range(95)))
    assert summary["final_result"]["items"] == list(range(95))


async def test_an_empty_source_comes_to_the_identity() -> None:
    summary = await Fleet().summary([])
    assert summary["final_result"] == {"items": [], "failed": 0}
    assert summary["total_processed"] == summary["partitions_processed"] == 0
    assert summary["success_rate"] == 0.0


async def test_a_long_feeding_keeps_its_lease() -> None:
    loop, alive = asyncio.get_running_loop(), asyncio.Event()

    class Heard(MemoryBroker):
        beats = 0

        def beat(self, epoch: str, *, look: bool = True) -> Any:
            self.beats += 1
            if self.beats == 3:
                loop.call_soon_threadsafe(alive.set)
            return super().beat(epoch, look=look)

    async def items() -> AsyncIterator[int]:
        yield 1
        await alive.wait()
        yield 2

    fleet = Fleet(Heard())
    job_id = await fleet.sealed(items(), partition_size=1, lease_s=0.2)
    async with fleet.working():
        state, _ = await fleet.end(job_id)
    assert state is State.SUCCEEDED

"""A map/reduce job's life over each broker: it ends, once, with the truth about itself, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from asyncworker.mapreduce.catalogue import find_function
from asyncworker.mapreduce.progress import watch
from asyncworker.queue.job import State, child_id
from tests.support.brokers import Make, makes
from tests.support.mapreduce import PATIENCE, Fleet


@pytest.fixture(params=makes())
async def fleet(request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    make: Make = request.param
    fleet = Fleet(make.open(request, None))
    yield fleet
    await fleet.broker.close()


async def test_a_file_and_an_iterable_come_to_the_same(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text("".join(f"{number}\n" for number in range(5000)) + "no JSON\n")
    summary = await fleet.summary(str(path), partition_size=100)
    assert summary["final_result"] == {"items": list(range(5000)), "failed": 1}
    assert (summary["failures"][0]["key"], summary["partitions_processed"]) == (5001, 51)
    again = await fleet.summary(range(5000), partition_size=100)
    assert again["final_result"]["items"] == summary["final_result"]["items"]


async def test_large_partials_travel_in_pieces(fleet: Fleet) -> None:
    items = ["x" * 700_000, "y" * 900_000, "z" * 1_200_000]
    summary = await fleet.summary(items, partition_size=2)
    assert summary["final_result"]["items"] == items


async def test_progress_is_seen_while_it_runs(fleet: Fleet) -> None:
    items = [number if number < 3 else {"await": "go"} for number in range(10)]
    async with fleet.working():
        job_id = await fleet.sealed(items, partition_size=1, ahead=10)
        now = await fleet.reached(job_id, done=3)
        assert (now.done, now.total, now.items, now.state) == (3, 10, 3, State.RUNNING)
        fleet.collect.gate("go").set()
        async with asyncio.timeout(PATIENCE):
            last = [now async for now in watch(fleet.broker, job_id, 0.05)][-1]
    assert (last.done, last.total, last.items, last.state) == (10, 10, 10, State.SUCCEEDED)


async def test_s13_cancelling_ends_it_and_leaves_others_alone(fleet: Fleet) -> None:
    async with fleet.working():
        job_id, feeding = await fleet.submit([{"await": "never"}] * 30, partition_size=1, in_flight=3)
        other = asyncio.create_task(fleet.broker.wait([await fleet.sealed([1, 2, 3])], PATIENCE))
        async with asyncio.timeout(PATIENCE):
            while fleet.collect.mapped < 6:
                await asyncio.sleep(0.001)
            await fleet.broker.cancel(job_id)
            await feeding
        state, _ = await fleet.end(job_id)
        (ended,) = await other
    assert state is State.CANCELLED
    assert ended is not None
    assert ended.state is State.SUCCEEDED
    assert fleet.collect.mapped == 6


async def test_s09_a_partition_that_fails_for_good_ends_it_with_what_did_succeed(fleet: Fleet) -> None:
    items = [*range(9), {"raise": "no"}, *[{"await": "never"}] * 5]
    async with fleet.working():
        job_id, feeding = await fleet.submit(items, partition_size=3, in_flight=20, max_failures=0)
        await feeding
        state, record = await fleet.end(job_id)
    assert state is State.FAILED
    assert "no" in record.error_text
    assert record.detail["partial"]["partitions_failed"] == 1
    assert set(record.detail["partial"]["final_result"]["items"]) <= set(range(9))


async def test_a_submitter_that_dies_ends_it(fleet: Fleet) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(12):
            yield number
        await died.wait()
        yield 0

    died = asyncio.Event()
    async with fleet.working():
        job_id, feeding = await fleet.submit(items(), partition_size=10)
        await fleet.reached(job_id, done=1)
        (epoch,) = [epoch for epoch, card in (await fleet.broker.depth([])).workers.items() if card.role == "feeder"]
        assert await fleet.broker.reap(epoch, "", crashed=True) == 1
        state, record = await fleet.end(job_id)
        died.set()
        await asyncio.wait([feeding])
    assert state is State.FAILED
    assert "the submitter died" in record.error_text
    done, dropped = await fleet.broker.find([child_id(job_id, 0), child_id(job_id, 1)])
    assert done is not None, "what partitions came to is kept for whoever resumes the job"
    assert dropped is None or dropped.state is State.SUCCEEDED


async def test_a_source_that_breaks_ends_it(fleet: Fleet) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(25):
            yield number
        raise OSError("the disk is gone")

    async with fleet.working():
        job_id, feeding = await fleet.submit(items())
        with pytest.raises(OSError, match="the disk is gone"):
            await feeding
        state, record = await fleet.end(job_id)
    assert (state, record.error_text) == (State.FAILED, "the disk is gone")


@pytest.mark.long
async def test_s11_memory_stays_flat_over_two_million_items(fleet: Fleet, tmp_path: Path) -> None:
    fleet.functions["data_validation"] = find_function("data_validation")
    rules = {"validation_rules": {"required_fields": ["id"], "range_validations": {"id": {"max": 1_999_000}}}}
    path = tmp_path / "many.jsonl"
    with path.open("w") as file:
        file.writelines(f'{{"id":{number},"name":"n{number}"}}\n' for number in range(2_000_000))
    process, most = psutil.Process(), 0
    async with fleet.working():
        warm = await fleet.sealed([{"id": 1}], "data_validation", params=rules)
        await fleet.end(warm)
        before = process.memory_info().rss
        job_id = await fleet.sealed(str(path), "data_validation", params=rules, partition_size=10_000)
        async for _ in watch(fleet.broker, job_id, 0.05):
            most = max(most, process.memory_info().rss)
        state, record = await fleet.end(job_id)
    assert state is State.SUCCEEDED
    assert record.value["total_processed"] == 2_000_000
    assert record.value["final_result"]["invalid_count"] == 999
    assert most - before < 64 * 2**20

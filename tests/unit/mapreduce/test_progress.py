"""How far a job is: true, monotone, and told at once when it is over."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.errors import JobNotFound
from asyncworker.mapreduce.progress import Meter, Progress, describe, watch
from asyncworker.queue import job as words
from asyncworker.queue.codec import Ids, pack, pack_call
from asyncworker.queue.job import Found, Job, Record, State, child_id
from tests.support.clock import FrozenClock
from tests.support.mapreduce import PATIENCE, Fleet

new_id = Ids()


async def collected(fleet: Fleet, job_id: str, every: float = 0.005) -> list[Progress]:
    async with asyncio.timeout(PATIENCE):
        return [now async for now in watch(fleet.broker, job_id, every)]


async def test_s08_three_of_ten_are_thirty_percent_and_it_never_falls() -> None:
    fleet = Fleet()
    items = [number if number < 3 else {"await": "go"} for number in range(10)]
    async with fleet.working():
        job_id = await fleet.sealed(items, partition_size=1, ahead=10)
        now = await fleet.reached(job_id, done=3)
        assert (now.done, now.total, now.items, now.ratio, now.state) == (3, 10, 3, 0.3, State.RUNNING)
        assert now.eta_s is not None
        assert now.eta_s > 0
        watching = asyncio.create_task(collected(fleet, job_id))
        await asyncio.sleep(0)
        fleet.collect.gate("go").set()
        seen = await watching
    assert [now.done for now in seen] == sorted(now.done for now in seen)
    assert [now.items for now in seen] == sorted(now.items for now in seen)
    last = seen[-1]
    assert (last.done, last.total, last.items, last.ratio, last.eta_s) == (10, 10, 10, 1.0, 0.0)
    assert last.state is State.SUCCEEDED
    assert last.items_per_s > 0


async def test_the_first_look_comes_at_once_and_the_last_as_soon_as_it_is_over() -> None:
    fleet = Fleet()
    job_id = await fleet.sealed([1])
    watcher = watch(fleet.broker, job_id, every=3600.0)
    first = await anext(watcher)
    assert (first.state, first.done, first.total) == (State.QUEUED, 0, 1)
    async with fleet.working():
        async with asyncio.timeout(PATIENCE):
            last = await anext(watcher)
    assert last.state is State.SUCCEEDED
    with pytest.raises(StopAsyncIteration):
        await anext(watcher)


async def test_a_job_that_is_over_can_still_be_looked_at() -> None:
    fleet = Fleet()
    job_id = await fleet.sealed([1, 2, {"raise": "no"}], partition_size=2, ahead=5)
    async with fleet.working():
        await fleet.end(job_id)
    (only,) = await collected(fleet, job_id)
    assert (only.state, only.done, only.total, only.items) == (State.SUCCEEDED, 2, 2, 3)


async def test_a_failed_job_says_how_far_it_came() -> None:
    fleet = Fleet()
    async with fleet.working():
        job_id = await fleet.sealed([{"raise": "no"}, {"await": "never"}], partition_size=1, ahead=5, max_failures=0)
        await fleet.end(job_id)
    (only,) = await collected(fleet, job_id)
    assert (only.state, only.done, only.failed, only.total) == (State.FAILED, 1, 1, 2)


async def test_an_id_that_nobody_knows_and_a_job_of_another_kind_are_not_found() -> None:
    fleet = Fleet()
    other = new_id()
    await fleet.broker.enqueue([Job(other, "other", pack_call("other", (), {}))])
    for job_id in (new_id(), "nonsense", other):
        with pytest.raises(JobNotFound):
            await anext(watch(fleet.broker, job_id, 1.0))
        with pytest.raises(JobNotFound):
            await describe(fleet.broker, job_id)


async def test_s21_partitions_are_described_by_what_was_measured() -> None:
    fleet = Fleet()
    items = [*range(20), *[{"await": "go"}] * 5]
    async with fleet.working():
        job_id = await fleet.sealed(items, params={"colour": "red"}, ahead=5)
        await fleet.reached(job_id, done=2)
        job = await describe(fleet.broker, job_id, partitions=True)
        fleet.collect.gate("go").set()
        await fleet.end(job_id)
    assert (job.status, job.processing_function, job.parameters) == ("running", "collect", {"colour": "red"})
    assert (job.end_time, job.result, job.error) == (0.0, None, None)
    done, waiting = job.partitions[:2], job.partitions[2]
    assert [part.data_range for part in job.partitions] == [(0, 10), (10, 20), (20, 25)]
    assert [part.partition_id for part in job.partitions] == [child_id(job_id, part) for part in range(3)]
    assert all(part.assigned_worker and ":" in part.assigned_worker for part in done)
    assert waiting.assigned_worker is None
    mean = sum(part.estimated_processing_time for part in done) / 20
    assert waiting.estimated_processing_time == pytest.approx(5 * mean)
    after = await describe(fleet.broker, job_id, partitions=True)
    assert (after.status, after.processing_function, after.partitions) == ("completed", "collect", [])
    assert after.result["total_processed"] == 25
    assert after.end_time >= after.start_time > 0


def looked(job_id: str, state: State = State.BLOCKED, record: bytes = b"", **counts: Any) -> Found:
    defaults = {"total": 0, "done": 0, "failed": 0, "units": 0, "sealed": True, "over": False}
    return Found(job_id, state, record=record, children=words.Progress(**(defaults | counts)))


def test_the_rate_is_that_of_late_and_the_rest_is_estimated_from_it() -> None:
    clock = FrozenClock()
    job_id = new_id()
    meter = Meter(job_id, clock)
    meter._marks[0] = (clock.monotonic(), 0, 0)
    for done in range(1, 31):
        clock.advance(10.0)
        meter.read(looked(job_id, total=100, done=done, units=done * 100), None)
    for done in range(31, 61):
        clock.advance(1.0)
        now = meter.read(looked(job_id, total=100, done=done, units=done * 100), None)
    assert now.items_per_s == pytest.approx(100.0)
    assert now.eta_s == pytest.approx(40.0)
    clock.advance(100.0)
    now = meter.read(looked(job_id, total=100, done=60, units=6000), None)
    assert now.items_per_s < 15  # it has been standing still
    assert now.eta_s is not None
    assert now.eta_s > 250


def test_nothing_is_estimated_before_it_is_known() -> None:
    clock = FrozenClock()
    job_id = new_id()
    meter = Meter(job_id, clock)
    clock.advance(1.0)
    assert meter.read(looked(job_id, total=5), None).eta_s is None
    now = meter.read(looked(job_id, total=5, done=2, units=9, sealed=False), None)
    assert (now.eta_s, now.ratio) == (None, 0.0)


def test_a_job_waits_until_its_first_partition_has_begun() -> None:
    job_id = new_id()
    meter = Meter(job_id, FrozenClock())
    first = Found(child_id(job_id, 0), State.QUEUED)
    assert meter.read(looked(job_id, State.RUNNING, total=5), first).state is State.QUEUED
    first = Found(child_id(job_id, 0), State.RUNNING)
    assert meter.read(looked(job_id, State.RUNNING, total=5), first).state is State.RUNNING
    first = Found(child_id(job_id, 0), State.QUEUED)  # its worker died
    assert meter.read(looked(job_id, State.RUNNING, total=5), first).state is State.RUNNING


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.floats(0, 20)), max_size=30), st.booleans())
def test_s08_progress_is_monotone_whatever_is_seen(steps: list[tuple[int, int, float]], cancelled: bool) -> None:
    clock = FrozenClock()
    job_id = new_id()
    meter = Meter(job_id, clock)
    total = done = 0
    seen = []
    for more, ended, seconds in steps:
        total += more
        done = min(total, done + ended)
        clock.advance(seconds)
        seen.append(meter.read(looked(job_id, total=total, done=done, units=7 * done, sealed=False), None))
    state = State.CANCELLED if cancelled else State.SUCCEEDED
    record = pack(Record(task="asyncworker.reduce", ended_s=clock.now(), value={"partitions_processed": done}))
    seen.append(meter.read(Found(job_id, state, record=b"" if cancelled else record), None))
    for earlier, later in pairwise(seen):
        assert later.done >= earlier.done
        assert later.items >= earlier.items
        assert later.done <= later.total
        assert later.items_per_s >= 0
    assert seen[-1].state is state
    assert seen[-1].done == done

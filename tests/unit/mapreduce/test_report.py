"""Where the time of a job went."""

from __future__ import annotations

import asyncio
from functools import reduce
from operator import add
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.errors import JobNotFound
from asyncworker.mapreduce.digest import SLOWEST, Digest, Slow
from asyncworker.mapreduce.functions import word_count
from asyncworker.mapreduce.report import report
from asyncworker.queue.codec import Ids
from asyncworker.queue.job import State
from tests.support.mapreduce import PATIENCE, Fleet


def one(part: int, seconds: float, items: int = 10) -> Digest:
    return Digest(
        partitions=1,
        items=items,
        seconds=seconds,
        map_s=seconds,
        began=seconds,
        ended=seconds,
        slowest=[Slow(part, items, seconds)],
    )


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40))
def test_digests_come_to_the_same_in_any_order(times: list[float]) -> None:
    parts = [one(part, seconds) for part, seconds in enumerate(times)]
    forward, backward = reduce(add, parts), reduce(add, reversed(parts))
    assert forward.slowest == backward.slowest
    assert len(forward.slowest) == min(SLOWEST, len(times))
    assert forward.slowest[0].seconds == max(times)
    assert forward.began == min((time for time in times if time), default=0)
    assert forward.ended == max(times)
    assert (forward.partitions, forward.items) == (len(times), 10 * len(times))
    assert forward.seconds == pytest.approx(backward.seconds)


def test_skew_is_how_far_the_slowest_is_from_the_mean() -> None:
    assert Digest().skew == 0
    assert reduce(add, [one(part, 2.0) for part in range(4)]).skew == 1
    assert reduce(add, [one(0, 10.0), *(one(part, 1.0) for part in range(1, 10))]).skew == pytest.approx(10 / 1.9)


async def test_a_job_that_is_over_is_reported_from_its_result() -> None:
    fleet = Fleet()
    async with fleet.working():
        job_id = await fleet.sealed([*range(95), {"raise": "no"}])
        await fleet.end(job_id)
        told = await report(fleet.broker, job_id)
    assert (told.state, told.phase, told.items) == (State.SUCCEEDED, "", 96)
    assert (told.partitions_done, told.partitions_total, told.digest.partitions) == (10, 10, 10)
    assert sum(told.shares.values()) == pytest.approx(1)
    assert len(told.digest.slowest) == 10
    assert told.digest.slowest[0].worker
    assert told.skew >= 1
    assert told.items_per_s > 0


@pytest.mark.parametrize(
    ("how", "steps"), [({}, 0), ({"fan_in": 2}, 8 + 4 + 2), ({"fan_in": 5}, 4), ({"reducers": 4}, 4)]
)
async def test_it_tells_what_each_step_took_and_when(how: dict[str, Any], steps: int) -> None:
    fleet = Fleet(words=word_count.WordCount())
    async with fleet.working():
        job_id = await fleet.sealed([f"w{n}" for n in range(160)], "words", **how)
        await fleet.end(job_id)
        told = await report(fleet.broker, job_id)
    assert (told.digest.partitions, told.digest.steps) == (16, steps)
    assert told.steps["reducing"] == told.digest.reduce_s > 0
    assert (told.steps["shuffling"] > 0) is (steps > 0)
    assert told.steps["reading"] + told.steps["mapping"] + told.steps["sending"] == pytest.approx(told.digest.seconds)
    planning, mapping, reducing = told.stretches.values()
    assert min(planning, mapping, reducing) >= 0
    assert mapping + reducing <= told.seconds + 0.01
    assert told.digest.cut_until <= told.digest.ended
    assert 0 < told.digest.began <= told.digest.ended


async def test_a_job_under_way_tells_what_runs() -> None:
    fleet = Fleet()
    async with fleet.working():
        job_id = await fleet.sealed([*range(25), {"await": "gate"}])
        async with asyncio.timeout(PATIENCE):
            while (told := await report(fleet.broker, job_id)).partitions_done < 2 or not told.running:
                await asyncio.sleep(0)
        assert (told.phase, told.partitions_total, told.digest.partitions) == ("mapping", 3, 2)
        assert [(running.partition, running.items) for running in told.running] == [(2, 6)]
        assert told.stretches["reducing"] == told.steps["reducing"] == 0
        assert told.stretches["mapping"] > 0
        fleet.collect.gate("gate").set()
        await fleet.end(job_id)


async def test_who_left_nothing_is_told_so() -> None:
    fleet = Fleet()
    with pytest.raises(JobNotFound):
        await report(fleet.broker, Ids()())
    job_id = await fleet.sealed([1])
    await fleet.broker.cancel(job_id)
    with pytest.raises(JobNotFound, match="report"):
        await report(fleet.broker, job_id)

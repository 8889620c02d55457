"""Partitions of the size ``auto``: first small, then as large as a partition should take, smaller at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.mapreduce import pace
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.job import read_call
from asyncworker.mapreduce.planner import FIRST, GROWTH, LEAST_S, MOST, RESULT_BYTES, TARGET_S, UNKNOWN, Sizing
from asyncworker.mapreduce.sources.source import Partition
from asyncworker.queue.brokers.memory import MemoryBroker
from asyncworker.queue.job import State
from tests.support.datasets import KINDS, all_pairs
from tests.support.mapreduce import Fleet

PATIENCE = 20.0


def test_the_first_partitions_are_small_and_grow_no_faster_than_is_known():
    sizing = Sizing(4)
    assert sizing() == FIRST
    sizing.measured(FIRST, 0.001, 0)
    assert sizing() == GROWTH * FIRST
    sizing.measured(GROWTH * FIRST, 0.01, 0)
    assert sizing() == GROWTH**2 * FIRST


def test_a_partition_takes_as_long_as_it_should():
    sizing = Sizing(4)
    for _ in range(20):
        items = sizing()
        sizing.measured(items, items / 5000, 0)
    assert abs(sizing() / 5000 - TARGET_S) < 0.05


def test_one_that_is_opened_for_long_does_not_keep_the_next_small():
    sizing = Sizing(4)
    for _ in range(20):
        items = sizing()
        sizing.measured(items, 0.05 + items / 100_000, 0)
    assert sizing() > TARGET_S * 100_000 / 1.2


def test_at_the_tail_a_partition_is_a_part_of_each_share_of_what_is_left():
    left = 1e9
    sizing = Sizing(4, lambda: left)
    sizing.measured(100_000, 1.0, 0)
    before = sizing()
    left = 160_000.0
    assert sizing() == 10_000 < before
    left = 10.0
    assert sizing() == LEAST_S * 100_000


def test_what_comes_to_much_is_bounded_by_memory():
    sizing = Sizing(4)
    sizing.measured(1000, 0.001, 1000 * 2**20)
    assert sizing() == RESULT_BYTES // 2**20


def test_nobody_is_waited_for_for_ever():
    sizing = Sizing(0)
    sizing.give_up()
    assert sizing() == UNKNOWN
    sizing.measured(0, 1.0, 5)
    assert sizing() == UNKNOWN


@given(
    st.lists(st.tuples(st.integers(0, 10**7), st.floats(0, 1e6), st.integers(0, 2**40)), max_size=10),
    st.none() | st.floats(0, 1e12),
    st.integers(0, 100),
)
def test_a_size_is_always_one(measured: list[tuple[int, float, int]], left: float | None, slots: int):
    sizing = Sizing(slots, lambda: left)
    for one in measured:
        sizing.measured(*one)
    assert 1 <= sizing() <= MOST


async def test_each_item_of_an_iterable_is_in_one_partition_and_they_grow():
    sizes: list[int] = []
    fleet = Fleet(Sized(sizes))
    summary = await fleet.summary(list(range(20_000)), partition_size="auto")
    assert summary["final_result"]["items"] == list(range(20_000))
    assert sum(sizes) == 20_000
    assert sizes[0] == FIRST < max(sizes)


class Sized(MemoryBroker):
    """Notes how many items each partition has."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self._sizes = sizes

    async def enqueue(self, jobs: Any) -> Any:
        self._sizes += [read_call(Partition, job.payload).items for job in jobs if "." in job.id]
        return await super().enqueue(jobs)


async def test_without_workers_a_file_is_shipped_at_once(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{n}\n" for n in range(25_000)))
    sizes: list[int] = []

    async def nobody() -> int:
        return 0

    fleet = Fleet(Sized(sizes))
    job_id = await fleet.sealed(str(path), partition_size="auto", ahead=nobody)
    assert sizes == [UNKNOWN, UNKNOWN, 5000]
    async with fleet.working():
        assert (await fleet.end(job_id))[0] is State.SUCCEEDED


async def test_who_hurries_has_all_partitions_cut(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{n}\n" for n in range(25_000)))
    sizes: list[int] = []
    fleet, hurry = Fleet(Sized(sizes)), asyncio.Event()
    _, feeding = await fleet.submit(str(path), partition_size="auto", ahead=2, hurry=hurry)
    async with asyncio.timeout(PATIENCE):
        while len(sizes) < 2:
            await asyncio.sleep(0)
        hurry.set()
        await feeding
    assert sum(sizes) == 25_000


async def test_more_workers_mean_more_on_the_way(monkeypatch: Any):
    monkeypatch.setattr(pace, "LOOK_S", 0.0)
    fleet, workers = Fleet(), 1

    async def ahead() -> int:
        return workers

    pulled = 0

    def items() -> Iterator[Any]:
        nonlocal pulled
        for pulled in range(1, 30):
            yield {"await": f"gate {pulled}"}

    job_id, feeding = await fleet.submit(items(), partition_size=1, ahead=ahead)
    async with fleet.working(), asyncio.timeout(PATIENCE):
        while fleet.collect.mapped < 1:
            await asyncio.sleep(0)
        workers = 30
        for number in range(1, 30):
            fleet.collect.gate(f"gate {number}").set()
        state, _ = await fleet.end(job_id)
        await feeding
    assert state is State.SUCCEEDED


async def test_sources_ask_before_each_partition(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{n}\n" for n in range(1000)))
    for thing in (str(path), list(range(1000)), f"{path}?cut=bytes"):
        source = open_source(thing)
        wanted = iter([1, 10, 100, *[400] * 9])
        parts = [part async for part in source.partitions(lambda: next(wanted))]  # noqa: B023 - used up at once
        assert [value for _, value in await all_pairs(source, parts)] == list(range(1000))
        assert [part.items for part in parts[:3]] in ([1, 10, 100], [0, 0, 0])
        assert source.left == 0
        await source.close()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith(("postgresql", "parquet"))])
async def test_what_is_cut_by_grains_keeps_each_item(kind: str, postgres_dsn: str, tmp_path: Path):
    sample = await KINDS[kind](tmp_path, 2100, postgres_dsn)
    source = open_source(sample.thing)
    wanted = iter([1, 700, *[400] * 9])
    parts = [part async for part in source.partitions(lambda: next(wanted))]
    assert await all_pairs(source, parts) == sample.pairs
    assert sum(part.items for part in parts) == 2100
    assert len(parts) > 2
    assert source.left == 0
    await source.close()

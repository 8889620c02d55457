"""What every source and sink does: `mapreduce/sources/source.py` as tests."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asyncworker import registry
from asyncworker.errors import EmptyDataset, SourceError, UnknownName
from asyncworker.mapreduce.dataset import open_sink, open_source
from asyncworker.mapreduce.sources.source import LIST_ITEMS
from tests.support.datasets import KINDS, Sample, all_pairs, all_partitions, pairs_of, unique, values

READER = """
import asyncio, sys, msgspec
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.sources.source import Partition

async def main():
    url, partitions = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=tuple[str, list[Partition]])
    source = open_source(url)
    pairs = [pair for part in partitions async for pairs in source.read(part) for pair in pairs]
    await source.close()
    sys.stdout.buffer.write(msgspec.msgpack.encode(pairs))

asyncio.run(main())
"""


Take = Callable[[int], Awaitable[Sample]]


@pytest.fixture(params=KINDS)
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Take:
    """Give a function: a number of items to a sample of that many."""
    dsn = request.getfixturevalue("postgres_dsn") if request.param.startswith("postgresql") else ""
    return lambda count: KINDS[request.param](tmp_path, count, dsn)


def test_every_source_of_the_room_is_tested():
    assert {kind.partition("-")[0] for kind in KINDS} == set(registry.names("source"))


@pytest.mark.parametrize(("count", "size"), [(1, 1), (10, 3), (2345, 1000), (2345, 5000), (3000, 1500)])
async def test_each_item_is_in_one_partition_and_read_once(sample: Take, count: int, size: int):
    thing, pairs = await sample(count)
    source = open_source(thing)
    partitions = await all_partitions(source, size)
    assert [partition.index for partition in partitions] == list(range(len(partitions)))
    assert [partition.items for partition in partitions] == [min(size, count - at) for at in range(0, count, size)]
    for partition in partitions:
        assert len(await all_pairs(source, [partition])) == partition.items
    assert await all_pairs(source, partitions) == pairs
    await source.close()


async def test_an_empty_source_has_no_partitions(sample: Take):
    source = open_source((await sample(0)).thing)
    with suppress(EmptyDataset):  # of a dataset's id nothing is known but its rows
        assert await all_partitions(source, 10) == []
    await source.close()


async def test_lists_are_short_and_in_order(sample: Take):
    source = open_source((await sample(2500)).thing)
    (partition,) = await all_partitions(source, 5000)
    lists = [len(pairs) async for pairs in source.read(partition)]
    assert sum(lists) == 2500
    assert max(lists) <= LIST_ITEMS
    await source.close()


async def test_another_process_reads_the_same(sample: Take, tmp_path: Path):
    thing, pairs = await sample(50)
    source = open_source(thing)
    partitions = await all_partitions(source, 20)
    if not source.portable:
        assert all(partition.data is not None for partition in partitions)
        shutil.rmtree(tmp_path)  # what carries its data needs no file
    message = msgspec.msgpack.encode((source.url, partitions))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READER, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(message)
    assert process.returncode == 0
    assert msgspec.msgpack.decode(out, type=list[tuple[Any, Any]]) == pairs
    await source.close()


async def test_closing_twice_is_fine_and_partitions_may_be_left(sample: Take):
    source = open_source((await sample(30)).thing)
    partitions = source.partitions(10)
    assert (await anext(partitions)).items == 10
    await partitions.aclose()
    await source.close()
    await source.close()


async def test_partitions_are_read_side_by_side(sample: Take):
    thing, pairs = await sample(1200)
    source = open_source(thing)
    parts = await asyncio.gather(*(all_pairs(source, [part]) for part in await all_partitions(source, 100)))
    assert [pair for part in parts for pair in part] == pairs
    await source.close()


SINKS = ["memory", "jsonl", "jsonl.gz", "csv", "csv.gz", "parquet", "dataset", "table"]


class Target:
    """A place to write to and to read again."""

    def __init__(self, kind: str, folder: Path, dsn: str) -> None:
        self.kind = kind
        self.thing: Any = [] if kind == "memory" else str(folder / f"out.{kind}")
        if dsn:
            self.thing = f"{dsn}?{kind}={unique('out')}"

    async def rows(self) -> list[Any]:
        if self.kind == "table":
            return [value["data"] for _, value in await pairs_of(f"{self.thing}&key=item_index")]
        with suppress(EmptyDataset):
            return [value for _, value in await pairs_of(self.thing)]
        return []


@pytest.fixture(params=SINKS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    dsn = request.getfixturevalue("postgres_dsn") if request.param in ("dataset", "table") else ""
    return Target(request.param, tmp_path, dsn)


async def write(target: Target, rows: list[Any]) -> None:
    sink = open_sink(target.thing, "job")
    await sink.write(rows[:3])
    await sink.write(rows[3:])
    await sink.commit()


async def test_rows_come_back_as_they_were_written(target: Target):
    await write(target, values(2000))
    assert await target.rows() == values(2000)


async def test_a_second_run_replaces_the_first(target: Target):
    await write(target, values(10))
    await write(target, values(5))
    assert await target.rows() == values(5)


async def test_nothing_is_seen_before_commit_nor_after_abort(target: Target, tmp_path: Path):
    await write(target, values(10))
    sink = open_sink(target.thing, "job")
    await sink.write(values(4))
    assert await target.rows() == values(10)
    await sink.abort()
    assert await target.rows() == values(10)
    assert len(list(os.scandir(tmp_path))) <= 1, "something was left beside"


async def test_no_rows_are_an_empty_result(target: Target):
    await write(target, values(10))
    sink = open_sink(target.thing, "job")
    await sink.commit()
    assert await target.rows() == []


async def test_abort_without_rows_is_fine(target: Target):
    await open_sink(target.thing, "job").abort()


def test_unknown_names_are_told_with_the_nearest():
    for open_it in (open_source, open_sink):
        with pytest.raises(UnknownName, match="did you mean 'jsonl'"):
            open_it("data.jsonll")
        with pytest.raises(UnknownName, match="did you mean 'postgresql'"):
            open_it("postgressql://localhost/db")


def test_a_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert open_source("data.csv?missing=NA").url == f"{tmp_path}/data.csv?missing=NA"
    assert open_source(Path("data.JSONL.gz")).url == f"{tmp_path}/data.JSONL.gz"
    assert open_source("data.csv").label == "data.csv"


def test_plain_text_is_a_dataset_only_with_a_database():
    with pytest.raises(SourceError, match="name its database"):
        open_source("dataset_001")


def test_what_is_no_iterable_is_refused():
    with pytest.raises(SourceError, match="int is nothing to iterate"):
        open_source(7)

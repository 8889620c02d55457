from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from asyncworker.errors import SourceError
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.sources import memory
from asyncworker.mapreduce.sources.source import DATA_BYTES
from tests.support.datasets import all_pairs, all_partitions, pairs_of


async def test_an_endless_iterable_is_pulled_a_partition_at_a_time():
    pulled = 0

    def numbers() -> Iterator[int]:
        nonlocal pulled
        while True:
            yield pulled
            pulled += 1

    partitions = open_source(numbers()).partitions(10)
    for expected in (9, 19, 29):
        await anext(partitions)
        assert pulled == expected
    await partitions.aclose()


async def test_items_travel_as_plain_values():
    items: list[Any] = [0, "", None, [], False, {"status": "failed"}, (1, 2), b"x", 2.5]
    assert await pairs_of(items, 2) == list(enumerate([*items[:6], [1, 2], *items[7:]]))


async def test_items_that_cannot_travel_are_told():
    with pytest.raises(SourceError, match="item 1: this value cannot travel"):
        await pairs_of([1, object()])
    with pytest.raises(SourceError, match=r"item 0 takes 13,000,005 bytes; 12,582,912 is the most"):
        await pairs_of([b"x" * 13_000_000])


async def test_partitions_stay_small():
    partitions = await all_partitions(open_source([b"x" * 1_000_000] * 10), 1000)
    assert max(len(partition.data or b"") for partition in partitions) < DATA_BYTES + 1_000_100
    assert sum(partition.items for partition in partitions) == 10


async def test_an_iterator_is_read_once_and_a_list_again():
    once, often = open_source(iter([1, 2])), open_source([1, 2])
    for _ in range(2):
        assert await all_pairs(often, await all_partitions(often, 1)) == [(0, 1), (1, 2)]
    await all_partitions(once, 1)
    with pytest.raises(SourceError, match="can be read only once"):
        await all_partitions(once, 1)


async def test_the_items_are_of_this_process():
    with pytest.raises(SourceError, match="in the memory of another process"):
        await all_partitions(open_source("memory:"), 1)
    with pytest.raises(SourceError, match="pass the items themselves"):
        memory.open("memory://x")


async def test_what_an_iterable_raises_comes_through():
    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("of the user's")

    with pytest.raises(KeyError, match="of the user's"):
        await all_partitions(open_source(broken()), 10)

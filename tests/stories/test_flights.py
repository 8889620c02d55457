"""The examples over real flights: what they find does not depend on how the file is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from asyncworker.mapreduce.catalogue import find_function
from asyncworker.mapreduce.dataset import open_source

EXAMPLES = Path(__file__).parents[2] / "examples"


async def reduced(function: str, params: str, size: int) -> Any:
    work = find_function(function).prepare(msgspec.json.decode((EXAMPLES / params).read_bytes()))
    source = open_source(f"{EXAMPLES / 'data' / 'flights-2013-01.csv.gz'}?missing=NA")
    total = work.initial()
    async for partition in source.partitions(size):
        acc = work.initial()
        async for pairs in source.read(partition):
            for _, item in pairs:
                acc = work.fold(acc, work.map(item))
        total = work.merge(total, msgspec.msgpack.decode(msgspec.msgpack.encode(acc)))
    await source.close()
    return work.finish(total)


@pytest.mark.parametrize("size", [2_500, 30_000])
async def test_s18_the_rules_judge_real_flights(size: int) -> None:
    found = await reduced("data_validation", "flights-rules.json", size)
    assert (found["valid_count"], found["invalid_count"], found["error_count"]) == (26_191, 813, 0)
    broken = {
        (rule, field): of["count"]
        for rule, fields in found["validation_summary"].items()
        for field, of in fields.items()
    }
    assert broken == {
        ("required", "tailnum"): 155,
        ("required", "dep_time"): 521,
        ("required", "arr_time"): 536,
        ("range", "dep_delay"): 201,
        ("range", "arr_delay"): 207,
        ("pattern", "tailnum"): 41,
    }
    assert found["validation_summary"]["pattern"]["tailnum"]["examples"][0] == {"value": "N0EGMQ"}


async def test_s16_delays_by_carrier_are_the_same_however_they_are_cut() -> None:
    found = await reduced("data_aggregation", "flights-delays.json", 30_000)
    assert found == await reduced("data_aggregation", "flights-delays.json", 999)
    groups = {group["key"]["carrier"]: group for group in found["groups"]}
    assert list(groups) == sorted(groups)
    assert groups["UA"] == {
        "key": {"carrier": "UA"},
        "items": 4637,
        "dep_delay_count": 4605,
        "dep_delay_avg": 38342 / 4605,
        "dep_delay_max": 385,
    }

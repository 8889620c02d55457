"""The demo against the csv module alone: each number it prints is computed here once more, the slow and plain way."""

from __future__ import annotations

import csv
import gzip
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import run

ROOT = Path(__file__).parents[2]
ROWS: list[dict[str, str]]
with gzip.open(ROOT / "examples" / "data" / "flights-2013-01.csv.gz", "rt", encoding="utf-8", newline="") as file:
    ROWS = [{name: "" if value == "NA" else value for name, value in row.items()} for row in csv.DictReader(file)]

REQUIRED = ("carrier", "flight", "tailnum", "dep_time", "arr_time")
INTEGERS = ("flight", "distance", "dep_delay", "arr_delay")
RANGES = {"dep_delay": (-60, 180), "arr_delay": (-90, 180), "air_time": (20, 720)}
PATTERNS = {"tailnum": "N[1-9][0-9A-Z]{1,4}", "origin": "EWR|JFK|LGA", "dest": "[A-Z]{3}"}


def broken_rules(row: dict[str, str]) -> list[tuple[str, str]]:
    found = [("required", field) for field in REQUIRED if not row[field]]
    found += [("type", field) for field in INTEGERS if row[field] and not re.fullmatch("-?[0-9]+", row[field])]
    found += [
        ("range", field) for field, (low, high) in RANGES.items() if row[field] and not low <= int(row[field]) <= high
    ]
    return found + [
        ("pattern", field)
        for field, pattern in PATTERNS.items()
        if row[field] and not re.fullmatch(pattern, row[field])
    ]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    code, out, err = run("demo", "--json", cwd=tmp_path_factory.mktemp("demo"))
    assert code == 0, err
    return json.loads(out), err


@pytest.mark.parametrize("name", ["validation", "delays"])
def test_all_flights_are_counted_once(demo: tuple[dict[str, Any], str], name: str) -> None:
    summary = demo[0][name]
    assert summary["total_processed"] == summary["total_successful"] == len(ROWS) == 27_004
    assert summary["total_failed"] == 0
    assert summary["failures"] == []
    assert summary["success_rate"] == 100.0
    assert summary["partitions_processed"] == -(-len(ROWS) // 2_000)
    assert summary["partitions_failed"] == 0
    assert summary["dataset_id"].endswith("flights-2013-01.csv.gz?missing=NA")
    assert re.fullmatch("[0-9a-z]{26}", summary["job_id"])
    stats = summary["processing_stats"]
    assert stats["partitions_total"] == stats["partitions_processed"] == 14
    assert stats["partitions_failed"] == 0
    assert stats["average_items_per_second"] == pytest.approx(len(ROWS) / stats["wall_time"], rel=0.01)


def test_the_rules_are_broken_as_often_as_the_csv_module_says(demo: tuple[dict[str, Any], str]) -> None:
    summary = demo[0]["validation"]
    assert summary["processing_function"] == "data_validation"
    broken = [broken_rules(row) for row in ROWS]
    result = summary["final_result"]
    assert result["valid_count"] == sum(1 for found in broken if not found)
    assert result["invalid_count"] == sum(1 for found in broken if found)
    assert result["error_count"] == 0
    counts: dict[tuple[str, str], int] = {}
    for rule in (rule for found in broken for rule in found):
        counts[rule] = counts.get(rule, 0) + 1
    told = {
        (rule, field): of["count"]
        for rule, fields in result["validation_summary"].items()
        for field, of in fields.items()
    }
    assert told == counts
    firsts = {rule: [row for row, found in zip(ROWS, broken, strict=True) if rule in found][:3] for rule in counts}
    for (rule, field), rows in firsts.items():
        examples = result["validation_summary"][rule][field]["examples"]
        assert [example["value"] for example in examples] == [row[field] for row in rows if row[field]]


def test_the_delays_are_those_that_the_csv_module_finds(demo: tuple[dict[str, Any], str]) -> None:
    summary = demo[0]["delays"]
    assert summary["processing_function"] == "data_aggregation"
    groups = []
    for carrier in sorted({row["carrier"] for row in ROWS}):
        of_carrier = [row["dep_delay"] for row in ROWS if row["carrier"] == carrier]
        delays = [int(delay) for delay in of_carrier if delay]
        groups.append(
            {
                "key": {"carrier": carrier},
                "items": len(of_carrier),
                "dep_delay_count": len(delays),
                "dep_delay_avg": float(Fraction(sum(delays), len(delays))),
                "dep_delay_max": max(delays),
            }
        )
    assert summary["final_result"] == {"groups": groups}


def test_it_shows_how_it_gets_on_and_nothing_else(demo: tuple[dict[str, Any], str]) -> None:
    lines = demo[1].splitlines()
    assert "on 2 worker processes" in lines[0]
    assert all(re.match("data_(validation|aggregation): ", line) for line in lines[1:])
    assert sum("succeeded, 14/14 partitions (100%), 27,004 items" in line for line in lines) == 2


def test_for_people_it_prints_counts_errors_and_carriers(tmp_path: Path) -> None:
    code, out, _ = run("demo", cwd=tmp_path)
    assert code == 0
    lines = out.splitlines()
    valid = sum(1 for row in ROWS if not broken_rules(row))
    assert lines[0].startswith(f"{valid:,} flights keep the rules, {len(ROWS) - valid:,} break some")
    assert lines[1].split() == ["rule", "field", "flights", "such", "as"]
    counts = [int(line.split()[2].replace(",", "")) for line in lines[2 : lines.index("")]]
    assert counts == sorted(counts, reverse=True)
    (united,) = [line.split() for line in lines if line.startswith("UA ")]
    assert united == ["UA", "4,637", "4,605", "8.32617", "385"]

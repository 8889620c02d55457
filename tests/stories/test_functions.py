"""The seed's six functions over real flights through `asyncworker run`, against computations of their own."""

from __future__ import annotations

import csv
import gzip
import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import call, run

ROOT = Path(__file__).parents[2]
FLIGHTS = "examples/data/flights-2013-01.csv.gz"


@pytest.fixture(scope="module")
def flights() -> list[dict[str, str]]:
    with gzip.open(ROOT / FLIGHTS, "rt", newline="") as file:
        return [{name: "" if text == "NA" else text for name, text in row.items()} for row in csv.DictReader(file)]


def processed(function: str, params: str, *flags: str, size: int = 10_000) -> dict[str, Any]:
    """Run a job in this process alone; returns its summary."""
    arguments = ("run", FLIGHTS, "--missing", "NA", "-f", function, "-p", f"examples/{params}.json", "--json")
    code, out, err = call(*arguments, "--workers", "0", "--partition-size", str(size), *flags, cwd=ROOT)
    assert code == 0, err
    summary: dict[str, Any] = json.loads(out)
    assert (summary["total_processed"], summary["total_failed"]) == (27_004, 0)
    return summary


@pytest.mark.parametrize(
    ("function", "params"),
    [("data_analysis", "flights-analysis"), ("data_classification", "flights-classes")],
)
def test_two_worker_processes_and_any_cut_come_to_the_same_bytes(function: str, params: str) -> None:
    whole = processed(function, params, size=30_000)
    arguments = ("run", FLIGHTS, "--missing", "NA", "-f", function, "-p", f"examples/{params}.json", "--json")
    code, out, err = run(*arguments, "--workers", "2", "--partition-size", "3001", cwd=ROOT)
    assert code == 0, err
    cut = json.loads(out)
    assert (whole["partitions_processed"], cut["partitions_processed"]) == (1, 9)
    assert json.dumps(whole["final_result"]) == json.dumps(cut["final_result"])


def test_the_analysis_agrees_with_the_statistics_module(flights: list[dict[str, str]]) -> None:
    result = processed("data_analysis", "flights-analysis")["final_result"]
    for field in ("dep_delay", "arr_delay", "air_time", "distance"):
        numbers = [int(flight[field]) for flight in flights if flight[field]]
        found = result["statistics"][field]
        permille = statistics.quantiles(numbers, n=1000, method="inclusive")
        assert (found["count"], found["missing"]) == (len(numbers), 27_004 - len(numbers))
        assert (found["sum"], found["min"], found["max"]) == (sum(numbers), min(numbers), max(numbers))
        assert found["mean"] == statistics.fmean(numbers)
        assert found["std"] == pytest.approx(statistics.stdev(numbers), rel=1e-15)
        expected = [permille[at] for at in (49, 499, 949, 998)]
        assert [found[name] for name in ("p5", "p50", "p95", "p99.9")] == pytest.approx(expected)
        assert found["exact"]
    delays = [int(flight["dep_delay"]) for flight in flights if flight["dep_delay"]]
    assert result["statistics"]["dep_delay"]["percentile_of"] == {
        str(bound): 100 * sum(delay <= bound for delay in delays) / len(delays) for bound in (0, 15, 60)
    }
    summary = result["analysis_summary"]
    late = [flight for flight in flights if flight["dep_delay"] and int(flight["dep_delay"]) > 15]
    assert {name: of["count"] for name, of in summary["categories"].items()} == {
        "cancelled": sum(not flight["dep_time"] for flight in flights),
        "late": len(late),
        "caught up": sum(bool(flight["arr_delay"]) and int(flight["arr_delay"]) <= 0 for flight in late),
        "transcontinental": sum(flight["dest"] in {"SFO", "LAX", "SEA", "SAN", "PDX"} for flight in flights),
    }
    limit = statistics.fmean(delays) + 4 * statistics.stdev(delays)
    anomalies = summary["anomalies"]
    assert anomalies["z_score"]["dep_delay"]["above"] == sum(delay > limit for delay in delays)
    assert anomalies["range"]["dep_delay"]["count"] == sum(not -30 <= delay <= 600 for delay in delays) == 3
    times = [int(flight["air_time"]) for flight in flights if flight["air_time"]]
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    fence = high + 1.5 * (high - low)
    assert anomalies["iqr"]["air_time"]["count"] == sum(time > fence for time in times)


def test_the_classes_agree_with_a_loop(flights: list[dict[str, str]]) -> None:
    def class_of(flight: dict[str, str]) -> str:
        if not flight["dep_time"] or not flight["arr_delay"]:
            return "diverted" if flight["dep_time"] else "cancelled"
        late, later = int(flight["dep_delay"]), int(flight["arr_delay"])
        bad = (late > 60) + later / 60
        good = (later <= 0) + 0.5 * (late <= 0)
        if max(bad, good) <= 0.75:
            return "fair"
        return "bad" if bad >= good else "good"

    result = processed("data_classification", "flights-classes")["final_result"]
    expected = Counter(map(class_of, flights))
    assert {of["class"]: of["count"] for of in result["class_distribution"]} == expected
    assert sum(of["share"] for of in result["class_distribution"]) == pytest.approx(1)


def test_s11_transformed_rows_go_to_a_file_in_order(flights: list[dict[str, str]], tmp_path: Path) -> None:
    out = tmp_path / "speeds.jsonl"
    result = processed("data_transformation", "flights-speeds", "--to", str(out))["final_result"]
    flown = [flight for flight in flights if flight["air_time"]]
    assert (result["saved_to"], result["rows"]) == (str(out), len(flown))
    assert result["transformation_summary"]["filtered_out"] == len(flights) - len(flown)
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {
            "carrier": flight["carrier"],
            "flight": int(flight["flight"]),
            "tailnum": flight["tailnum"].lower(),
            "route": f"{flight['origin']}-{flight['dest']}",
            "distance": int(flight["distance"]),
            "speed": round(int(flight["distance"]) / int(flight["air_time"]) * 60, 1),
            "made_up": max(int(flight["dep_delay"]) - int(flight["arr_delay"]), 0),
            "hour_utc": flight["time_hour"],
        }
        for flight in flown
    ]


def test_enriched_rows_go_to_a_table_of_text(flights: list[dict[str, str]], tmp_path: Path) -> None:
    with (ROOT / "examples/data/airlines.csv").open(newline="") as file:
        airlines = {row["carrier"]: row["name"] for row in csv.DictReader(file)}
    out = tmp_path / "airlines.csv"
    result = processed("data_enrichment", "flights-airlines", "--to", str(out))["final_result"]
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["airline"] for row in rows] == [airlines[flight["carrier"]] for flight in flights]
    of_lga = sum(flight["origin"] == "LGA" for flight in flights)
    assert result["enrichment_stats"]["lookups"]["origin"]["not_found"] == of_lga
    assert sum(row["state"] == "not in the table" for row in rows) == of_lga


def test_s19_a_hostile_expression_is_refused_before_there_is_a_job() -> None:
    hostile = {"transformations": {"calculated_fields": {"x": "().__class__.__base__.__subclasses__()"}}}
    code, _, err = call("run", FLIGHTS, "-f", "data_transformation", "-p", json.dumps(hostile), cwd=ROOT)
    assert code == 2
    assert "transformations.calculated_fields.x: it may call abs, coalesce" in err


def test_several_files_are_one_job_and_parquet_comes_out(flights: list[dict[str, str]], tmp_path: Path) -> None:
    for name, part in (("a.csv", flights[:1000]), ("b.csv", flights[1000:3000])):
        with (tmp_path / name).open("w", newline="") as file:
            out = csv.DictWriter(file, list(flights[0]))
            out.writeheader()
            out.writerows(part)
    speeds = ("-f", "data_transformation", "-p", f"{ROOT}/examples/flights-speeds.json", "--workers", "0", "--json")
    code, _, err = call("run", "*.csv", *speeds, "--to", "speeds.parquet", cwd=tmp_path)
    assert code == 0, err
    means = (
        "-f",
        "data_aggregation",
        "-p",
        '{"aggregation_config": {"aggregate_fields": {"distance": ["count", "sum"]}}}',
    )
    results = []
    for sources in (["speeds.parquet"], ["a.csv", "b.csv"]):
        code, told, err = call("run", *sources, *means, "--workers", "0", "--json", cwd=tmp_path)
        assert code == 0, err
        (group,) = json.loads(told)["final_result"]["groups"]
        results.append((group["distance_count"], group["distance_sum"]))
    of_all = [int(flight["distance"]) for flight in flights[:3000]]
    flown = [int(flight["distance"]) for flight in flights[:3000] if flight["air_time"]]
    assert results == [(len(flown), sum(flown)), (len(of_all), sum(of_all))]

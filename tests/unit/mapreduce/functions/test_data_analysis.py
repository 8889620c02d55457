"""Analysis: numbers against the statistics module, categories, and anomalies by three methods."""

from __future__ import annotations

import random
import statistics
from typing import Any

import msgspec
import pytest

from asyncworker.errors import BadParameters
from asyncworker.mapreduce.functions.data_analysis import FUNCTION


def analysed(items: list[Any], **config: Any) -> dict[str, Any]:
    work = FUNCTION.prepare({"analysis_config": config})
    acc = work.initial()
    for item in items:
        acc = work.fold(acc, work.map(item))
    result: dict[str, Any] = work.finish(acc)
    return result


def test_statistics_agree_with_an_independent_computation() -> None:
    draw = random.Random(3)
    numbers = [round(draw.gauss(50, 12), 1) for _ in range(3000)]
    items = [{"x": str(number) if draw.random() < 0.5 else number} for number in numbers]
    items += [{"x": ""}, {"x": None}, {}, {"x": "n/a"}, {"x": True}, {"x": [1]}]
    found = analysed(items, numeric_fields=["x"], percentiles=[0, 10, 50, 99.9, 100])["statistics"]["x"]
    tenths = statistics.quantiles(numbers, n=1000, method="inclusive")
    assert found["exact"]
    assert (found["count"], found["missing"], found["not_numbers"]) == (3000, 3, 3)
    assert found["sum"] == pytest.approx(sum(numbers), rel=1e-12)
    assert found["mean"] == pytest.approx(statistics.fmean(numbers), rel=1e-15)
    assert found["std"] == pytest.approx(statistics.stdev(numbers), rel=1e-15)
    assert (found["min"], found["max"], found["p0"], found["p100"]) == (min(numbers), max(numbers)) * 2
    assert [found["p10"], found["p50"], found["p99.9"]] == pytest.approx([tenths[99], tenths[499], tenths[998]])


def test_of_no_value_there_are_no_statistics() -> None:
    found = analysed([{}], numeric_fields=["x"], percentile_of={"x": [1]}, normalization_factors={"x": 2})
    of = found["statistics"]["x"]
    assert (of["count"], of["missing"], of["sum"]) == (0, 1, 0)
    assert {of[name] for name in ("mean", "std", "min", "max", "p50", "normalized_mean")} == {None}


def test_s17_normalised_by_a_factor_and_never_by_zero() -> None:
    found = analysed([{"x": 10}, {"x": 20}], numeric_fields=["x"], normalization_factors={"x": 10})["statistics"]["x"]
    assert (found["normalized_min"], found["normalized_max"], found["normalized_mean"]) == (1.0, 2.0, 1.5)
    with pytest.raises(BadParameters, match=r"normalization_factors\.x must not be 0"):
        analysed([], numeric_fields=["x"], normalization_factors={"x": 0})


def test_percentile_of() -> None:
    found = analysed([{"x": number} for number in range(10)], percentile_of={"x": [-1, 4, 4.5, 9.0, 10**400]})
    assert found["statistics"]["x"]["percentile_of"] == {
        "-1": 0.0,
        "4": 50.0,
        "4.5": 50.0,
        "9": 100.0,
        str(10**400): 100.0,
    }


def test_an_item_is_in_each_category_whose_rule_holds() -> None:
    items = [{"n": number, "kind": "even" if number % 2 == 0 else "odd"} for number in range(10)]
    rules = {"big": "n >= 5", "even": {"kind": {"equals": "even"}}, "never": "n > 99"}
    summary = analysed(items, categorization_rules=rules)["analysis_summary"]
    assert summary["categories"] == {
        "big": {"count": 5, "share": 0.5},
        "even": {"count": 5, "share": 0.5},
        "never": {"count": 0, "share": 0.0},
    }
    assert summary["uncategorized"] == 2  # 1 and 3


NUMBERS = [*range(100), 500, -400, 700]


def test_anomalies_by_three_methods_agree_with_an_independent_computation() -> None:
    items = [{"id": f"i{number}", "x": number} for number in NUMBERS]
    detection = {"z_score": {"threshold": 2.5}, "iqr": {"factor": 2}, "range": {"x": {"min": 0, "max": 600}}}
    found = analysed(items, numeric_fields=["x"], anomaly_detection=detection)["analysis_summary"]["anomalies"]
    mean, std = statistics.fmean(NUMBERS), statistics.stdev(NUMBERS)
    low, _, high = statistics.quantiles(NUMBERS, n=4, method="inclusive")
    spans = {
        "z_score": (mean - 2.5 * std, mean + 2.5 * std),
        "iqr": (low - 2 * (high - low), high + 2 * (high - low)),
        "range": (0, 600),
    }
    for method, (least, most) in spans.items():
        of = found[method]["x"]
        assert (of["low"], of["high"]) == pytest.approx((least, most))
        assert of["below"] == sum(number < least for number in NUMBERS)
        assert of["above"] == sum(number > most for number in NUMBERS)
        assert of["count"] == of["below"] + of["above"]
        assert of["exact"]
        outside = {number for number in NUMBERS if not least <= number <= most}
        assert {example["value"] for example in of["examples"]} == outside
        assert all(example["item_id"] == f"i{example['value']}" for example in of["examples"])


def test_examples_are_the_farthest_out_and_the_first_of_equals() -> None:
    items = [{"id": at, "x": value} for at, value in enumerate([9, 1, 9, 9, 8, 9, 9, 9, 0, 1])]
    of = analysed(items, anomaly_detection={"range": {"x": {"min": 3, "max": 5}}})["analysis_summary"]["anomalies"]
    assert [(example["item_id"], example["value"]) for example in of["range"]["x"]["examples"]] == [
        *((0, 9), (2, 9), (3, 9), (5, 9), (6, 9)),
        *((8, 0), (1, 1), (9, 1)),
    ]


def test_too_little_to_say_is_no_anomaly_and_switched_off_is_off() -> None:
    detection: dict[str, Any] = {"z_score": {"fields": ["x"]}, "iqr": {"fields": ["y"]}}
    summary = analysed([{"x": 1}], anomaly_detection=detection)["analysis_summary"]
    assert summary["anomalies"] == {"z_score": {"x": {"count": 0}}, "iqr": {"y": {"count": 0}}}
    off = analysed([{"x": 1}], numeric_fields=["x"], anomaly_detection={**detection, "enabled": False})
    assert "anomalies" not in off["analysis_summary"]


def test_s11_a_partial_is_small_however_many_different_numbers_there_are() -> None:
    draw = random.Random(5)
    work = FUNCTION.prepare({"analysis_config": {"numeric_fields": ["x"], "anomaly_detection": {"iqr": {}}}})
    acc = work.initial()
    for _ in range(30_000):
        acc = work.fold(acc, work.map({"x": draw.expovariate(0.001)}))
    assert len(msgspec.msgpack.encode(acc)) < 50_000
    result = work.finish(acc)
    assert result["statistics"]["x"]["exact"] is False
    assert result["statistics"]["x"]["p50"] == pytest.approx(1000 * 0.693, rel=0.05)
    assert result["analysis_summary"]["anomalies"]["iqr"]["x"]["above"] == pytest.approx(30_000 * 0.048, rel=0.1)


@pytest.mark.parametrize(
    ("config", "because"),
    [
        ({}, "1 or more of numeric_fields"),
        ({"percentiles": [101]}, r"percentiles\[0\] must be 0 to 100|must be 0 or more"),
        ({"anomaly_detection": {"range": {"x": {"min": 2, "max": 1}}}}, r"range\.x: min is greater than max"),
        ({"anomaly_detection": {"zscore": {}}}, "did you mean 'z_score'"),
        ({"categorization_rules": {"late": "eval('1')"}}, r"categorization_rules\.late: it may call"),
    ],
)
def test_s15_what_does_not_fit_is_refused_at_submit(config: Any, because: str) -> None:
    with pytest.raises(BadParameters, match=because):
        FUNCTION.prepare({"analysis_config": config})


def test_it_asks_for_the_fields_that_an_item_must_have() -> None:
    work = FUNCTION.prepare(
        {
            "analysis_config": {
                "numeric_fields": ["a"],
                "categorization_rules": {"x": "c > a"},
                "anomaly_detection": {"iqr": {"fields": ["b"]}},
            }
        }
    )
    assert work.fields == ("a", "b", "c")

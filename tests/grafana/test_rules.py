"""Recording rules and alerts: each is explained, tested by promtool, and asks for what there is."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import yaml

from asyncworker.daemon.catalogue import CATALOGUE, PREFIX
from tests.support.grafana import PLACE, metrics, promtool, rules

ALERTS = {rule["alert"]: rule for rule in rules("alerts")}
RECORDED = {rule["record"]: rule for rule in rules("recording")}
TESTS = sorted(path.name for path in (PLACE / "tests").glob("*.yaml"))
SECONDS = {"s": 1, "m": 60, "h": 3600}

each = pytest.mark.parametrize("name", ALERTS)


@cache
def cases() -> list[dict[str, Any]]:
    """Return all that promtool is to find about alerts."""
    read = [yaml.safe_load((PLACE / "tests" / file).read_text("utf-8"))["tests"] for file in TESTS]
    return [case for tests in read for test in tests for case in test.get("alert_rule_test", [])]


def test_promtool_finds_no_fault() -> None:
    promtool("check", "rules", "rules/recording.yaml", "rules/alerts.yaml")
    promtool("check", "config", "prometheus.yml")


@pytest.mark.parametrize("file", TESTS)
def test_promtools_unit_tests_pass(file: str) -> None:
    promtool("test", "rules", f"tests/{file}")


@each
def test_each_alert_is_silent_then_fires_then_falls_silent(name: str) -> None:
    before, fires, after = (case for case in cases() if case["alertname"] == name)
    assert not before.get("exp_alerts")
    assert fires["exp_alerts"]
    assert not after.get("exp_alerts")
    moments = [int(one["eval_time"][:-1]) * SECONDS[one["eval_time"][-1]] for one in (before, fires, after)]
    assert moments == sorted(moments)


@each
def test_each_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    told = alert["annotations"]
    assert set(told) == {"summary", "description", "runbook"}
    assert not told["summary"].endswith(".")
    assert told["description"].endswith(".")
    assert told["runbook"] == f"RUNBOOK.md#{name.lower()}"


@each
def test_each_alert_tells_which_fleet(name: str) -> None:
    expr, labels = ALERTS[name]["expr"], ALERTS[name]["labels"]
    assert "job" in labels or all("job" in by for by in re.findall(r"\bby \(([^)]*)\)", expr)), name


def test_alerts_are_ours_by_name() -> None:
    assert all(re.fullmatch(r"Asyncworker[A-Z][A-Za-z]+", name) for name in ALERTS)
    assert len(ALERTS) == len(rules("alerts"))


def test_the_runbook_explains_each_alert_and_no_other() -> None:
    text = (PLACE / "RUNBOOK.md").read_text("utf-8")
    sections = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    assert sections.keys() == ALERTS.keys()
    for name, section in sections.items():
        for part in ("**Means**", "**Do**"):
            assert part in section or part.lower() in section, name


@pytest.mark.parametrize(
    "rule", [*ALERTS.values(), *RECORDED.values()], ids=lambda rule: rule.get("alert") or rule["record"]
)
def test_rules_ask_for_what_is_exported_or_recorded(rule: dict[str, Any]) -> None:
    assert metrics(rule["expr"]) <= CATALOGUE.keys()
    assert set(re.findall(rf"[a-z_]+:{PREFIX}\w+:\w+", rule["expr"])) <= RECORDED.keys()
    assert metrics(rule["expr"]) or ":" in rule["expr"] or rule["expr"].startswith("up{")


def test_what_is_recorded_is_called_by_its_labels_metric_and_operation() -> None:
    for name, rule in RECORDED.items():
        level, metric, _ = name.split(":")
        labels = next(iter(re.findall(r"by \(([^)]*)\)", rule["expr"])))
        if not rule["expr"].startswith("histogram_quantile"):
            assert level.split("_") == labels.split(", "), name
        assert metric.startswith(PREFIX), name


def test_each_recorded_rule_is_tested() -> None:
    (test,) = yaml.safe_load((PLACE / "tests" / "recording_test.yaml").read_text("utf-8"))["tests"]
    asked = " ".join(one["expr"] for one in test["promql_expr_test"])
    assert all(name in asked for name in RECORDED)


@pytest.mark.parametrize(
    ("file", "check"),
    [
        ("datasources/prometheus.yaml", lambda read: read["datasources"][0]["type"] == "prometheus"),
        ("dashboards/asyncworker.yaml", lambda read: read["providers"][0]["allowUiUpdates"] is False),
    ],
)
def test_provisioning_is_what_grafana_reads(file: str, check: Callable[[Any], bool]) -> None:
    read = yaml.safe_load((PLACE / "provisioning" / file).read_text("utf-8"))
    assert read["apiVersion"] == 1
    assert check(read)

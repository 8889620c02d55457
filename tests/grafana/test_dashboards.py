"""The rules of good dashboards, each a test over all of them; after grafana/dashboard-linter, and some of our own."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from asyncworker.daemon.catalogue import CATALOGUE, PREFIX
from grafana.generate import files
from grafana.source.panel import TAG
from tests.support.grafana import (
    DASHBOARDS,
    PLACE,
    dashboard,
    expressions,
    filled,
    metrics,
    notes,
    panels,
    promtool,
    queries,
)

UIDS = {
    "asyncworker-overview",
    "asyncworker-queues",
    "asyncworker-workers",
    "asyncworker-mapreduce",
    "asyncworker-optimizer",
    "asyncworker-pools",
    "asyncworker-profiler",
    "asyncworker-memory",
}
"""People keep links to these: none is ever renamed."""
UNITS = {"short", "s", "ops", "percentunit", "bytes", "Bps"}
"""Names of Grafana's units; all are base units, as the metrics are."""
OURS = {"type": "prometheus", "uid": "${datasource}"}
SELECTOR = re.compile(rf"({PREFIX}\w+|ALERTS)(\{{[^}}]*\}})?")
COUNTERS = {f"{PREFIX}{name}" for name, entry in CATALOGUE.items() if entry.kind == "counter"}
COUNTERS |= {
    f"{PREFIX}{name}_{part}"
    for name, entry in CATALOGUE.items()
    if entry.kind == "histogram"
    for part in ("bucket", "sum", "count")
}

each = pytest.mark.parametrize("path", DASHBOARDS, ids=[path.stem for path in DASHBOARDS])


def variables(path: Path) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in dashboard(path)["templating"]["list"]}


def test_files_are_what_their_sources_make() -> None:
    assert {path.name: path.read_text("utf-8") for path in DASHBOARDS} == files(), "./dev.sh python -m grafana.generate"


def test_uids_never_change() -> None:
    assert {dashboard(path)["uid"] for path in DASHBOARDS} == UIDS
    assert len({dashboard(path)["title"] for path in DASHBOARDS}) == len(DASHBOARDS)


@each
def test_times_refresh_and_rights(path: Path) -> None:
    found = dashboard(path)
    assert found["description"]
    assert (found["refresh"], found["timezone"], found["editable"]) == ("10s", "browser", False)
    assert found["time"] == {"from": "now-1h", "to": "now"}
    assert found["graphTooltip"] == 1, "one cursor on all panels"


@each
def test_the_data_source_is_chosen(path: Path) -> None:
    chosen = variables(path)["datasource"]
    assert (chosen["type"], chosen["query"]) == ("datasource", "prometheus")
    for panel in panels(path):
        assert panel["datasource"] == OURS, panel["title"]
        assert all(target["datasource"] == OURS for target in panel["targets"]), panel["title"]
    assert all(note["datasource"] == OURS for note in notes(path))
    assert all(one["datasource"] == OURS for one in variables(path).values() if one["type"] == "query")


@each
def test_fleet_and_process_are_chosen(path: Path) -> None:
    assert list(variables(path))[:3] == ["datasource", "job", "instance"]
    for name, one in variables(path).items():
        if one["type"] == "query":
            assert one["query"]["query"] == one["definition"]
            assert one["definition"].startswith(f"label_values({PREFIX}")
            assert one["definition"].endswith(f", {name})")
            assert (one["multi"], one["includeAll"], one["refresh"]) == (True, True, 2), name
            assert one["allValue"] == (None if name == "pool" else ".+"), name
            assert one["label"]
            assert metrics(one["definition"]) <= set(CATALOGUE)


@each
def test_each_variable_is_used(path: Path) -> None:
    text = " ".join(expr for _, expr in expressions(path))
    used = set(re.findall(r"\$(\w+)", text)) - {"__rate_interval", "__range"}
    assert used == variables(path).keys() - {"datasource"}


@each
def test_each_selector_keeps_to_what_was_chosen(path: Path) -> None:
    for place, expr in expressions(path):
        for name, matchers in SELECTOR.findall(expr):
            assert 'job=~"$job"' in matchers, place
            assert 'instance=~"$instance"' in matchers or name == "ALERTS", place


@each
def test_each_panel_says_what_it_is(path: Path) -> None:
    for panel in panels(path):
        assert panel["title"], panel
        assert panel["description"].endswith((".", "`.", "off.")), panel["title"]
        assert panel["targets"], panel["title"]


@each
def test_each_panel_has_a_unit(path: Path) -> None:
    for panel in panels(path):
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]


@each
def test_each_series_has_a_legend_of_labels_that_it_keeps(path: Path) -> None:
    for panel in panels(path):
        for target in panel["targets"]:
            if panel["type"] == "timeseries":
                assert target["legendFormat"] != "__auto", panel["title"]
            kept = set(itertools.chain(*(re.split(r", *", by) for by in re.findall(r"by \(([^)]*)\)", target["expr"]))))
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, panel["title"]


@each
def test_legends_of_a_panel_differ(path: Path) -> None:
    for panel in panels(path):
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert len(set(legends)) == len(legends), panel["title"]
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH")[: len(legends)]


@each
def test_panels_of_a_kind_have_names_of_their_own(path: Path) -> None:
    places = [place for place, _ in queries(path)]
    assert len(set(places)) == len(places)


@each
def test_windows_follow_the_scrapes_or_the_shown_time(path: Path) -> None:
    for place, expr in expressions(path):
        assert set(re.findall(r"\[([^\]]*)\]", expr)) <= {"$__rate_interval", "$__range"}, place
        assert "$__interval" not in expr, place


@each
def test_counters_are_never_shown_as_they_are(path: Path) -> None:
    for place, expr in expressions(path):
        for found in SELECTOR.finditer(expr):
            if found[1] in COUNTERS:
                changing = re.search(r"(rate|increase)\($", expr[: found.start()])
                assert changing or " offset $__" in expr, f"{place}: {found[1]}"


@each
def test_rates_are_taken_before_sums(path: Path) -> None:
    for place, expr in expressions(path):
        assert not re.search(r"rate\((sum|max|min)", expr), place


@each
def test_quantiles_are_of_rates_by_bucket(path: Path) -> None:
    for place, expr in expressions(path):
        for inner in re.findall(r"histogram_quantile\(([^[]*)\[", expr):
            assert re.match(r"0\.\d+, sum by \(le[^)]*\) \(rate\(\w+_bucket\{", inner), place


@each
def test_what_the_broker_counts_is_never_summed_over_who_told_it(path: Path) -> None:
    once = re.compile(r"max by \(job[^)]*\) \((?:(?:rate|increase)\()?$")
    for place, expr in expressions(path):
        for found in SELECTOR.finditer(expr):
            entry = CATALOGUE.get(found[1].removeprefix(PREFIX))
            if entry is not None and entry.source == "broker":
                before = expr[: found.start()]
                assert once.search(before) or re.search(r"(max|min)( by \([^)]*\))? \($|deriv\($", before), place


@each
def test_the_first_row_says_whether_anything_is_wrong(path: Path) -> None:
    first, *others = dashboard(path)["panels"]
    assert (first["type"], first["title"]) == ("row", "Is anything wrong?")
    begin = list(itertools.takewhile(lambda panel: panel["type"] != "row", others))
    assert len(begin) >= 6
    assert {panel["type"] for panel in begin} == {"stat"}
    judged = [panel for panel in begin if len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) > 1]
    assert judged, "none of these says what is well"


@each
def test_thresholds_rise(path: Path) -> None:
    for panel in panels(path):
        (first, *others) = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert first["value"] is None
        values = [step["value"] for step in others]
        assert values == sorted(values), panel["title"]


@each
def test_panels_stand_side_by_side(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(path)["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in dashboard(path)["panels"]]
    assert len(set(ids)) == len(ids)


@each
def test_links_lead_somewhere(path: Path) -> None:
    (links,) = dashboard(path)["links"]
    assert (links["type"], links["tags"], links["includeVars"], links["keepTime"]) == ("dashboards", [TAG], True, True)
    assert dashboard(path)["tags"] == [TAG]
    for panel in panels(path):
        for link in panel["fieldConfig"]["defaults"].get("links", []):
            found = re.fullmatch(r"/d/([\w-]+)\?\$\{__url_time_range\}&\$\{__all_variables\}", link["url"])
            assert found, link
            assert found[1] in UIDS, link


def test_decisions_are_marked_where_sizes_are_shown() -> None:
    marked = {path.stem for path in DASHBOARDS if notes(path)}
    assert marked == {"overview", "workers", "optimizer", "pools"}
    for path in DASHBOARDS:
        for note in notes(path):
            assert (note["titleFormat"], note["textFormat"]) == ("{{limiter}}", "{{reason}}")


def test_each_query_is_promql(tmp_path: Path) -> None:
    told = [
        {"record": f"query:{number}", "expr": filled(expr)}
        for number, (_, expr) in enumerate(itertools.chain(*map(expressions, DASHBOARDS)))
    ]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": told}]}))
    promtool("check", "rules", str(tmp_path / "queries.yaml"))


def test_each_metric_asked_for_is_exported() -> None:
    for path in DASHBOARDS:
        for place, expr in expressions(path):
            assert metrics(expr) <= CATALOGUE.keys(), place


def test_each_metric_exported_has_a_panel() -> None:
    shown = set().union(*(metrics(target["expr"]) for path in DASHBOARDS for _, target in queries(path)))
    assert CATALOGUE.keys() <= shown


def test_each_label_asked_for_is_told() -> None:
    for path in DASHBOARDS:
        for place, expr in expressions(path):
            for name, matchers in SELECTOR.findall(expr):
                if name == "ALERTS":
                    continue
                (entry,) = (CATALOGUE[one] for one in metrics(name))
                asked = set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', matchers))
                assert asked <= {*entry.labels, "job", "instance", "le"}, place


def test_the_runbook_and_readme_name_dashboards_and_panels_that_are_there() -> None:
    titles = {panel["title"] for path in DASHBOARDS for panel in dashboard(path)["panels"]}
    titles |= {target["legendFormat"] for path in DASHBOARDS for _, target in queries(path)}
    text = (PLACE / "RUNBOOK.md").read_text("utf-8")
    named = {re.sub(r"\s+", " ", words) for words in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", text)}
    assert named - {"Status, Targets"} <= titles
    boards = {dashboard(path)["title"].removeprefix("asyncworker / ") for path in DASHBOARDS} | {
        "profiler",
        "optimizer",
    }
    bold = set(re.findall(r"\*\*([^*]+)\*\*", text)) - {"Means", "Look", "Do", "and", "do"}
    assert bold <= boards

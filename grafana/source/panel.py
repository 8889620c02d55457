"""Panels and dashboards as Grafana reads them (schema version 42), each made of a few words.

Every panel says what it means (``why``, shown by its ``i``), and has a unit. Thresholds are where somebody should look,
not where something was seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from grafana.source.query import Query

Panel = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
TAG = "asyncworker"
WIDTH = 24
GREEN, ORANGE, RED, BLUE, TEXT = "green", "orange", "red", "blue", "text"
ALL = {"text": "All", "value": "$__all", "selected": True}


def row(title: str) -> Panel:
    """Return a heading over the panels after it."""
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"h": 1, "w": WIDTH}}


def stat(
    title: str,
    why: str,
    unit: str,
    query: str,
    *,
    steps: Sequence[tuple[float | None, str]] = ((None, BLUE),),
    words: dict[str, tuple[str, str]] | None = None,
    to: str | None = None,
    width: int = 4,
) -> Panel:
    """Return one number of now; its colour says whether that is well. *to* names the dashboard behind it."""
    panel = _panel("stat", title, why, unit, [Query(query, "", instant=True)], width, 4, steps)
    panel["fieldConfig"]["defaults"]["mappings"] = _mappings(words or {})
    if unit == "short":
        panel["fieldConfig"]["defaults"]["decimals"] = 0  # increases are estimates, events are whole
    if to is not None:
        panel["fieldConfig"]["defaults"]["links"] = [{"title": f"See {to}", "url": url(to)}]
    panel["options"] = {
        "colorMode": "background_solid" if len(steps) > 1 or words else "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "textMode": "auto",
        "wideLayout": True,
    }
    return panel


def series(
    title: str,
    why: str,
    unit: str,
    *queries: Query,
    steps: Sequence[tuple[float | None, str]] = (),
    stack: bool = False,
    bars: bool = False,
    most: float | None = None,
    width: int = 12,
    height: int = 8,
) -> Panel:
    """Return lines over time; *steps* are drawn as dashed lines, *most* is the end of the axis."""
    panel = _panel("timeseries", title, why, unit, queries, width, height, steps)
    defaults = panel["fieldConfig"]["defaults"]
    defaults["min"] = 0
    if most is not None:
        defaults["max"] = most
    defaults["custom"] = {
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 60 if bars else 30 if stack else 10,
        "lineWidth": 1,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
    }
    panel["options"] = {
        "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel


def table(
    title: str,
    why: str,
    unit: str,
    query: str,
    columns: dict[str, str],
    *,
    value: str,
    width: int = 12,
    height: int = 8,
) -> Panel:
    """Return a table of now, greatest first; *columns* are labels and their headings, *value* is that of the number."""
    panel = _panel("table", title, why, unit, [Query(query, "", instant=True)], width, height, ())
    panel["targets"][0]["format"] = "table"
    if unit == "short":
        panel["fieldConfig"]["defaults"]["decimals"] = 0
    panel["options"] = {"cellHeight": "sm", "showHeader": True, "sortBy": [{"displayName": value, "desc": True}]}
    places = {name: at for at, name in enumerate((*columns, "Value"))}
    panel["transformations"] = [
        {"id": "filterFieldsByName", "options": {"include": {"names": list(places)}}},
        {"id": "organize", "options": {"indexByName": places, "renameByName": {**columns, "Value": value}}},
    ]
    return panel


def heat(title: str, why: str, query: str, *, width: int = 12, height: int = 8) -> Panel:
    """Return how often what lasted how long; *query* gives a histogram's buckets by ``le``."""
    panel = _panel("heatmap", title, why, "s", [Query(query, "{{le}}")], width, height, ())
    panel["targets"][0]["format"] = "heatmap"
    panel["options"] = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "reverse": False},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
        "yAxis": {"axisPlacement": "left", "unit": "s", "reverse": False},
    }
    return panel


def choice(name: str, values: str, why: str) -> dict[str, Any]:
    """Return a variable by which people choose; *values* is what Prometheus is asked for."""
    return {
        "name": name,
        "label": name,
        "description": why,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": values,
        "query": {"query": values, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        # Elsewhere than in a label of its own a pool's name must not stand for anything.
        "allValue": None if name == "pool" else ".+",
        "current": ALL,
        "options": [],
        "regex": "",
        "hide": 0,
        "skipUrlSync": False,
    }


def note(name: str, colour: str, query: str, title: str, text: str) -> dict[str, Any]:
    """Return marks on all panels where *query* gives something."""
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "expr": query,
        "step": "10s",
        "titleFormat": title,
        "textFormat": text,
    }


def dashboard(
    name: str, title: str, why: str, panels: Iterable[Panel], choices: Sequence[str] = (), notes: Sequence[Panel] = ()
) -> dict[str, Any]:
    """Return a whole dashboard, its panels laid out from left to right, and top to bottom."""
    variables = [
        {
            "name": "datasource",
            "label": "Data source",
            "description": "The Prometheus that scrapes asyncworker.",
            "type": "datasource",
            "query": "prometheus",
            "current": {},
            "hide": 0,
            "includeAll": False,
            "multi": False,
            "options": [],
            "refresh": 1,
            "regex": "",
            "skipUrlSync": False,
        },
        *(CHOICES[name] for name in ("job", "instance", *choices)),
    ]
    return {
        "uid": uid(name),
        "title": f"asyncworker / {title}",
        "description": why,
        "tags": [TAG],
        "schemaVersion": 42,
        "version": 1,
        "editable": False,
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "timepicker": {},
        "annotations": {"list": [BUILT_IN, *notes]},
        "links": [
            {
                "type": "dashboards",
                "title": "asyncworker",
                "tags": [TAG],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }
        ],
        "templating": {"list": variables},
        "panels": list(_laid_out(panels)),
    }


CHOICES = {
    name: choice(name, values, why)
    for name, values, why in (
        ("job", "label_values(asyncworker_queue_jobs, job)", "The fleet, by the name of its scrape job."),
        ("instance", 'label_values(asyncworker_queue_jobs{job=~"$job"}, instance)', "Who was scraped."),
        ("queue", 'label_values(asyncworker_queue_jobs{job=~"$job"}, queue)', "Queues."),
        ("task", 'label_values(asyncworker_job_duration_seconds_count{job=~"$job"}, task)', "Tasks."),
        ("pool", 'label_values(asyncworker_pool_connections{job=~"$job"}, pool)', "Pools of connections."),
        ("limiter", 'label_values(asyncworker_concurrency_limit{job=~"$job"}, limiter)', "What is sized."),
    )
}
BUILT_IN = {
    "builtIn": 1,
    "name": "Annotations & Alerts",
    "type": "dashboard",
    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
    "enable": True,
    "hide": True,
    "iconColor": "rgba(0, 211, 255, 1)",
}


def uid(name: str) -> str:
    """Return the name by which a dashboard is linked; never changed, as people keep links."""
    return f"asyncworker-{name}"


def url(name: str) -> str:
    """Return the link to a dashboard that keeps the time and what was chosen."""
    return f"/d/{uid(name)}?${{__url_time_range}}&${{__all_variables}}"


def _panel(
    kind: str,
    title: str,
    why: str,
    unit: str,
    queries: Sequence[Query],
    width: int,
    height: int,
    steps: Sequence[tuple[float | None, str]],
) -> Panel:
    marks = steps if steps and steps[0][0] is None else ((None, GREEN), *steps)
    return {
        "type": kind,
        "title": title,
        "description": why,
        "datasource": DATASOURCE,
        "gridPos": {"h": height, "w": width},
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "thresholds": {"mode": "absolute", "steps": [{"value": at, "color": colour} for at, colour in marks]},
                "color": {"mode": "thresholds" if kind == "stat" else "palette-classic"},
                "mappings": [],
            },
            "overrides": [],
        },
        "targets": [_target(query, letter) for query, letter in zip(queries, "ABCDEFGH", strict=False)],
        "options": {},
    }


def _target(query: Query, letter: str) -> dict[str, Any]:
    return {
        "refId": letter,
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "format": "time_series",
        "instant": query.instant,
        "range": not query.instant,
    }


def _mappings(words: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
    if not words:
        return []
    options = {
        value: {"text": text, "color": colour, "index": at} for at, (value, (text, colour)) in enumerate(words.items())
    }
    return [{"type": "value", "options": options}]


def _laid_out(panels: Iterable[Panel]) -> Iterable[Panel]:
    x = y = tallest = 0
    for number, panel in enumerate(panels, 1):
        place = panel["gridPos"]
        if x + place["w"] > WIDTH:
            x, y, tallest = 0, y + tallest, 0
        place |= {"x": x, "y": y}
        x, tallest = x + place["w"], max(tallest, place["h"])
        yield {"id": number, **panel}

"""What stands in `grafana/`, as tests look at it; and a Prometheus of a test's own."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from asyncworker.daemon.catalogue import CATALOGUE, PREFIX
from asyncworker.lifeline import Child
from tests.support.servers import long_lived

PLACE = Path(__file__).parents[2] / "grafana"
DASHBOARDS = sorted(PLACE.glob("dashboards/*.json"))
PROMETHEUS, PROMTOOL = "/usr/bin/prometheus", "/usr/bin/promtool"
VARIABLES = {"$__rate_interval": "20s", "$__range": "1m", "$pool": "shop"}
PATIENCE_S = 20.0

_METRIC = re.compile(rf"(?<![\w:]){PREFIX}\w+(?![\w:])")
_SERIES = re.compile(r"_(bucket|sum|count)$")


def program(path: str) -> str:
    if not os.access(path, os.X_OK):
        pytest.skip(f"no {path}: apt-get install prometheus")
    return path


@cache
def dashboard(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


def panels(path: Path) -> list[dict[str, Any]]:
    """Return all that shows something: no rows."""
    return [panel for panel in dashboard(path)["panels"] if panel["type"] != "row"]


def queries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each query with the place where it stands."""
    for panel in panels(path):
        for target in panel["targets"]:
            yield f"{path.stem} / {panel['title']} ({panel['type']}) / {target['refId']}", target


def notes(path: Path) -> list[dict[str, Any]]:
    """Return the marks that a query makes."""
    return [one for one in dashboard(path)["annotations"]["list"] if "expr" in one]


def expressions(path: Path) -> Iterator[tuple[str, str]]:
    """Yield all PromQL of a dashboard, with its place."""
    yield from ((place, target["expr"]) for place, target in queries(path))
    yield from ((f"{path.stem} / note {note['name']}", note["expr"]) for note in notes(path))


def filled(expr: str) -> str:
    """Return an expression with its variables replaced, as Grafana does: all is chosen."""
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return re.sub(r"\$\w+", ".+", expr)


@cache
def rules(name: str) -> list[dict[str, Any]]:
    """Return the rules of a file, whatever their group."""
    read = yaml.safe_load((PLACE / "rules" / f"{name}.yaml").read_text("utf-8"))
    return [rule for group in read["groups"] for rule in group["rules"]]


def metrics(expr: str) -> set[str]:
    """Return the metrics that an expression asks for, as the catalogue calls them: without prefix and ``_bucket``."""
    names = {name.removeprefix(PREFIX) for name in _METRIC.findall(expr)}
    return {name if name in CATALOGUE else _SERIES.sub("", name) for name in names}


class Prometheus:
    """A server's HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """Return what an expression gives now: series with their labels and value."""
        asked = urllib.parse.urlencode({"query": expr}).encode()
        with urllib.request.urlopen(f"{self.url}/api/v1/query", asked, timeout=PATIENCE_S) as answer:
            data = json.load(answer)["data"]
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        return data["result"]

    def faults(self) -> list[str]:
        """Return what went wrong when our rules were last looked at."""
        with urllib.request.urlopen(f"{self.url}/api/v1/rules", timeout=PATIENCE_S) as answer:
            groups = json.load(answer)["data"]["groups"]
        found = [rule for group in groups for rule in group["rules"]]
        assert len(found) == len(rules("alerts")) + len(rules("recording"))
        return [f"{rule['name']}: {rule.get('lastError')}" for rule in found if rule["health"] != "ok"]


@contextmanager
def prometheus(target: str, folder: Path, job: str) -> Iterator[Prometheus]:
    """Start a Prometheus that scrapes ``host:port`` each second and knows our rules; its data lies in *folder*."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(PLACE / "rules" / "*.yaml")],
        "scrape_configs": [{"job_name": job, "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "prometheus.log"
    with log.open("wb") as words:
        child = Child(
            [
                program(PROMETHEUS),
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=words,
            stderr=words,
            cwd=folder,
        )
    with long_lived(child.pid):
        try:
            _wait_for(child, log, f"http://127.0.0.1:{port}")
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            child.stop()


def _wait_for(child: Child, log: Path, url: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert child.running, log.read_text()[-1000:]
        assert time.monotonic() < deadline, f"Prometheus is not ready: {log.read_text()[-1000:]}"
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=1.0):
                return
        except OSError:
            time.sleep(0.02)


def promtool(*words: str) -> None:
    """Run promtool; what it complains of fails the test."""
    done = subprocess.run([program(PROMTOOL), *words], check=False, capture_output=True, text=True, cwd=PLACE)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

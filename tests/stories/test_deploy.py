"""The files of deploy/: each is read by what would read it, where that is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from asyncworker.daemon.catalogue import table
from asyncworker.daemon.keda import scaled_object
from asyncworker.engine import QUEUES
from asyncworker.settings import SETTINGS, variable
from tests.support.command import call

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = ("asyncworker.service", "asyncworker-worker.service")
HARD = {
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "CapabilityBoundingSet=",
    "SystemCallFilter=@system-service",
    "KillMode=mixed",
    "Type=notify",
}


def tool(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return subprocess.run([name, *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", UNITS)
def test_e20_units_are_right_and_hardened(name: str, tmp_path: Path) -> None:
    text = (DEPLOY / name).read_text()
    lines = text.splitlines()
    assert set(lines) >= HARD
    assert {line.partition("=")[0] for line in lines} >= {
        "User",
        "WatchdogSec",
        "RestrictAddressFamilies",
        "MemoryMax",
        "TasksMax",
    }
    here = tmp_path / name
    here.write_text(text.replace("/opt/shop/.venv/bin/asyncworker", "/bin/true"))  # it must be there for the check
    checked = tool("systemd-analyze", "verify", str(here))
    assert (checked.returncode, checked.stderr) == (0, "")
    judged = tool("systemd-analyze", "security", "--offline=true", "--threshold=25", str(here))
    assert judged.returncode == 0, judged.stdout[-500:]


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def variables() -> set[str]:
    return {variable(name) for name in SETTINGS}


def test_compose_parses_and_sets_what_there_is() -> None:
    (found,) = documents(DEPLOY / "compose.yaml")
    services = found["services"]
    assert set(services) == {"broker", "daemon", "prometheus", "grafana"}
    assert set(services["daemon"]["environment"]) <= variables()
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert ":" in service["image"], f"{name}: which version?"
        assert "latest" not in service["image"], name
    named = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert {volume for volume in named if not volume.startswith(".")} == set(found["volumes"])


def test_the_deployment_parses_and_sets_what_there_is() -> None:
    (found,) = documents(DEPLOY / "kubernetes" / "deployment.yaml")
    pod = found["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {one["name"] for one in container["env"]} <= variables()
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    _, _, script = container["readinessProbe"]["exec"]["command"]
    assert "/readyz" in script
    assert pod["terminationGracePeriodSeconds"] > 40, "more than the grace period and its overtime"


def test_scalers_parse_and_ask_for_what_is_told() -> None:
    (scaler,) = documents(DEPLOY / "kubernetes" / "hpa.yaml")
    (deployment,) = documents(DEPLOY / "kubernetes" / "deployment.yaml")
    (metric,) = scaler["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == "asyncworker_queue_oldest_seconds"
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    keda = DEPLOY / "kubernetes" / "keda-scaledobject.yaml"
    assert keda.read_text() == scaled_object(QUEUES), (
        "asyncworker export keda > deploy/kubernetes/keda-scaledobject.yaml"
    )
    (scaled,) = documents(keda)
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert len(scaled["spec"]["triggers"]) == len(QUEUES)


def test_prometheus_reads_its_file() -> None:
    (found,) = documents(DEPLOY / "prometheus.yml")
    (compose,) = documents(DEPLOY / "compose.yaml")
    (target,) = found["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target.partition(":")[0] in compose["services"]
    checked = tool("promtool", "check", "config", str(DEPLOY / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_export_keda_names_the_queues_of_an_engine(tmp_path: Path) -> None:
    odd = 'we"ird\\one'
    (tmp_path / "shop.py").write_text(f"from asyncworker import Engine\n\nengine = Engine(queues=['mail', {odd!r}])\n")
    code, out, err = call("export", "keda", "shop", cwd=tmp_path)
    assert (code, err) == (0, "")
    triggers = yaml.safe_load(out)["spec"]["triggers"]
    assert [one["metadata"]["query"] for one in triggers] == [
        'max(asyncworker_queue_oldest_seconds{queue="mail"})',
        'max(asyncworker_queue_oldest_seconds{queue="we\\"ird\\\\one"})',
    ]


def test_the_table_of_metrics_is_the_catalogues(tmp_path: Path) -> None:
    assert (ROOT / "grafana" / "METRICS.md").read_text() == table(), "asyncworker export metrics > grafana/METRICS.md"
    code, out, err = call("export", "metrics", cwd=tmp_path)
    assert (code, out, err) == (0, table(), "")

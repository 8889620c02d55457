"""/metrics, /healthz and /readyz of a daemon and of a worker, as those who watch them meet them."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from asyncworker.daemon.catalogue import CATALOGUE, PREFIX
from tests.support.command import PATIENCE, Running, call, started

APP = """
import asyncio

from asyncworker import Engine
from asyncworker.tune.histogram import LogHistogram
from asyncworker.tune.sensors.sensor import Durations, Reading

engine = Engine(queues=["default", "cpu_intensive"])
POOL = (("pool", "shop"),)


class Pool:
    waits = LogHistogram()

    def read(self):
        told = {"pool_waiters": 2, "pool_leaks_total": 1}
        states = [Reading("pool_connections", 3, (*POOL, ("state", "used")))]
        return [*states, *(Reading(name, value, POOL) for name, value in told.items())]

    def durations(self):
        return [Durations("pool_acquire_seconds", self.waits, POOL)]


pool = engine.watch(Pool())
engine.optimizer.decisions.add("pool shop", 1, 2, "the test says so")


@engine.task()
async def send(n):
    await asyncio.sleep(0.001)


@engine.batch(max_wait=0.01)
async def rows(items):
    return items
"""
CONTRACT = [
    "jobs_enqueued_total",
    "jobs_total",
    "job_retries_total",
    "jobs_redelivered_total",
    "job_duration_seconds",
    "job_wait_seconds",
    "jobs_running",
    "queue_jobs",
    "queue_oldest_seconds",
    "broker_disruptions_total",
    "batch_size",
    "batch_wait_seconds",
    "concurrency_limit",
    "concurrency_inflight",
    "pool_connections",
    "pool_acquire_seconds",
    "pool_waiters",
    "pool_leaks_total",
    "event_loop_lag_seconds",
    "event_loop_stalls_total",
    "optimizer_decisions_total",
    "workers",
    "worker_info",
    "partitions_total",
    "job_progress_ratio",
    "process_resident_memory_bytes",
]
"""What a daemon tells at least."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "rows.csv").write_text("id,name\n" + "".join(f"{n},x{n}\n" for n in range(50)))
    return tmp_path


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, str(answer.read(), "utf-8")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, str(error.read(), "utf-8")


def base(running: Running) -> str:
    found = re.search(r"(http://127\.0\.0\.1:[0-9]+)/metrics", running.wait_for("/metrics"))
    assert found
    return found[1]


def until(look: Any, why: Any = "") -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (seen := look()):
        assert time.monotonic() < deadline, f"waited in vain: {why}"
        time.sleep(0.05)
    return seen


def families(url: str) -> dict[str, Any]:
    status, text = get(f"{url}/metrics")
    assert status == 200
    return {one.name.removeprefix(PREFIX): one for one in text_string_to_metric_families(text)}


def test_a_daemon_tells_all_that_was_promised_with_bounded_labels(place: Path, redis_url: str, namespace: str) -> None:
    broker = ("--broker", redis_url, "--namespace", namespace)
    size = ("--min-workers", "1", "--max-workers", "1", "--http", "off")
    with started("daemon", "shop", *size, "--metrics-port", "0", *broker, cwd=place) as running:
        url = base(running)
        for n in range(3):
            call("enqueue", "send", str(n), *broker, cwd=place)
        call("enqueue", "rows", "1", "--wait", *broker, cwd=place)
        params = json.dumps({"validation_rules": {"required_fields": ["id"]}})
        words = ("--function", "data_validation", "--params", params)
        code, _, err = call("submit", "rows.csv", *words, *broker, cwd=place)
        assert code == 0, err

        missing = set(CONTRACT)

        def all_told() -> dict[str, Any]:
            told = families(url)
            missing.difference_update(
                told, (one.name.removeprefix(PREFIX) for of in told.values() for one in of.samples)
            )
            return told if not missing else {}

        told = until(all_told, missing)
        for name, family in told.items():
            entry = CATALOGUE.get(name) or CATALOGUE[f"{name}_total"]
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            assert (family.type, labels) == (entry.kind, set(entry.labels)), name
        assert get(f"{url}/healthz") == (200, '{"ok":true,"reasons":[]}')
        assert get(f"{url}/readyz") == (200, '{"ok":true,"reasons":[]}')
        text = get(f"{url}/metrics")[1]
        if shutil.which("promtool"):
            done = subprocess.run(
                ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        running.signal(signal.SIGTERM)
        assert running.end()[0] == 0


def test_a_worker_by_itself_tells_systemd_and_answers_probes(place: Path, redis_url: str, namespace: str) -> None:
    broker = ("--broker", redis_url, "--namespace", namespace)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, contextlib.ExitStack() as opened:
        systemd.bind(str(place / "notify"))
        systemd.settimeout(PATIENCE)
        watched = {"NOTIFY_SOCKET": str(place / "notify"), "WATCHDOG_USEC": "300000"}
        words = ("worker", "shop", "--metrics-port", "0", *broker)
        running = opened.enter_context(started(*words, cwd=place, **watched))
        url = base(running)

        def heard(word: str) -> None:
            while word not in systemd.recv(4096).decode().split("\n"):
                pass

        heard("READY=1")
        heard("WATCHDOG=1")
        until(lambda: get(f"{url}/readyz") == (200, '{"ok":true,"reasons":[]}'))
        heard("STATUS=0 jobs run")
        assert get(f"{url}/healthz") == (200, '{"ok":true,"reasons":[]}')
        told = families(url)
        assert told["process_resident_memory_bytes"].samples[0].labels == {"target": "worker"}
        assert "workers" not in told, "that is the supervisor's to tell"
        running.signal(signal.SIGTERM)
        heard("STOPPING=1")
        assert running.end()[0] == 0

"""`asyncworker top` as people type it: what workers of other processes do right now."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import call, environment, started

APP = """
import asyncio
import time

from asyncworker import Engine

engine = Engine()
over = False


@engine.task()
async def nap(seconds):
    await asyncio.sleep(seconds)


@engine.task(max_attempts=1)
async def fail():
    raise ValueError("no")


@engine.task()
async def hold(seconds):
    time.sleep(seconds)


@engine.task(timeout=None)
async def busy():
    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(feed())
            await asyncio.sleep(0.1)


async def feed():
    await nap.enqueue_many([(0.02,)] * 5)
    await fail.enqueue()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


@pytest.fixture
def broker(redis_url: str, namespace: str) -> tuple[str, ...]:
    return ("--broker", redis_url, "--namespace", namespace)


@pytest.fixture
def worker(place: Path, broker: tuple[str, ...]) -> Iterator[Any]:
    with started("worker", "shop", "--metrics-port", "0", *broker, cwd=place) as running:
        running.wait_for("/metrics")
        yield running
        running.signal(signal.SIGTERM)
        running.wait_for("draining")
        running.signal(signal.SIGTERM)
        running.end()


def seen(look: Callable[[], Any], patience: float = 30.0) -> Any:
    deadline = time.monotonic() + patience
    while not (found := look()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def goes_on_on_a_terminal_until_it_is_interrupted(place: Path, broker: tuple[str, ...]) -> None:
    ours, theirs = pty.openpty()
    told = b""
    with subprocess.Popen(
        [sys.executable, "-m", "asyncworker", "top", *broker],
        cwd=place,
        env=environment(TERM="xterm-256color", COLUMNS="160", LINES="40"),
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        deadline = time.monotonic() + 30
        while told.count(b"nap") < 2 and time.monotonic() < deadline:
            told += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        try:
            while os.read(ours, 65536):
                pass
        except OSError:  # the terminal's other end is closed
            assert process.wait(30) == 130
    os.close(ours)
    assert told.count(b"nap") >= 2


def test_it_tells_of_tasks_workers_and_slow_lines(worker: Any, place: Path, broker: tuple[str, ...]) -> None:
    call("enqueue", "hold", "0.3", *broker, cwd=place)
    call("enqueue", "busy", *broker, cwd=place)

    def told() -> Any:
        code, out, _ = call("top", "--json", *broker, cwd=place)
        assert code == 0
        view = json.loads(out)
        tasks = {of["name"]: of for of in view["tasks"]}
        ready = {"nap", "fail", "busy"} <= tasks.keys() and tasks["nap"]["await_s"] and tasks["fail"]["failed"]
        return (view, tasks) if ready and tasks["nap"]["p50_s"] else None

    view, tasks = seen(told)
    assert tasks["busy"]["running"] == 1
    assert tasks["nap"]["rate"] > 1
    assert 0.015 < tasks["nap"]["p50_s"] <= tasks["nap"]["p95_s"]
    assert tasks["nap"]["await_s"] > tasks["nap"]["cpu_s"] > 0
    (one,) = view["workers"]
    assert one["name"].endswith(f":{worker.process.pid}")
    assert one["running"] >= 1
    assert one["rss_bytes"] > 1e6
    assert any("shop.py:23, in hold" in line for line, _ in view["held"]), view["held"]

    code, out, _ = call("top", "--once", *broker, cwd=place)
    assert code == 0
    assert "\x1b" not in out
    heads = [line.split()[0] for line in out.splitlines() if line]
    assert {"task", "nap", "busy", "worker", "slow"} <= set(heads)
    url = re.search(r"http://127\.0\.0\.1:[0-9]+/metrics", worker.said)
    assert url
    with urllib.request.urlopen(url[0], timeout=10) as answer:
        metrics = answer.read().decode()
    for told in (
        'asyncworker_concurrency_limit{limiter="task nap"}',
        "asyncworker_event_loop_lag_seconds_count",
        "asyncworker_event_loop_stalls_total",
        "asyncworker_process_resident_memory_bytes",
        'asyncworker_profiled_seconds_total{state="await",task="nap"}',
    ):
        assert told in metrics
    goes_on_on_a_terminal_until_it_is_interrupted(place, broker)


def test_without_a_worker_it_says_so(place: Path, broker: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncworker.cli.top.PATIENCE_S", 0.1)
    code, out, err = call("top", *broker, cwd=place)
    assert (code, out) == (0, "")
    assert "no worker can be seen there" in err
    assert json.loads(call("top", "--json", *broker, cwd=place)[1]) == {"tasks": [], "workers": [], "held": []}
    code, _, err = call("top", "--broker", "memory://", cwd=place)
    assert (code, "keeps nothing for others to see" in err) == (2, True)


def test_a_worker_can_go_unmeasured_and_one_that_ended_is_seen_no_more(
    place: Path, broker: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def workers() -> list[Any]:
        return json.loads(call("top", "--json", *broker, cwd=place)[1])["workers"]

    with started("worker", "shop", *broker, cwd=place) as running:
        assert seen(workers)
        running.signal(signal.SIGTERM)
        assert running.end()[0] == 0
    monkeypatch.setattr("asyncworker.cli.top.PATIENCE_S", 0.1)
    assert workers() == []
    with started("worker", "shop", "--no-profile", *broker, cwd=place) as running:
        job = call("enqueue", "nap", "0", *broker, cwd=place)[1].strip()
        assert call("result", job, "--wait", *broker, cwd=place)[0] == 0
        assert workers() == []
        running.signal(signal.SIGTERM)
        assert running.end()[0] == 0

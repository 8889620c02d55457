"""`asyncworker worker` as people run it: its banner, its signals, its metrics, and what it refuses."""

from __future__ import annotations

import json
import re
import signal
import socket
import urllib.request
from pathlib import Path

import pytest

from tests.support.command import call, run, started

APP = """
import asyncio
import pathlib

from asyncworker import Engine

engine = Engine(queues=["mail", "default"])


@engine.task()
async def add(a, b=0):
    return a + b


@engine.task()
async def wait_for(path):
    pathlib.Path(path + ".began").touch()
    while not pathlib.Path(path).exists():
        await asyncio.sleep(0.01)
    return "done"


@engine.task(max_attempts=1)
async def fail(text):
    raise ValueError(text)


def made():
    return engine
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


@pytest.fixture
def broker(redis_url: str, namespace: str) -> tuple[str, ...]:
    return ("--broker", redis_url, "--namespace", namespace)


def appears(path: Path, running: object) -> None:
    while not path.exists():
        running.wait_for("")  # type: ignore[attr-defined] - fails when it has ended


def test_its_banner_says_what_it_is_and_a_burst_ends_when_all_is_done(place: Path, broker: tuple[str, ...]) -> None:
    ids = [call("enqueue", "add", str(n), "--kwargs", '{"b": 10}', *broker, cwd=place)[1].strip() for n in (1, 2)]
    words = ("worker", "shop:made", *broker, "--burst", "--concurrency", "3", "--lease", "5s", "--queues", "default")
    code, out, err = run(*words, cwd=place)
    assert (code, out) == (0, "")
    (banner,) = err.splitlines()
    for words_in_it in (
        "worker on unix://",
        "queues default;",
        "tasks add, fail, wait_for and the built-ins",
        "concurrency 3",
        "lease 5 s",
        "grace period 30 s",
    ):
        assert words_in_it in banner
    code, out, _ = call("result", ids[1], *broker, cwd=place)
    assert (code, out) == (0, "12\n")


def test_the_first_signal_drains(place: Path, broker: tuple[str, ...]) -> None:
    gate = place / "gate"
    with started("worker", "shop", *broker, cwd=place) as worker:
        job = call("enqueue", "wait_for", str(gate), *broker, cwd=place)[1].strip()
        appears(place / "gate.began", worker)
        worker.signal(signal.SIGTERM)
        worker.wait_for("SIGTERM: draining, for 30 s at most")
        gate.touch()
        assert worker.end()[0] == 0
    assert call("result", job, *broker, cwd=place)[:2] == (0, "done\n")


def test_the_second_signal_hands_jobs_back_at_once(place: Path, broker: tuple[str, ...]) -> None:
    with started("worker", "shop", *broker, cwd=place) as worker:
        job = call("enqueue", "wait_for", str(place / "never"), *broker, cwd=place)[1].strip()
        appears(place / "never.began", worker)
        worker.signal(signal.SIGINT)
        worker.wait_for("SIGINT: draining")
        worker.signal(signal.SIGINT)
        code, _, err = worker.end()
    assert code == 0
    assert "SIGINT again: handing running jobs back" in err
    status = json.loads(call("status", job, *broker, "--json", cwd=place)[1])
    assert (status["state"], status["attempt"], status["deliveries"]) == ("queued", 0, 0)


def test_s22_what_a_job_was_given_is_in_no_log_line_and_no_metric(place: Path, broker: tuple[str, ...]) -> None:
    canary = "hunter2-of-the-test"
    words = ("worker", "shop", *broker, "--metrics-port", "0", "--log-level", "debug", "--log-format", "json")
    with started(*words, cwd=place) as worker:
        url = re.search(r"http://127\.0\.0\.1:[0-9]+/metrics", worker.wait_for("/metrics"))
        assert url
        code, out, err = call("enqueue", "fail", canary, *broker, "--timeout", "20s", cwd=place)
        assert (code, out) == (1, "")
        assert "ValueError" in err
        with urllib.request.urlopen(url[0], timeout=10) as answer:
            metrics = answer.read().decode()
        worker.signal(signal.SIGTERM)
        code, _, logged = worker.end()
    assert code == 0
    assert 'asyncworker_jobs_total{queue="default",status="failed"} 1.0' in metrics
    assert 'asyncworker_job_duration_seconds_count{queue="default",task="fail"} 1.0' in metrics
    assert canary not in metrics + logged
    assert any(json.loads(line)["message"].startswith("fail on default: failed") for line in logged.splitlines())


def test_on_memory_it_says_that_nobody_else_sees_its_jobs(place: Path) -> None:
    with started("worker", "shop", cwd=place) as worker:
        worker.wait_for("memory:// lives in this process: nobody else will see its jobs")
        worker.signal(signal.SIGTERM)
        assert worker.end()[0] == 0


def test_a_taken_metrics_port_is_exit_2(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, out, err = call("worker", "--metrics-port", port, cwd=place)
    assert (code, out) == (2, "")
    assert (
        err == f"asyncworker: metrics port {port} of 127.0.0.1 cannot be had: Address already in use; choose another\n"
    )


def test_who_works_and_what_waits_is_counted(place: Path, broker: tuple[str, ...]) -> None:
    call("enqueue", "add", "1", *broker, cwd=place)
    counted = json.loads(call("jobs", *broker, "--json", cwd=place)[1])
    assert counted["queues"]["default"]["queued"] == 1
    assert counted["workers"] == []
    with started("worker", "shop", *broker, cwd=place) as worker:
        code, out, _ = call("enqueue", "add", "2", *broker, "--wait", cwd=place)
        assert (code, out) == (0, "2\n")
        counted = json.loads(call("jobs", *broker, "--json", cwd=place)[1])
        code, out, _ = call("jobs", *broker, cwd=place)
        worker.signal(signal.SIGTERM)
        assert worker.end()[0] == 0
    assert counted["queues"]["default"]["succeeded"] == 2
    (card,) = counted["workers"]
    assert card["queues"] == ["mail", "default"]
    assert "0 running in 1 live workers" in out
    assert re.search(r"(?m)^mail +0 ", out)


def test_a_job_is_looked_at_and_cancelled(place: Path, broker: tuple[str, ...]) -> None:
    job = call("enqueue", "add", "1", '"1"', "[1]", "two words", *broker, cwd=place)[1].strip()
    code, out, _ = call("status", job, *broker, cwd=place)
    assert code == 0
    assert re.search(r"(?m)^state +queued$", out)
    assert re.search(r"(?m)^task +add$", out)
    code, out, err = call("result", job, *broker, cwd=place)
    assert (code, out, err) == (1, "", f"job {job} is queued; --wait waits for its end\n")
    assert call("cancel", job, *broker, cwd=place)[0] == 0
    code, out, _ = call("cancel", job, *broker, "--json", cwd=place)
    assert (code, json.loads(out)) == (1, {"job_id": job, "cancelled": False})
    code, _, err = call("result", job, *broker, cwd=place)
    assert code == 1
    assert "was cancelled" in err

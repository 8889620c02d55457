"""`asyncworker daemon` and `asyncworker worker --workers` as people run them; their faults are in tests/faults."""

from __future__ import annotations

import re
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.support.command import call, started

APP = """
import os

from asyncworker import Engine

engine = Engine(queues={"default": 3})


@engine.task()
async def where():
    return os.getpid()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("daemon", "shop"), "memory:// lives in one process alone"),
        (("worker", "shop", "--workers", "2"), "memory:// lives in one process alone"),
        (("daemon", "shop", "--broker", "embedded://"), "embedded:// lives in one process alone"),
        (("worker", "shop", "--workers", "2", "--burst", "--broker", "redis://localhost"), "--burst is for one worker"),
        (
            ("daemon", "shop", "--min-workers", "3", "--max-workers", "2", "--broker", "redis://localhost"),
            "min_workers 3 is more than max_workers 2",
        ),
        (("daemon", "shop", "--max-workers", "ten"), "--max-workers 'ten': want a whole number"),
        (("daemon", "shop", "--cpu-threshold", "0"), "--cpu-threshold '0': want a share"),
    ],
)
def test_s24_what_cannot_work_is_exit_2(place: Path, words: tuple[str, ...], told: str) -> None:
    code, out, err = call(*words, cwd=place)
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1


def test_so_many_workers_as_were_asked_for(place: Path, redis_url: str, namespace: str) -> None:
    broker = ("--broker", redis_url, "--namespace", namespace)
    with started("worker", "shop", "--workers", "2", "--metrics-port", "0", *broker, cwd=place) as running:
        said = running.wait_for("/metrics")
        assert "2 workers on unix://" in said
        pid = int(call("enqueue", "where", "--wait", *broker, cwd=place)[1])
        workers = [child.pid for child in running.children()]
        assert pid in workers
        url = re.search(r"http://127\.0\.0\.1:[0-9]+/metrics", said)
        with urllib.request.urlopen(url[0], timeout=10) as answer:
            assert b'asyncworker_jobs_total{queue="default",status="succeeded"} 1.0' in answer.read()
        running.signal(signal.SIGTERM)
        code, out, err = running.end()
    assert (code, out) == (0, "")
    assert "workers drain" in err


def test_a_worker_whose_supervisor_is_gone_does_not_start(place: Path) -> None:
    code, _, err = call("worker", "shop", "--supervisor", f"{place}:worker-1", cwd=place)
    assert code == 2
    assert "the supervisor of this worker is gone" in err

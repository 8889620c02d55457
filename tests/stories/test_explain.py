"""`asyncworker explain` as people type it: what was decided, because of what, and what became of it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from asyncworker import AsyncWorkerOptimizer, Engine
from asyncworker.queue.archive import Archive, open_keep
from asyncworker.queue.codec import Ids, pack_call
from asyncworker.queue.job import Job
from tests.support.command import call, environment, run, started

SHOP = """
import asyncio

from asyncworker import Engine

engine = Engine()


@engine.task()
async def nap():
    await asyncio.sleep(0.02)
"""

CHANGES = (
    ("task mail", 4, 8, "start-up: 120/s at 4, still growing"),
    ("task mail", 8, 9, "probe, most work at 8"),
    ("task mail", 9, 8, "centre, most work at 8"),
    ("pool", 2, 3, "level high"),
    ("pool", 3, 2, "undone: 3/s after 5/s before, while work waits"),
)


@pytest.fixture(params=["redis", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path, namespace: str) -> tuple[str, ...]:
    """Give the flags that say where decisions are kept."""
    if request.param == "file":
        return ("--keep", str(tmp_path / "kept.db"), "--namespace", namespace)
    return ("--broker", request.getfixturevalue("redis_url"), "--namespace", namespace)


def decide(place: tuple[str, ...], changes: tuple[Any, ...] = CHANGES) -> None:
    """Be a worker that decides these."""

    async def work() -> None:
        keep, optimizer = open_keep(place[1], place[3]), AsyncWorkerOptimizer()
        async with Archive(keep, optimizer):
            for change in changes:
                optimizer.decisions.add(*change)
        await keep.close()

    asyncio.run(work())


def test_it_tells_what_was_decided_because_of_what_and_whether_it_was_undone(
    place: tuple[str, ...], tmp_path: Path
) -> None:
    decide(place)
    code, out, err = call("explain", *place, cwd=tmp_path)
    assert (code, err) == (0, "")
    sizes, _, decisions = out.partition("\n\n")
    assert "\x1b" not in out
    assert [line.split()[:6] for line in sizes.splitlines()[1:]] == [
        ["pool", "2", "2..3", "2", "1", "level"],
        ["task", "mail", "8", "4..9", "3", "0"],
    ]
    assert "start-up (1), probe (1), centre (1)" in sizes
    lines = decisions.splitlines()
    assert len(lines) == 4, "what only tries is counted above"
    assert "start-up: 120/s at 4, still growing" in lines[1]
    assert "undone  level high" in lines[2]
    assert "undone: 3/s after 5/s before, while work waits" in lines[3]
    assert str(os.getpid()) in lines[3]


def test_it_prints_one_document(place: tuple[str, ...], tmp_path: Path) -> None:
    decide(place)
    code, out, _ = call("explain", *place, "--json", cwd=tmp_path)
    told = json.loads(out)
    assert code == 0
    assert [(one["name"], one["old"], one["new"], one["undone"]) for one in told["decisions"]] == [
        ("task mail", 4, 8, False),
        ("pool", 2, 3, True),
        ("pool", 3, 2, False),
    ]
    assert [(one["name"], one["changes"], one["undone"]) for one in told["sizes"]] == [
        ("pool", 2, 1),
        ("task mail", 3, 0),
    ]
    told = json.loads(call("explain", *place, "--json", "--task", "mail", cwd=tmp_path)[1])
    assert {one["name"] for one in told["decisions"] + told["sizes"]} == {"task mail"}
    told = json.loads(call("explain", *place, "--json", "--task", "pool", cwd=tmp_path)[1])
    assert {one["name"] for one in told["decisions"] + told["sizes"]} == {"pool"}
    told = json.loads(call("explain", *place, "--json", "--since", "0s", cwd=tmp_path)[1])
    assert told == {"sizes": [], "decisions": []}


def test_it_says_when_there_is_none(place: tuple[str, ...], tmp_path: Path) -> None:
    if place[0] == "--keep":
        code, _, err = call("explain", "--keep", str(tmp_path / "absent" / "kept.db"), cwd=tmp_path)
        assert (code, "unable to open" in err) == (1, True)
    code, out, err = call("explain", *place, cwd=tmp_path)
    assert (code, out) == (0, "")
    assert err.startswith("nothing was decided, as far as ")
    assert "--concurrency 20" in err
    decide(place)
    code, out, err = call("explain", *place, "--task", "shop", "--since", "10m", cwd=tmp_path)
    assert (code, out) == (0, "")
    assert err.startswith("nothing was decided about 'shop' in the last 10:00 min")


def test_what_nobody_keeps_is_a_clear_error(tmp_path: Path) -> None:
    for broker in ((), ("--broker", "memory://"), ("--broker", "embedded://")):
        code, out, err = call("explain", *broker, cwd=tmp_path)
        assert (code, out) == (2, "")
        assert "keeps nothing for others to see: give --broker or ASYNCWORKER_BROKER" in err
    code, _, err = call("explain", "--broker", f"unix://:hunter2@{tmp_path}/none", cwd=tmp_path)
    assert code == 1
    assert "does not answer" in err
    assert "hunter2" not in err
    code, _, err = call("explain", "--keep", "ftp://h", cwd=tmp_path)
    assert (code, "unknown keep 'ftp'" in err) == (2, True)


def test_a_file_that_is_none_of_ours_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "kept.db").write_text("no database, but some text" * 100)
    code, _, err = call("explain", "--keep", "kept.db", cwd=tmp_path)
    assert (code, len(err.splitlines())) == (1, 1)
    assert "file is not a database" in err
    (tmp_path / "kept.db").unlink()
    with sqlite3.connect(tmp_path / "kept.db") as other:
        other.execute("CREATE TABLE logs (id INTEGER)")
    other.close()
    code, _, err = call("explain", "--keep", "kept.db", cwd=tmp_path)
    assert (code, len(err.splitlines())) == (1, 1)


def on_terminal(*words: str, cwd: Path) -> str:
    """Return what the command writes to a terminal."""
    ours, theirs = pty.openpty()
    told = b""
    with subprocess.Popen(
        [sys.executable, "-m", "asyncworker", *words],
        cwd=cwd,
        env=environment(TERM="xterm-256color", COLUMNS="160"),
        stdout=theirs,
        stderr=subprocess.STDOUT,
    ) as process:
        os.close(theirs)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the terminal's other end is closed
                break
            if not piece:
                break
            told += piece
        process.kill()
    os.close(ours)
    return told.decode()


@pytest.mark.parametrize(("colour", "some"), [(("--no-color",), False), ((), True)])
def test_a_terminal_gets_colours_and_the_last_ones(
    tmp_path: Path, namespace: str, colour: tuple[str, ...], some: bool
) -> None:
    place = ("--keep", str(tmp_path / "kept.db"), "--namespace", namespace)
    decide(place, tuple(("mail", size, size + 1, "the best is still above") for size in range(1, 61)) + CHANGES[3:])
    told = on_terminal("explain", *place, *colour, cwd=tmp_path)
    assert "22 earlier ones: --all shows them" in told
    assert ("\x1b[31m" in told, "\x1b[32m" in told) == (some, some)


def test_a_restarted_worker_goes_on_from_what_it_learned_and_a_supervisor_is_explained_too(
    redis_url: str, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    place = ("--broker", redis_url, "--namespace", namespace)
    asyncio.run(enqueue(redis_url, namespace, 1500))
    assert run("worker", "shop", *place, "--burst", cwd=tmp_path)[0] == 0
    asyncio.run(enqueue(redis_url, namespace, 1500))
    with started("daemon", "shop", *place, "--min-workers", "0", "--max-workers", "1", cwd=tmp_path) as running:
        deadline = time.monotonic() + 60
        while json.loads(call("jobs", "--json", *place, cwd=tmp_path)[1])["queues"]["default"]["succeeded"] < 3000:
            assert time.monotonic() < deadline, running.said
            time.sleep(0.05)
        running.signal(signal.SIGTERM)
        assert running.end()[0] == 0
    told = json.loads(call("explain", "--json", *place, cwd=tmp_path)[1])
    first, *_ = naps = [one for one in told["decisions"] if one["name"] == "task nap"]
    assert "start-up" in first["because"]
    assert {one["name"] for one in told["sizes"]} >= {"task nap", "workers"}
    assert all(one["old"] > first["old"] for one in naps if one["source"] != first["source"])


async def enqueue(url: str, namespace: str, jobs: int) -> None:
    async with Engine(url, namespace=namespace) as engine:
        await engine.broker.enqueue([Job(Ids()(), "default", pack_call("nap", (), {})) for _ in range(jobs)])

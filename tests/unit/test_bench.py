"""The benches stay alive: each explains itself, and those that need no network run small."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
BENCHES = sorted(path.stem for path in (ROOT / "bench").glob("bench_*.py"))


def run(bench: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"bench.{bench}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("bench", BENCHES)
def test_a_bench_asks_one_question_and_says_what_would_refute_it(bench: str) -> None:
    text = (ROOT / "bench" / f"{bench}.py").read_text(encoding="utf-8")
    question = text.removeprefix('"""').partition("\n")[0]
    assert question.endswith("?")
    assert "Null hypothesis:" in text


ASKING_PEERS = ["bench_fanout", "bench_gathered", "bench_latency", "bench_queue", "bench_sleepers"]


@pytest.mark.parametrize("bench", ["bench_map", "bench_memory", "bench_shuffle", *ASKING_PEERS])
def test_a_bench_explains_itself(
    bench: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [bench, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"bench.{bench}", run_name="__main__")
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert "--json" in said
    assert "Null hypothesis" in said


def test_the_map_bench_runs_small() -> None:
    told = json.loads(run("bench_map", "--small", "--json"))
    assert told["items"] == 2_000
    assert {"workers", "stream", "gather"} <= told["ways"].keys()
    assert all(body["us"]["min"] > 0 for way in told["ways"].values() for body in way.values())
    assert told["ways"]["stream"]["once"]["more_mb"]["max"] < 2


def test_the_queue_bench_runs_small() -> None:
    told = json.loads(run("bench_queue", "--small", "--json"))
    assert told["contenders"].keys() == {"asyncworker", "bound"}
    for contender in told["contenders"].values():
        for side in ("results_off", "results_on"):
            assert [figures["drain"] > 0 for figures in contender[side]] == [True]


@pytest.mark.long
@pytest.mark.parametrize("bench", [bench for bench in ASKING_PEERS if bench != "bench_queue"])
def test_a_bench_beside_peers_runs_small(bench: str) -> None:
    told = json.loads(run(bench, "--small", "--json"))
    for contender in told["contenders"].values():
        assert contender["errors"] == []
        assert len(contender["figures"]) == 1


def test_the_bench_of_processes_runs_small() -> None:
    told = json.loads(run("bench_ipc", "--small", "--json"))
    assert told["us"].keys() == {"100", "1,000,000"}
    assert all(of["wall_us"] > 0 for rows in told["us"].values() for of in rows.values())


def test_the_shuffle_bench_runs_small() -> None:
    told = json.loads(run("bench_shuffle", "--rows", "6000", "--keys", "3000", "--workers", "1", "--json"))
    assert (told["rows"], told["wrong"], told["over"]) == (6000, "", [])


def test_the_memory_bench_runs_small() -> None:
    told = json.loads(run("bench_memory", "--rows", "5000", "--workers", "1", "--json"))
    assert [one["rows"] for one in told["runs"]] == [500, 5_000]
    assert told["runs"][1]["growth_mb"].keys() == {"worker 1", "submitter", "server"}

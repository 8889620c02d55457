"""``asyncworker bench``, with a handful of jobs: what is measured, and that nothing of it stays."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncworker.cli.bench import PHASES, _shown
from asyncworker.cli.command import Call
from asyncworker.settings import load
from tests.support.command import call

FIGURES = {"one_by_one", "bulk", "drain", "drain_results", "bound", "p50_s", "p99_s"}


def measured(cwd: Path, *words: str) -> dict[str, Any]:
    code, out, err = call("bench", "--jobs", "60", "--json", *words, cwd=cwd)
    assert code == 0, err
    return json.loads(out)  # type: ignore[no-any-return]


def test_on_ones_own_broker_and_nothing_stays(
    redis_url: str, tmp_path: Path, immortal_keys: Callable[..., list[str]]
) -> None:
    said = measured(tmp_path, "--broker", redis_url)
    figures = said["figures"]
    assert (said["jobs"], said["concurrency"]) == (60, "auto")
    assert all(figures[name] > 0 for name in FIGURES)
    assert figures["p50_s"] <= figures["p99_s"]
    assert 0 < figures["commands"] < figures["commands_results"]
    assert immortal_keys(redis_url, "{bench-*") == []


def test_as_a_user_who_may_do_no_more_than_workers(limited_redis_url: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("asyncworker.cli.bench.namespace", lambda: "test-bench")
    assert measured(tmp_path, "--broker", limited_redis_url)["figures"]["drain"] > 0


@pytest.mark.parametrize(("words", "server"), [((), "Valkey"), (("--broker", "memory://"), "this process")])
def test_where_nobody_set_a_broker(words: tuple[str, ...], server: str, tmp_path: Path) -> None:
    said = measured(tmp_path, "--concurrency", "10", *words)
    assert said["server"].startswith(server)
    assert said["concurrency"] == 10
    assert (said["figures"]["commands"] is None) == (server == "this process")


def test_a_server_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    code, out, err = call("bench", "--broker", "redis://127.0.0.1:1", cwd=tmp_path)
    assert (code, out) == (1, "")
    assert err == "asyncworker: redis://127.0.0.1:1 does not answer: Connection refused\n"


def test_for_people_it_is_a_table_beside_the_bound(tmp_path: Path) -> None:
    code, out, err = call("bench", "--jobs", "60", "--broker", "memory://", cwd=tmp_path)
    assert code == 0
    assert "of the bound" in out.splitlines()[0]
    assert sum("%" in line for line in out.splitlines()) == 2
    assert "median" in out
    assert "measuring memory://" in err


def test_on_a_terminal_it_shows_how_it_gets_on() -> None:
    out = io.StringIO()
    shown = Call(load({}, {"TERM": os.environ.get("TERM", "")}), out, out)
    shown.live = True
    with _shown(shown, "somewhere") as tell:
        tell(2, PHASES[2])
    assert PHASES[2] in out.getvalue()
    assert "somewhere" in out.getvalue()

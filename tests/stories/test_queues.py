"""`asyncworker queues` and `asyncworker dead` as people type them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import call

APP = """
from asyncworker import Engine

engine = Engine()


@engine.task(max_attempts=1)
async def charge(order):
    raise ValueError(f"no order {order}")


@engine.task(max_attempts=1, queue="io_intensive")
async def fetch():
    raise OSError("gone")
"""


@pytest.fixture
def ask(redis_url: str, namespace: str, tmp_path: Path) -> Any:
    (tmp_path / "shop.py").write_text(APP)

    def ask(*words: str, code: int = 0, app: str = "") -> Any:
        where = ("--broker", redis_url, "--namespace", namespace)
        done, out, err = call(*words, *where, *(("--app", app) if app else ()), cwd=tmp_path)
        assert done == code, err
        return json.loads(out) if "--json" in words else out + err

    return ask


def test_pause_and_bound_and_what_is_seen_of_it(ask: Any) -> None:
    assert ask("queues", "ls", "--json") == {}
    assert "queue default is paused" in ask("queues", "pause", "default")
    assert ask("queues", "bound", "default", "5", "--json") == {"queue": "default", "most": 5}
    ask("enqueue", "charge", "1")
    of = ask("queues", "ls", "--json")["default"]
    assert (of["queued"], of["paused"], of["most"]) == (1, True, 5)
    for command in (("queues", "ls"), ("jobs",)):
        assert "paused, at most 5" in ask(*command)
    assert "goes on" in ask("queues", "resume", "default")
    assert "any number" in ask("queues", "bound", "default", "off")
    assert "a whole number, or off" in ask("queues", "bound", "default", "1x", code=2)
    assert "Missing command" in call("queues", cwd=Path.cwd())[2]


def test_dead_letters(ask: Any) -> None:
    ids = [ask("enqueue", "charge", str(n)).strip() for n in (1, 2)]
    ids.append(ask("enqueue", "fetch", app="shop").strip())
    ask("worker", "shop", "--burst")
    letters = ask("dead", "ls", "--json")
    assert {letter["id"] for letter in letters} == set(ids)
    assert "ValueError: no order 1" in ask("dead", "ls")
    (fetched,) = ask("dead", "ls", "--queues", "io_intensive", "--json")
    assert (fetched["task"], fetched["reason"], fetched["attempt"]) == ("fetch", "error", 1)
    shown = ask("dead", "show", ids[1], "--json")
    assert (shown["args"], shown["kwargs"], shown["error"]) == ([2], {}, "ValueError: no order 2")
    assert "no order 2" in ask("dead", "show", ids[1])
    assert "is no dead letter" in ask("dead", "show", "nobody", code=2)
    assert "say which" in ask("dead", "replay", code=2)
    assert "--yes is needed" in ask("dead", "purge", "--all", code=2)
    assert ask("dead", "replay", "--task", "charge", "--yes", "--json")["replayed"] == sorted(ids[:2])
    assert len(ask("dead", "ls", "--json")) == 1
    ask("worker", "shop", "--burst")
    assert "1 dead letters replayed" in ask("dead", "replay", ids[0])
    ask("queues", "bound", "default", "1")
    assert ask("dead", "replay", ids[1], "--json", code=1) == {"replayed": [], "left": [ids[1]]}
    assert sorted(ask("dead", "purge", "--all", "--yes", "--json")["purged"]) == sorted(ids[1:])
    assert ask("dead", "ls", "--json") == []


def test_jobs_by_state_task_queue_and_time(ask: Any) -> None:
    first, second = (ask("enqueue", "charge", str(n)).strip() for n in (1, 2))
    fetched = ask("enqueue", "fetch", app="shop").strip()
    assert {of["id"] for of in ask("jobs", "ls", "--json")} == {first, second, fetched}
    ask("worker", "shop", "--burst", "--log-level", "error")
    ask("enqueue", "charge", "3")

    def ls(*words: str) -> set[str]:
        return {of["id"] for of in ask("jobs", "ls", *words, "--json")}

    assert ls("--state", "failed") == {first, second, fetched}
    assert ls("--state", "failed,running", "--queues", "io_intensive") == {fetched}
    assert ls("--task", "charge", "--since", "1h", "--limit", "2") == {first, second}
    assert len(ls("--task", "charge", "--limit", "1", "--all")) == 3
    assert ls("--until", "1h") == set()
    shown = ask("jobs", "ls", "--limit", "1")
    assert "no order " in shown or "gone" in shown
    assert "these are the first 1; --limit" in shown
    assert "states are cancelled, expired" in ask("jobs", "ls", "--state", "failde", code=2)

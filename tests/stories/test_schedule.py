"""`asyncworker schedule` as people type it, and what a worker does about it."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncworker import Engine
from asyncworker.errors import BadParameters, SettingsError, UnknownName
from tests.support.command import call

APP = """
from asyncworker import Engine

engine = Engine()


@engine.cron("0 3 * * *", tz="Europe/Berlin")
async def report():
    pass


@engine.task()
async def greet(name):
    return f"hello {name}"
"""


@pytest.fixture
def ask(redis_url: str, namespace: str, tmp_path: Path) -> Any:
    (tmp_path / "clockwork.py").write_text(APP)

    def ask(*words: str, code: int = 0) -> Any:
        done, out, err = call(
            "schedule", *words, "--broker", redis_url, "--namespace", namespace, "--app", "clockwork", cwd=tmp_path
        )
        assert done == code, err
        return json.loads(out) if "--json" in words else out + err

    return ask


def test_added_seen_run_changed_and_removed(ask: Any, redis_url: str, namespace: str) -> None:
    assert "added" in ask("add", "hello", "greet", "world", "--every", "10m")
    listed = {one["name"]: one for one in ask("ls", "--json")}
    assert listed["report"]["fixed"] is True
    assert (listed["hello"]["when"], listed["hello"]["task"], listed["hello"]["fixed"]) == (
        "every 600 s",
        "greet",
        False,
    )
    assert ask("add", "hello", "greet", "you", "--cron", "*/5 * * * *", "--json") == {"name": "hello", "new": False}
    assert "*/5 * * * * UTC" in ask("ls")
    job_id = ask("run", "hello").strip()
    engine = Engine(redis_url, namespace=namespace)

    async def found() -> Any:
        async with engine:
            return (await engine.job(job_id).status()).queue

    assert asyncio.run(found()) == "default"
    assert "removed" in ask("rm", "hello")
    assert [one["name"] for one in ask("ls", "--json")] == ["report"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("rm", "report"), "in the code of this engine"),
        (("add", "report", "greet", "x", "--every", "1h"), "in the code of this engine"),
        (("rm", "repot"), "unknown schedule 'repot'"),
        (("run", "repot"), "did you mean 'report'"),
        (("add", "a", "greet", "x"), "a crontab expression or an interval"),
        (("add", "a", "greet", "x", "--cron", "61 * * * *"), "'61 * * * *'"),
        (("add", "a", "greet", "x", "--cron", "* * * * *", "--tz", "Mars/Base"), "Mars/Base"),
        (("add", "a", "greet", "x", "--every", "1ms"), "a duration from"),
        (("add", "a", "greet", "--every", "1h"), "'name' is missing"),
        (("add", "a", "greet", "x", "--every", "1h", "--missed", "some"), "last, all, skip"),
        (("add", "a", "greet", "x", "--every", "1h", "--queues", "a,b"), "one queue"),
    ],
)
def test_what_cannot_be_done(ask: Any, words: tuple[str, ...], complaint: str) -> None:
    assert complaint in ask(*words, code=2)


async def test_a_worker_fires_what_is_added_while_it_runs(redis_url: str, namespace: str) -> None:
    engine = Engine(redis_url, namespace=namespace)
    calls: list[str] = []
    thrice = asyncio.Event()

    @engine.every(timedelta(seconds=0.1), unique="only one")
    async def beat() -> None:
        calls.append("beat")

    @engine.task()
    async def greet(name: str) -> None:
        calls.append(name)
        if calls.count("world") == 3 and "beat" in calls:
            thrice.set()

    async with engine:
        assert await engine.schedules.add("hello", "greet", "world", every=0.1, options={"priority": 9})
        run = asyncio.create_task(engine.run())
        async with asyncio.timeout(40):
            await thrice.wait()
        engine.stop()
        await run
        (hello,) = [one for one in await engine.schedules.ls() if not one.fixed]
        assert (hello.schedule.priority, hello.schedule.queue) == (9, "default")
        assert hello.last
        assert hello.last < hello.next
        assert len(engine.schedules) == 1


async def test_what_schedules_refuse(namespace: str) -> None:
    async with Engine(namespace=namespace) as engine:

        @engine.every(60)
        async def beat() -> None: ...

        add = engine.schedules.add
        with pytest.raises(SettingsError, match="two schedules"):
            engine.schedules.fix(next(iter(engine.schedules)))
        with pytest.raises(BadParameters, match="delay, at and outbox"):
            await add("a", "b", every=60, options={"delay": 5})
        with pytest.raises(BadParameters):
            await add("a", "beat", "too much", every=60)
        with pytest.raises(UnknownName):
            await add("a", "b", every=60, options={"priotity": 5})
        with pytest.raises(SettingsError, match=r"0\.1 seconds or more"):
            engine.every(0.01, name="other")(beat.__wrapped__)

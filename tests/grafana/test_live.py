"""A real Prometheus scrapes a real daemon under load, and each query of dashboards and rules is answered with data."""

from __future__ import annotations

import asyncio
import math
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncworker import Engine, JobFailed
from tests.grafana.shop import made
from tests.support.command import started
from tests.support.grafana import DASHBOARDS, Prometheus, filled, notes, prometheus, queries, rules

JOB = "asyncworker-shop"
PATIENCE_S = 70.0
NOTHING = " or on() vector(0)"
QUIET = {
    "overview / Alerts that fire (stat) / A": "none has had the time",
    "mapreduce / Partitions tried again (stat) / A": "nothing that reads a partition fails here",
    "optimizer / Undone (stat) / A": "no decision did harm",
    "optimizer / Full (stat) / A": "nothing is full just now",
    "optimizer / At one (stat) / A": "nothing is in that much trouble",
}
"""Whose answer may be the 0 that stands for nothing. All others must have data of their own."""


@asynccontextmanager
async def load(engine: Engine, items: Path) -> AsyncIterator[None]:
    """Give a fleet something of everything, meanwhile."""
    working = [asyncio.create_task(work(engine), name=work.__name__) for work in (_jobs, _failures)]
    runs = await engine.map_reduce(str(items), map="slowly", params={"seconds": 0.1}, partition_size=5, priority=0)
    try:
        yield
    finally:
        for task in working:
            task.cancel()
        ends = await asyncio.gather(*working, return_exceptions=True)
        await runs.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


async def _jobs(engine: Engine) -> None:
    await engine.admin.bound("bulk", 100_000)
    await engine.enqueue("die")
    while True:
        for number in range(10):
            for name in ("send", "store"):
                await engine.enqueue(name, number)
            await engine.enqueue("ask")
        for name in ("bounce", "flaky", "hold", "alone", "forget"):
            await engine.enqueue(name)
        await asyncio.sleep(0.2)


async def _failures(engine: Engine) -> None:
    while True:
        with pytest.raises(JobFailed):
            await (await engine.map_reduce(range(3), map="never", max_failures=0)).result()
        await (await engine.map_reduce(range(3), map="slowly", params={"seconds": 0})).result()
        await asyncio.sleep(0.5)


@pytest.mark.timeout(150)
async def test_every_query_is_answered(tmp_path: Path, redis_url: str, namespace: str, postgres_dsn: str) -> None:
    shutil.copy(Path(__file__).with_name("shop.py"), tmp_path)
    (tmp_path / "items.jsonl").write_text("".join(f"{number}\n" for number in range(4000)))
    flags = {
        "--broker": redis_url,
        "--namespace": namespace,
        "--http": "127.0.0.1:0",
        "--min-workers": "1",
        "--max-workers": "2",
        "--queue-threshold": "1",
        "--cpu-threshold": "100",
        "--memory-threshold": "100",
    }
    words = [word for pair in flags.items() for word in pair]
    with started("daemon", "shop:made", *words, cwd=tmp_path, SHOP_POSTGRES=postgres_dsn) as daemon:
        said = await asyncio.to_thread(daemon.wait_for, "grace period")
        address = re.search(r"http://(127\.0\.0\.1:[0-9]+)", said)
        assert address
        with prometheus(address[1], tmp_path, JOB) as server:
            async with made(redis_url, namespace) as engine, load(engine, tmp_path / "items.jsonl"):
                unanswered, unnamed = await asyncio.to_thread(ask_all, server)
                faults = await asyncio.to_thread(server.faults)
    assert not unanswered
    assert not unnamed
    assert not faults


def ask_all(server: Prometheus) -> tuple[dict[str, str], list[str]]:
    """Ask each query until it was answered by a number.

    Returns those that were not, and where legends name labels that series do not have.
    """
    targets: dict[str, dict[str, Any]] = {place: target for path in DASHBOARDS for place, target in queries(path)}
    pending = {place: target["expr"] for place, target in targets.items()}
    pending |= {
        f"{path.stem} / note": note["expr"]
        for path in DASHBOARDS
        for note in notes(path)
        if note["name"] == "Decisions"
    }
    pending |= {rule["record"]: rule["record"] for rule in rules("recording")}
    unnamed = []
    deadline = time.monotonic() + PATIENCE_S
    while pending and time.monotonic() < deadline:
        for place, expr in list(pending.items()):
            answer = server.ask(filled(expr if place in QUIET else expr.replace(NOTHING, "")))
            if not any(math.isfinite(float(series["value"][1])) for series in answer):
                continue
            del pending[place]
            wanted = re.findall(r"\{\{(\w+)\}\}", targets.get(place, {}).get("legendFormat", ""))
            unnamed += [
                f"{place}: {label}" for label in wanted if not any(label in series["metric"] for series in answer)
            ]
        time.sleep(0.1)
    return pending, unnamed

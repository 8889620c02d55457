"""Jobs that kill their workers: they end as dead letters, and nobody else is harmed for good."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from asyncworker import Engine
from asyncworker.errors import TaskFailed
from asyncworker.job import JobHandle
from tests.faults.fleet import ROOT
from tests.faults.server import server

POISON = ("exits", "faults", "is_killed", "knows_its_job", "cannot_be_run_apart")
WORKERS = 2


@asynccontextmanager
async def kept_alive(url: str) -> AsyncIterator[list[int]]:
    """Keep workers alive while the block runs; yields the exit codes of those that died."""
    command = [sys.executable, "-m", "asyncworker", "worker", "tests.faults.poison:engine", "--broker", url]
    fates: list[int] = []

    def start() -> subprocess.Popen[bytes]:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        options = ["--lease", "1s", "--concurrency", "20", "--no-profile"]
        return subprocess.Popen([*command, *options], cwd=ROOT, env={**os.environ, "PYTHONFAULTHANDLER": ""}, **quiet)  # type: ignore[call-overload,no-any-return]

    workers = [start() for _ in range(WORKERS)]

    async def look() -> None:
        while True:
            for place, worker in enumerate(workers):
                if (code := worker.poll()) is not None:
                    fates.append(code)
                    workers[place] = start()
            await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    try:
        yield fates
    finally:
        looking.cancel()
        await asyncio.wait([looking])
        for worker in workers:
            worker.kill()
            worker.wait()


async def poisoned(good: int, seed: int) -> None:
    with server() as redis:
        calls = [("good", (number,)) for number in range(good)] + [(name, ()) for name in POISON]
        random.Random(seed).shuffle(calls)
        async with Engine(redis.url) as engine, kept_alive(redis.url) as fates:
            jobs: list[tuple[str, JobHandle[object]]] = [
                (name, await engine.enqueue(name, *arguments)) for name, arguments in calls
            ]
            ends = await asyncio.gather(*(job.result(timeout=100) for _, job in jobs), return_exceptions=True)
            dead = set(await engine.admin.dead())
    lost = [
        str(end) for (name, _), end in zip(jobs, ends, strict=True) if name == "good" and isinstance(end, Exception)
    ]
    convicted = {name: end for (name, _), end in zip(jobs, ends, strict=True) if name != "good"}
    print(f"F12 seed={seed} tasks={len(jobs)} lost={len(lost)} dead={len(dead)} workers died={len(fates)} {fates}")
    assert not lost, "a good job was convicted with its neighbours"
    assert all(isinstance(end, TaskFailed) and end.reason == "worker_lost" for end in convicted.values()), convicted
    assert dead == {job.id for name, job in jobs if name != "good"}
    assert all(code in {3, 4, 5, -9, -11} for code in fates), fates
    assert len(fates) <= 2 * len(POISON), "poison killed more workers than it was allowed to"


@pytest.mark.timeout(200)
async def test_f12_poison_is_run_apart_and_the_others_live(seed: int) -> None:
    await poisoned(300, seed)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_f12_poison_among_five_thousand(seed: int) -> None:
    await poisoned(5000, seed)

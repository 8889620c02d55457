"""Does a fleet of real processes follow its load while its workers are killed, and lose nothing?

Null hypothesis: of the jobs of 20 seconds some are lost, or the 95th percentile of how long they waited is above 12 s (the
bar of `bench_autoscale`, times 1.5 for the kills).

    python -m bench.control.bench_autoscale_processes [--seed N] [--draws 2] [--json]

One `asyncworker daemon` keeps 1 to 4 worker processes on a Redis of its own; each does one job of 50 ms at a time, 19 a
second. Jobs come by themselves (Poisson): 14 a second for 6 s, 56 for 8 s, which takes three or four of them, then 14 again. A
random worker is killed with SIGKILL each 4 seconds. A job counts as lost if it does not end within half a minute after the
last was asked for. Ends with 1 where a bar is missed. In real time: half a minute a draw.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles

from asyncworker import AsyncWorkerError, Engine
from asyncworker.job import JobHandle
from asyncworker.task import Call
from bench.child import started
from bench.control.verdict import Figures, main
from bench.server import Server

SECONDS, BURST = 20.0, (6.0, 14.0)
BASE, HIGH = 14.0, 56.0
KILL_EVERY_S = 4.0
MOST = 4
PATIENCE_S = 30.0
BAR_S = 8.0 * 1.5
HOW = Call(queue="default", priority=5)
Asked = list[JobHandle[float]]


async def pids(engine: Engine) -> list[int]:
    """Return the worker processes that are alive."""
    cards = (await engine.broker.depth([])).workers.values()
    return [card.pid for card in cards if card.role == "worker"]


async def at_work(engine: Engine) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await pids(engine):
        if time.monotonic() > deadline:
            raise RuntimeError("no worker came")
        await asyncio.sleep(0.05)


async def ask(engine: Engine, rng: random.Random, asked: Asked) -> None:
    """Enqueue jobs as they come, for `SECONDS`."""
    began = due = time.monotonic()
    while True:
        due += rng.expovariate(HIGH if BURST[0] <= due - began < BURST[1] else BASE)
        if due - began > SECONDS:
            return
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        asked += await engine.calls.send("work", [((time.time(),), {})], HOW)


async def kill(engine: Engine, rng: random.Random, killed: list[int]) -> None:
    while True:
        await asyncio.sleep(KILL_EVERY_S)
        living = [pid for pid in await pids(engine) if pid not in killed]
        if living:
            victim = rng.choice(sorted(living))
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)


async def watch(engine: Engine, most: list[int]) -> None:
    while True:
        most[0] = max(most[0], len(await pids(engine)))
        await asyncio.sleep(0.25)


async def measure(rng: random.Random, server: Server, folder: Path) -> dict[str, float]:
    """Return what became of the jobs of one draw."""
    command = [sys.executable, "-m", "asyncworker", "daemon", "bench.control.autoscale_app:engine", "--http", "off"]
    command += ["--min-workers", "1", "--max-workers", str(MOST), "--cpu-threshold", "100", "--broker", server.url]
    asked, killed, most = Asked(), list[int](), [0]
    async with Engine(server.url) as engine, started(command, {"BENCH_BROKER": server.url}, folder / "log"):
        await at_work(engine)
        beside = [asyncio.create_task(kill(engine, rng, killed)), asyncio.create_task(watch(engine, most))]
        try:
            await ask(engine, rng, asked)
        finally:
            for one in beside:
                one.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        ends = await asyncio.gather(*(job.result(PATIENCE_S) for job in asked), return_exceptions=True)
    waits = [end for end in ends if isinstance(end, float)]
    lost = sum(isinstance(end, TimeoutError | AsyncWorkerError) for end in ends)
    cuts = quantiles(waits, n=100)
    return {
        "jobs": len(asked),
        "lost": lost,
        "p95_s": cuts[94],
        "p99_s": cuts[98],
        "killed": len(killed),
        "most": most[0],
    }


def judge(seed: int, draws: int) -> Figures:
    found: Figures = {}
    for draw in range(draws):
        with Server() as server, tempfile.TemporaryDirectory() as folder:
            found[f"draw {draw + 1}"] = asyncio.run(measure(random.Random(f"{seed} {draw}"), server, Path(folder)))
    return found


def bars(figures: Figures) -> dict[str, bool]:
    return {
        "no job lost": all(of["lost"] == 0 for of in figures.values()),
        f"95 of 100 waited {BAR_S:g} s at most": all(of["p95_s"] <= BAR_S for of in figures.values()),
        "workers were killed": all(of["killed"] >= 3 for of in figures.values()),
        "it grew": all(of["most"] >= 3 for of in figures.values()),
    }


if __name__ == "__main__":
    sys.exit(main(__doc__, judge, bars, 2))

"""The worker of `bench_worker_auto`: one kind of job, by the name in ``BENCH_CASE``, for so many seconds.

Each body notes when it ended and how long it took; what was noted, and each limit that was decided, is written when the
worker stops. Time counts from the end of the first body.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from asyncworker import Context, Engine
from asyncworker.events import Decided

NAP_S = 0.01
SLICES, SLICE_S = 5, 0.001
CONNECTIONS = 256
ROWS = 4

ends, took = array("d"), array("d")
limits: list[tuple[float, int]] = []


@asynccontextmanager
async def database() -> AsyncIterator[Any]:
    if not (dsn := os.environ.get("BENCH_DSN")):
        yield None
        return
    async with asyncpg.create_pool(dsn, min_size=0, max_size=CONNECTIONS) as pool:
        yield pool


engine = Engine(os.environ.get("BENCH_URL", "memory://"), queues=["default"], lifespan=database)
engine.bus.listen(Decided, lambda event: limits.append((time.perf_counter(), event.new)))


def noted(began: float) -> None:
    now = time.perf_counter()
    if not ends:
        asyncio.get_running_loop().call_later(float(os.environ["BENCH_SECONDS"]), lambda: engine.stop(now=True))
    ends.append(now)
    took.append(now - began)


@engine.task(name="sleepers", result_ttl=0)
async def sleepers() -> None:
    """Wait for 10 ms."""
    began = time.perf_counter()
    await asyncio.sleep(NAP_S)
    noted(began)


@engine.task(name="cpu", result_ttl=0)
async def cpu() -> None:
    """Compute for 5 ms of the processor's time, and let others run after each millisecond."""
    began = time.perf_counter()
    for _ in range(SLICES):
        until = time.thread_time() + SLICE_S
        while time.thread_time() < until:
            pass
        await asyncio.sleep(0)
    noted(began)


@engine.task(name="postgresql", result_ttl=0)
async def postgresql(ctx: Context) -> None:
    """Move money as pgbench does, between few rows: each transaction holds a branch until it is committed."""
    began = time.perf_counter()
    account, branch, amount = random.randrange(1000), random.randrange(ROWS), random.randrange(-5000, 5000)
    async with ctx.resources.acquire(timeout=60) as connection, connection.transaction():
        await connection.execute("UPDATE accounts SET balance = balance + $2 WHERE id = $1", account, amount)
        await connection.execute("UPDATE branches SET balance = balance + $2 WHERE id = $1", branch, amount)
        await connection.execute("INSERT INTO history VALUES ($1, $2, $3)", account, branch, amount)
    noted(began)


@engine.on_stop
def write() -> None:
    first = ends[0] if ends else 0.0
    told = {
        "ends": [round(end - first, 6) for end in ends],
        "took": [round(seconds, 6) for seconds in took],
        "limits": [(at - first, limit) for at, limit in limits],
    }
    Path(os.environ["BENCH_NOTES"]).write_text(json.dumps(told), encoding="utf-8")

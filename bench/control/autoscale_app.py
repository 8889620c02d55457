"""The workers of `bench_autoscale_processes`: one job at a time, each takes 50 ms and returns how long it had waited."""

from __future__ import annotations

import asyncio
import os
import time

from asyncworker import Engine

WORK_S = 0.05

engine = Engine(os.environ.get("BENCH_BROKER", "memory://"), queues={"default": 1}, concurrency=1, lease=2.0)


@engine.task(queue="default", timeout=30)
async def work(asked_at: float) -> float:
    """Return the seconds from *asked_at* (by this machine's clock) to the beginning of this run."""
    waited = time.time() - asked_at
    await asyncio.sleep(WORK_S)
    return waited

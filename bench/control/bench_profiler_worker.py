"""What does the profiler that is always on cost a worker whose jobs do nothing?

Null hypothesis: it costs more than 3 % of a job. A worker drains a backlog of jobs that do nothing, which is where a
profiler weighs most: first with nothing measured, then with the profiler as every worker has it (one call in eight, at
most two a beat), then with all instruments of a worker, the watchdog and memory's samples among them; then in the
other order, and so on. What counts is processor time of the whole process per job, threads included, from the worker's
start to its last job; the median of the pairs, each beside its own neighbour. ``memory://`` spends least on a job, so
that a share of it is the largest there is; Redis is what most run on.
Run: ``python -m bench.control.bench_profiler_worker [--jobs 10000] [--pairs 31] [--json]``. Ends with 1 where the bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from statistics import median
from typing import Any

from asyncworker import Engine, PerformanceProfiler
from asyncworker.daemon.instruments import Instruments
from asyncworker.task import Task
from bench.report import Machine, table
from bench.server import Server

BAR = 0.03
AT_ONCE = 100
Way = Callable[[Engine], AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def nothing(engine: Engine) -> AsyncIterator[None]:
    """Measure nothing."""
    yield


@asynccontextmanager
async def profiler(engine: Engine) -> AsyncIterator[PerformanceProfiler]:
    """Measure as a worker does unless it is told not to."""
    with PerformanceProfiler(tasks=False) as measuring:
        engine.profiler = measuring
        try:
            yield measuring
        finally:
            engine.profiler = None


WAYS: dict[str, Way] = {"nothing": nothing, "profiler": profiler, "all instruments": Instruments}


async def drained(engine: Engine, task: Task[[], None], jobs: int, way: Way) -> float:
    """Return the processor seconds that a worker spends on each of so many jobs."""
    for begin in range(0, jobs, 1000):
        await task.enqueue_many([()] * min(1000, jobs - begin))
    gc.collect()
    gc.freeze()  # what this bench has left behind is no garbage of the worker's
    async with way(engine):
        began = time.process_time()
        await engine.run(concurrency=AT_ONCE, burst=True)
        spent = time.process_time() - began
    gc.unfreeze()
    return spent / jobs


async def judge(url: str, jobs: int, pairs: int) -> dict[str, dict[str, float]]:
    """Return for each way the microseconds of processor time a job, and what it adds to nothing's."""
    engine = Engine(url, queues=["default"])

    @engine.task(name="nothing", result_ttl=0)
    async def nothing() -> None:
        return None

    spent: dict[str, list[float]] = {name: [] for name in WAYS}
    try:
        for way in WAYS.values():
            await drained(engine, nothing, max(1, jobs // 10), way)
        for pair in range(pairs):
            for name in list(WAYS)[:: 1 if pair % 2 else -1]:
                spent[name].append(await drained(engine, nothing, jobs, WAYS[name]))
    finally:
        await engine.close()
    alone = spent["nothing"]
    return {
        name: {
            "us a job": 1e6 * median(of),
            "more": median(one / other - 1 for one, other in zip(of, alone, strict=True)),
            "more, least of each": min(of) / min(alone) - 1,
        }
        for name, of in spent.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=31)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    machine = Machine()
    machine.probe()
    figures = {"memory": asyncio.run(judge("memory://", options.jobs, options.pairs))}
    with contextlib.suppress(RuntimeError), Server() as server:  # where there is one
        figures["redis"] = asyncio.run(judge(server.url, options.jobs, options.pairs))
    machine.probe()
    met = {f"{broker}: the profiler costs at most 3 %": of["profiler"]["more"] <= BAR for broker, of in figures.items()}
    if options.json:
        print(json.dumps({"machine": machine.facts(), "figures": figures, "bars": met}))
    else:
        rows = [
            (f"{broker} {name}", f"{of['us a job']:.2f}", f"{of['more']:+.2%}", f"{of['more, least of each']:+.2%}")
            for broker, ways in figures.items()
            for name, of in ways.items()
        ]
        print(table(("", "us a job", "more, median", "more, least"), rows))
        print(machine)
        for bar, good in met.items():
            print(f"{'met   ' if good else 'MISSED'}  {bar}")
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

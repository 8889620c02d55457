"""Does memory grow with the number of rows?

Null hypothesis: mapping and reducing 2,000,000 rows makes a worker grow by more than 64 MB, or the server by more
than 1 MB and 4 kB a partition. Exits with 1 when it does.

    python -m bench.bench_memory                    # 2,000,000 rows of JSON, 2 workers; half a minute
    python -m bench.bench_memory --rows 100000

The rows lie in a file made for the run; ``asyncworker worker`` processes map it over an embedded Valkey, as ``asyncworker
run`` does. Growth is counted from the moment when all workers have joined and nothing was asked of them, to the
highest of all looks, one each 50 ms: resident memory of each worker (and of this process, which submits and
cuts), ``used_memory`` of the server. A tenth of the rows, run first and compared, tells a price paid once from one
that grows. What partitions come to lies on the server until the job ends, so a function with large partial results
(thousands of groups) takes that much more; here they are small.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import redis

from asyncworker import Engine
from bench.child import started
from bench.report import Machine, table

MB = 2**20
WORKER_MB = 64.0
SERVER_MB = 1.0
SERVER_KB_A_PARTITION = 4.0
LOOK_S = 0.05
ROW = '{{"id": {0}, "name": "customer {0}", "age": {1}, "city": "c{2}", "spent": {3}.5}}\n'
PARAMS: dict[str, dict[str, Any]] = {
    "data_validation": {
        "validation_rules": {
            "required_fields": ["id", "name"],
            "type_validations": {"id": "int", "spent": "float"},
            "range_validations": {"age": {"min": 0, "max": 90}},
        }
    },
    "data_aggregation": {"aggregation_config": {"group_by": ["city"], "aggregate_fields": {"spent": ["sum", "avg"]}}},
}


class Looks:
    """What memory was at the start, and the most it has been since."""

    def __init__(self, processes: dict[str, int], server: redis.Redis) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in processes.items()}
        self._server = server
        self.start = self._look()
        self.peak = dict(self.start)

    def _look(self) -> dict[str, float]:
        memory: dict[str, Any] = self._server.info("memory")
        seen = {name: process.memory_info().rss / MB for name, process in self._processes.items()}
        return {**seen, "server": memory["used_memory"] / MB}

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        async def look() -> None:
            while True:
                for name, now in self._look().items():
                    self.peak[name] = max(self.peak[name], now)
                await asyncio.sleep(LOOK_S)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    @property
    def growth(self) -> dict[str, float]:
        return {name: self.peak[name] - self.start[name] for name in self.start}


def write(path: Path, rows: int) -> None:
    with path.open("w", encoding="ascii") as file:
        file.writelines(ROW.format(row, row % 100, row % 20, row % 977) for row in range(rows))


def bound(name: str, partitions: int) -> float | None:
    """Return how many MB this may grow by; None where nothing was promised."""
    if name == "server":
        return SERVER_MB + SERVER_KB_A_PARTITION * partitions / 1024
    return WORKER_MB if name.startswith("worker") else None


async def measure(path: Path, rows: int, args: argparse.Namespace) -> dict[str, Any]:
    """Run one job with fresh workers on a fresh server."""
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(Engine("embedded://"))
        url: str = engine.broker.url  # type: ignore[attr-defined]
        command = [sys.executable, "-m", "asyncworker", "worker", "--broker", url, "--log-level", "warning"]
        children = [
            await stack.enter_async_context(started(command, {}, path.with_suffix(".log"))) for _ in range(args.workers)
        ]
        async with asyncio.timeout(60):
            while len((await engine.broker.depth([])).workers) < args.workers:  # noqa: ASYNC110 - nobody is told who joins
                await asyncio.sleep(LOOK_S)
        pids = {f"worker {number}": child.process.pid for number, child in enumerate(children, 1)}
        looks = Looks({**pids, "submitter": os.getpid()}, stack.enter_context(redis.Redis.from_url(url)))
        began = time.perf_counter()
        async with asyncio.timeout(args.cap), looks.looking():
            job = await engine.map_reduce(
                str(path), args.function, params=PARAMS[args.function], partition_size=args.partition_size
            )
            summary = await job.result()
        seconds = time.perf_counter() - began
        if summary["total_processed"] != rows:
            raise RuntimeError(f"{summary['total_processed']} of {rows} rows were processed")
    partitions = summary["partitions_processed"]
    return {
        "rows": rows,
        "partitions": partitions,
        "seconds": seconds,
        "start_mb": looks.start,
        "growth_mb": looks.growth,
        "bound_mb": {name: bound(name, partitions) for name in looks.growth},
    }


def over(run: dict[str, Any]) -> list[str]:
    bounds = run["bound_mb"]
    return [name for name, grown in run["growth_mb"].items() if bounds[name] is not None and grown > bounds[name]]


def report(few: dict[str, Any], many: dict[str, Any], machine: Machine) -> str:
    rows = [
        [
            name,
            f"{many['start_mb'][name]:.1f}",
            f"{few['growth_mb'][name]:.2f}",
            f"{grown:.2f}",
            "-" if many["bound_mb"][name] is None else f"{many['bound_mb'][name]:.2f}",
            "TOO MUCH" if name in over(many) else "",
        ]
        for name, grown in many["growth_mb"].items()
    ]
    rates = " and ".join(f"{run['rows']:,} rows in {run['seconds']:.1f} s" for run in (few, many))
    head = ("MB", "at the start", f"grew, {few['rows']:,} rows", f"grew, {many['rows']:,} rows", "may grow", "")
    return f"{rates}; {many['partitions']} partitions.\n{machine}.\n\n{table(head, rows)}"


async def run(args: argparse.Namespace) -> int:
    runs, machine = [], Machine()
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as home:
        for rows in (args.rows // 10, args.rows):
            path = Path(home) / f"{rows}.jsonl"
            await asyncio.to_thread(write, path, rows)
            machine.probe()
            runs.append(await measure(path, rows, args))
            path.unlink()
    if args.json:
        document = {"bench": "memory", "function": args.function, "machine": machine.facts(), "runs": runs}
        print(json.dumps(document, indent=2))
    else:
        print(report(runs[0], runs[1], machine))
    return 1 if over(runs[-1]) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--partition-size", type=int, default=10_000)
    parser.add_argument("--function", choices=PARAMS, default="data_validation")
    parser.add_argument("--cap", type=float, default=600, help="seconds after which the run is given up")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    try:
        return asyncio.run(run(parser.parse_args()))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

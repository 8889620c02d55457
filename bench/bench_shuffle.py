"""Do a million distinct keys fit into small workers and a small server?

Null hypothesis: to aggregate 10,000,000 rows by 1,000,000 keys makes a worker, whether it maps, merges a share or puts
the shares together, grow beyond 256 MB, or the server beyond 512 MB; or a row of the result differs from what a plain
loop comes to. Exits with 1 when it does.

    python -m bench.bench_shuffle                                  # some minutes
    python -m bench.bench_shuffle --rows 500000 --keys 50000       # a twentieth
    python -m bench.bench_shuffle --keys 10000000                  # no key comes twice

The rows lie in a file made for the run, cut by bytes and not read before; ``asyncworker worker`` processes aggregate
it over an embedded Valkey, and the rows of the result go to a file. The keys of a partition are as different as they
can be, so that folding before sending wins nothing. Memory is the highest resident size of each process so far, as
the kernel tells it, and the server's own peak.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from array import array
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import redis

from asyncworker import Engine
from bench.child import started
from bench.report import Machine, table

MB = 2**20
WORKER_MB, SERVER_MB = 256.0, 512.0
STRIDE = 7_368_787
"""A prime: multiples of it modulo the number of keys visit all keys before one comes again."""
PARAMS = {"aggregation_config": {"group_by": ["k"], "aggregate_fields": {"v": ["sum", "max"]}}}


def write(path: Path, rows: int, keys: int) -> array[int]:
    """Write the rows, and return the sum of each key."""
    sums = array("q", bytes(8 * keys))
    key = 0
    with path.open("w", encoding="ascii") as file:
        for row in range(rows):
            key = (key + STRIDE) % keys
            value = 1 + row % 1009
            sums[key] += value
            file.write(f'{{"k":"customer {key}","v":{value}}}\n')
    return sums


def wrong(path: Path, sums: array[int]) -> str:
    """Return in what the result differs from the sums, "" where in nothing."""
    last, count = "", 0
    with path.open(encoding="ascii") as file:
        for line in file:
            row = json.loads(line)
            name = row["key"]["k"]
            if name <= last:
                return f"{name} comes after {last}"
            if row["v_sum"] != sums[int(name.rpartition(" ")[2])]:
                return f"{row} should have {sums[int(name.rpartition(' ')[2])]}"
            last, count = name, count + 1
    return "" if count == sum(1 for total in sums if total) else f"there are {count} rows"


def peak_mb(pid: int) -> float:
    """Return the highest resident size of a process so far, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


async def measure(path: Path, out: Path, args: argparse.Namespace) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(Engine("embedded://"))
        url: str = engine.broker.url  # type: ignore[attr-defined]
        command = [sys.executable, "-m", "asyncworker", "worker", "--broker", url, "--log-level", "warning"]
        children = [
            await stack.enter_async_context(started(command, {}, path.with_suffix(".log"))) for _ in range(args.workers)
        ]
        server = stack.enter_context(redis.Redis.from_url(url))
        async with asyncio.timeout(60):
            while len((await engine.broker.depth([])).workers) < args.workers:  # noqa: ASYNC110 - nobody is told who joins
                await asyncio.sleep(0.05)
        began, mapped = time.perf_counter(), 0.0
        async with asyncio.timeout(args.cap):
            job = await engine.map_reduce(
                f"{path}?cut=bytes", "data_aggregation", params=PARAMS, partition_size=args.partition_size, to=str(out)
            )
            async for now in job.progress(every=0.5):
                if now.sealed and now.done == now.total and not mapped:
                    mapped = time.perf_counter() - began
            summary = await job.result()
        seconds = time.perf_counter() - began
        memory: dict[str, Any] = server.info("memory")
        return {
            "rows": summary["total_processed"],
            "partitions": summary["partitions_processed"],
            "seconds": seconds,
            "mapped_s": mapped,
            "mb": {
                **{f"worker {n}": peak_mb(child.process.pid) for n, child in enumerate(children, 1)},
                "submitter": peak_mb(os.getpid()),
                "server": memory["used_memory_peak"] / MB,
            },
        }


def over(mb: dict[str, float]) -> list[str]:
    return [name for name, peak in mb.items() if peak > bounds(name)]


def bounds(name: str) -> float:
    return SERVER_MB if name == "server" else WORKER_MB if name.startswith("worker") else float("inf")


async def run(args: argparse.Namespace) -> int:
    machine = Machine()
    with tempfile.TemporaryDirectory(prefix="bench-shuffle-") as home:
        path, out = Path(home) / "rows.jsonl", Path(home) / "groups.jsonl"
        sums = await asyncio.to_thread(write, path, args.rows, args.keys)
        machine.probe()
        figures = await measure(path, out, args)
        amiss = wrong(out, sums)
    bad = over(figures["mb"])
    if args.json:
        print(json.dumps({"bench": "shuffle", "machine": machine.facts(), **figures, "wrong": amiss, "over": bad}))
    else:
        head = ("MB at most", "", "may have", "")
        rows = [
            [name, f"{peak:.0f}", f"{bounds(name):.0f}", "TOO MUCH" if name in bad else ""]
            for name, peak in figures["mb"].items()
        ]
        print(
            f"{figures['rows']:,} rows, {args.keys:,} keys, {figures['partitions']} partitions: mapped in "
            f"{figures['mapped_s']:.1f} s, done in {figures['seconds']:.1f} s.\n{machine}.\n\n{table(head, rows)}"
        )
        if amiss:
            print(f"\nwrong: {amiss}")
    return 1 if bad or amiss or figures["rows"] != args.rows else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--partition-size", type=int, default=10_000)
    parser.add_argument("--cap", type=float, default=1800, help="seconds after which the run is given up")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    try:
        return asyncio.run(run(parser.parse_args()))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

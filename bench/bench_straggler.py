"""How much longer does a map/reduce job take when one of its partitions is ten times slower than the rest?

Null hypothesis: more than 1.3 times as long as without it, or an item counts twice.

    python -m bench.bench_straggler [--rounds N] [--json]       # a minute a round

24 partitions of a second (10 items at once), two worker processes that do two partitions at once each: six seconds where all
is even.
Then the first, one in the middle, and the last is ten times slower for the worker that begins it (a bad disk, a noisy
neighbour), and so takes ten seconds if nobody helps; with copies (the default) and without. The sum of the result says
that each item counted once. Ends with 1 where a job with copies takes more than 1.3 times the even one of its round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from bench import straggler_app
from bench.child import started
from bench.report import Machine, table
from bench.server import Server

PARTITIONS, SIZE, ITEM_S, TIMES = 24, 10, 1.0, 10
WORKERS = 2
BAR = 1.3
PATIENCE_S = 30.0
PLACES = {"the first": 0, "in the middle": PARTITIONS // 2, "the last": PARTITIONS - 1}


async def job(slow: int, *, speculate: bool) -> float:
    """Return the seconds that a job takes whose partition *slow* drags; -1: none does."""
    with tempfile.TemporaryDirectory() as folder:
        params = {"size": SIZE, "seconds": ITEM_S, "slow": slow, "times": TIMES, "folder": folder}
        began = time.perf_counter()
        handle = await straggler_app.engine.map_reduce(
            range(PARTITIONS * SIZE),
            map=straggler_app.drags,
            reduce=straggler_app.Sum,
            params=params,
            partition_size=SIZE,
            speculate=speculate,
        )
        summary = await handle.result(120)
        took = time.perf_counter() - began
    if summary["final_result"] != PARTITIONS * SIZE:
        raise RuntimeError(f"{summary['final_result']} items counted, of {PARTITIONS * SIZE}")
    return took


async def measure(rounds: int, folder: Path) -> dict[str, list[float]]:
    """Return makespans in parts of the even one of the same round."""
    found: dict[str, list[float]] = {}
    with Server() as server:
        engine = straggler_app.engine
        engine.url = server.url
        command = [sys.executable, "-m", "asyncworker", "worker", "bench.straggler_app:engine", "--broker", server.url]
        async with engine, AsyncExitStack() as workers:
            for number in range(WORKERS):
                log = folder / f"log-{number}"
                await workers.enter_async_context(started(command, {"BENCH_BROKER": server.url}, log))
            deadline = time.monotonic() + PATIENCE_S
            while len((await engine.broker.depth([])).workers) < WORKERS:
                if time.monotonic() > deadline:
                    raise RuntimeError("the workers did not come")
                await asyncio.sleep(0.05)
            await job(-1, speculate=True)  # code is warm
            for _ in range(rounds):
                even = await job(-1, speculate=True)
                found.setdefault("even, s", []).append(even)
                for place, slow in PLACES.items():
                    for speculate, how in ((True, "with copies"), (False, "without")):
                        took = await job(slow, speculate=speculate) / even
                        found.setdefault(f"{place}, {how}", []).append(took)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    machine = Machine()
    machine.probe()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(options.rounds, Path(folder)))
    machine.probe()
    worst = max(max(row) for name, row in found.items() if name.endswith("with copies"))
    if options.json:
        print(json.dumps({"machine": machine.facts(), "figures": found, "worst": worst}))
    else:
        rows = [(name, f"{median(row):.2f} [{min(row):.2f}-{max(row):.2f}]") for name, row in found.items()]
        print(table(("slow partition", "times the even job"), rows))
        print(f"\n{machine}\nworst with copies: {worst:.2f}, at most {BAR} asked")
    return 0 if worst <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())

"""Does the profiler tell the truth beside a busy neighbour, name what holds the loop, and cost next to nothing?

Null hypothesis: time on the loop is as good as CPU time, a wait is all that is not on the loop, and a line that held
the loop cannot be told from outside. Runs in real time, about half a minute; seeds are drawn and printed.
Run: ``python -m bench.control.bench_profiler [--seed N] [--json]``. Ends with 1 where a bar is missed.

(a) Three kinds of coroutines burn known CPU time and sleep known times, 8 tasks each, on one processor with a process
that burns all it can get. (b) What a step of a measured task costs in CPU time, all of a task's accounting shared out on
its hundred steps, beside reading the clock once, and beside the barest proxy in Python, which reads it twice and adds up;
also for a step after a wait for a future. Medians of turns in which each is measured beside the others. (c) Random holds
of the loop, half too short to count. (d) The exported file. What a worker pays is `bench_profiler_worker`'s question.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from asyncworker.tune.sensors.loop import Block, LoopSensor
from asyncworker.tune.sensors.profiler import PerformanceProfiler
from bench.control.speedscope_format import complaints, weight
from bench.report import Machine, table

THRESHOLD_S = 0.06
KINDS = ("first", "second", "third")


class Truth:
    """What a kind of coroutines did, as it measured itself."""

    def __init__(self) -> None:
        self.cpu = self.slept = self.wall = 0.0


def burn(cpu_s: float) -> float:
    """Spin for so much CPU time of this thread; returns how much it was."""
    began = time.thread_time()
    while (spent := time.thread_time() - began) < cpu_s:
        pass
    return spent


async def first(*args: Any) -> None:
    await work(*args)


async def second(*args: Any) -> None:
    await work(*args)


async def third(*args: Any) -> None:
    await work(*args)


async def work(truth: Truth, burn_s: float, sleeps: list[float], born: float) -> None:
    for sleep in sleeps:
        truth.cpu += burn(burn_s)
        truth.slept += sleep
        await asyncio.sleep(sleep)
    truth.wall += time.perf_counter() - born


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """Share one processor with a process that burns all it gets; where affinity can be set."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if before:
        os.sched_setaffinity(0, {random.choice(sorted(before))})
    hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        hog.kill()
        hog.wait()
        if before:
            os.sched_setaffinity(0, before)


async def kinds(rng: random.Random, tasks: int = 8, steps: int = 30) -> dict[str, dict[str, float]]:
    """(a) Return by kind: CPU seconds and await share, true and told, and the time on the loop."""
    profiler, truths, burns = PerformanceProfiler(1.0), {kind: Truth() for kind in KINDS}, dict[str, float]()
    with profiler:
        running = []
        for kind, function in zip(KINDS, (first, second, third), strict=True):
            burns[kind] = rng.uniform(0.0005, 0.005)
            for _ in range(tasks):
                sleeps = [rng.uniform(0.03, 0.15) for _ in range(steps)]
                coro = function(truths[kind], burns[kind], sleeps, time.perf_counter())
                running.append(asyncio.get_running_loop().create_task(coro))
        await asyncio.gather(*running)
    told = {of.name: of for of in profiler.get_profile_report().functions}
    return {
        kind: {
            "burn_ms": burns[kind] * 1000,
            "cpu_s": truth.cpu,
            "cpu_told": told[kind].cpu_s,
            "on_loop_s": told[kind].on_loop_s,
            "await": truth.slept / truth.wall,
            "await_told": told[kind].await_s / told[kind].wall_s,
            "not_on_loop": 1 - told[kind].on_loop_s / told[kind].wall_s,
        }
        for kind, truth in truths.items()
    }


class Barest(Coroutine[Any, Any, Any]):
    """The least that a proxy can do: read the clock twice and add up."""

    def __init__(self, coro: Coroutine[Any, Any, Any]) -> None:
        self._send, self._coro, self.on_loop = coro.send, coro, 0.0

    def send(self, value: Any = None) -> Any:
        began = time.perf_counter()
        try:
            return self._send(value)
        finally:
            self.on_loop += time.perf_counter() - began

    __next__ = send

    def throw(self, *error: Any) -> Any:
        return self._coro.throw(*error)

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Any:
        return self


async def yields(steps: int) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)


async def waits(steps: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(steps):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future


async def spins(steps: int, turns: int) -> None:
    for _ in range(steps):
        for _ in range(turns):
            pass
        await asyncio.sleep(0)


async def cpu_s(tasks: int, make: Callable[[], Coroutine[Any, Any, Any]]) -> float:
    """Return the CPU seconds of so many tasks, their making included."""
    began = time.process_time()
    await asyncio.gather(*[asyncio.get_running_loop().create_task(make()) for _ in range(tasks)])
    return time.process_time() - began


async def profiled(rate: float, body: Callable[[], Awaitable[float]]) -> float:
    with PerformanceProfiler(rate):
        return await body()


def clock_s() -> float:
    began = time.process_time()
    for _ in range(20_000):
        time.perf_counter_ns()
    return (time.process_time() - began) / 20_000


async def cost(pairs: int = 9, turns: int = 41) -> dict[str, float]:
    """(b) Return what a step costs, in clock readings and nanoseconds of CPU time, and one task in eight at 100 us a step."""
    tasks, steps = 50, 100
    each = 1e9 / (tasks * (steps + 1))
    rows: dict[str, list[float]] = {name: [] for name in ("clock", "barest", "ours", "waits")}
    for _ in range(turns):
        bare = await cpu_s(tasks, lambda: yields(steps)) * each
        rows["ours"].append(await profiled(1.0, lambda: cpu_s(tasks, lambda: yields(steps))) * each - bare)
        rows["barest"].append(await cpu_s(tasks, lambda: Barest(yields(steps))) * each - bare)
        rows["clock"].append(clock_s() * 1e9)
        bare = await cpu_s(tasks, lambda: waits(steps)) * each
        rows["waits"].append(await profiled(1.0, lambda: cpu_s(tasks, lambda: waits(steps))) * each - bare)
    spins_for, began = 2_000, time.process_time()
    await spins(100, spins_for)
    spins_for = int(spins_for * 100e-6 / ((time.process_time() - began) / 100))
    one_in_eight = []
    for _ in range(pairs):
        alone = await cpu_s(64, lambda: spins(20, spins_for))
        one_in_eight.append(await profiled(1 / 8, lambda: cpu_s(64, lambda: spins(20, spins_for))) / alone - 1)
    usual = {name: median(row) for name, row in rows.items()}
    return {
        "clock_readings": median(ours / clock for ours, clock in zip(rows["ours"], rows["clock"], strict=True)),
        "clock_ns": usual["clock"],
        "step_ns": usual["ours"],
        "barest_ns": usual["barest"],
        "after_a_wait_ns": usual["waits"],
        "percent_of_100_us": usual["ours"] / 1e3,
        "one_in_eight": median(one_in_eight),
    }


def hold_here(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def hold_there(seconds: float) -> None:
    time.sleep(seconds)


async def holds(rng: random.Random, number: int = 20, idle_s: float = 3.0) -> dict[str, float]:
    """(c) Return how many holds of the loop were long, found, and named rightly; and how many were told for nothing."""
    seen: list[Block] = []
    truth: list[tuple[float, str]] = []
    lengths = [rng.uniform(0.02, 0.035) for _ in range(number // 2)] + [
        rng.uniform(0.1, 0.3) for _ in range(number // 2)
    ]
    rng.shuffle(lengths)
    found = right = false = 0
    with LoopSensor(THRESHOLD_S, seen.append):
        for length in lengths:
            await asyncio.sleep(rng.uniform(0.03, 0.1))
            seen.clear()
            hold = rng.choice((hold_here, hold_there))
            began = time.perf_counter()
            hold(length)
            truth.append((time.perf_counter() - began, hold.__name__))
            await asyncio.sleep(0.03)
            if truth[-1][0] >= 0.1 and seen:
                found += 1
                right += seen[0].line[2] == hold.__name__ and seen[0].line[0] == __file__
            elif truth[-1][0] < THRESHOLD_S - 0.01:
                false += len(seen)
        seen.clear()
        await asyncio.sleep(idle_s)
        false += len(seen)
    return {
        "long": sum(took >= 0.1 for took, _ in truth),
        "found": found,
        "named": right,
        "false": false,
    }


async def export(rng: random.Random, tasks: int = 10) -> dict[str, Any]:
    """(d) Return what is wrong with the exported file, and its weights beside the wall time of the one root."""

    async def leaf() -> None:
        burn(rng.uniform(0.001, 0.01))
        await asyncio.sleep(rng.uniform(0.001, 0.05))

    async def root() -> float:
        began = time.perf_counter()
        await leaf()
        await asyncio.gather(*[asyncio.get_running_loop().create_task(leaf()) for _ in range(tasks)])
        burn(0.01)
        return time.perf_counter() - began

    profiler = PerformanceProfiler(1.0)
    with profiler:
        wall = await asyncio.get_running_loop().create_task(root())
    file = profiler.speedscope()
    return {"wrong": list(complaints(file)), "weights_to_wall": weight(file) / wall}


def judge(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    figures: dict[str, Any] = {}
    with busy_neighbour():
        figures["kinds"] = asyncio.run(kinds(rng))
    figures["cost"] = asyncio.run(cost())
    figures["holds"] = asyncio.run(holds(rng))
    figures["export"] = asyncio.run(export(rng))
    return figures


def bars(figures: dict[str, Any]) -> dict[str, bool]:
    of, cost, holds, export = list(figures["kinds"].values()), figures["cost"], figures["holds"], figures["export"]
    true_order = sorted(range(3), key=lambda kind: of[kind]["cpu_s"])
    return {
        "CPU time of each kind within 12 %": all(abs(kind["cpu_told"] / kind["cpu_s"] - 1) <= 0.12 for kind in of),
        "ranking by CPU time exact": sorted(range(3), key=lambda kind: of[kind]["cpu_told"]) == true_order,
        "await share within 5 points": all(abs(kind["await_told"] - kind["await"]) <= 0.05 for kind in of),
        "a step costs at most 6 clock readings": cost["clock_readings"] <= 6,
        "one task in 8 measured costs steps of 100 us 3 %": cost["one_in_eight"] <= 0.03,
        "95 % of long holds found": holds["found"] >= 0.95 * holds["long"],
        "each found with the right line": holds["named"] == holds["found"],
        "nothing told of short holds and idling": holds["false"] == 0,
        "the file is as the format asks": not export["wrong"],
        "its weights are the wall time within 2 %": abs(export["weights_to_wall"] - 1) <= 0.02,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    machine = Machine()
    machine.probe()
    figures = judge(options.seed)
    machine.probe()
    met = bars(figures)
    if options.json:
        print(json.dumps({"seed": options.seed, "machine": machine.facts(), "figures": figures, "bars": met}))
    else:
        print(f"seed {options.seed}. {machine}")
        head = ("kind", "burn ms", "CPU s", "told", "on loop", "await share", "told", "not on loop")
        print(
            table(head, [(kind, *(f"{value:.3f}" for value in of.values())) for kind, of in figures["kinds"].items()])
        )
        print({name: round(value, 3) for name, value in figures["cost"].items()})
        print(figures["holds"], figures["export"])
        for bar, good in met.items():
            print(f"{'met   ' if good else 'MISSED'}  {bar}")
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

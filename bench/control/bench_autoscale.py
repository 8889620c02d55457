"""Does the fleet follow its load, with few more workers than somebody needs who knows it beforehand?

Null hypothesis: the fleet follows no better than KEDA's rule for lists, a step of half as much again, or the seed's own.
30 virtual minutes: a base load, a burst of 8 times that for 5 minutes, then 5 minutes of a square wave (20 s each), all
with a slow sine of 30 %; a worker takes 10 s to boot. *killed*: the same while a random worker is killed each minute.
Ours is `fleet.scaler.Scaler`, fed by `fleet.depth.DepthSensor`. Run: ``python -m bench.control.bench_autoscale [--seed N]
[--json]``. Ends with 1 where a bar is missed.
"""

from __future__ import annotations

import math
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable
from statistics import mean

from asyncworker.fleet.depth import DepthSensor
from asyncworker.fleet.manager import CYCLE_S
from asyncworker.fleet.scaler import Scaler
from asyncworker.queue.job import Depth, QueueDepth
from asyncworker.tune.sensors.host import Host
from bench.control.fleet_simulation import Look, Rule, Run, run
from bench.control.verdict import Figures, main

SECONDS = 1800.0
LOW, HIGH = 1, 64
DRAWS = 5
KILL_EVERY_S = 60.0
QUIET = Host(processors=64, cpu_ratio=0.1, memory_bytes=2**40, memory_used_bytes=0)


class Ours:
    """The fleet's own rule, told what its broker would count."""

    every = CYCLE_S

    def __init__(self) -> None:
        self._scaler, self._sensor = Scaler(low=LOW, high=HIGH), DepthSensor()

    def desired(self, look: Look) -> int:
        queue = QueueDepth(queued=look.waiting, oldest_s=look.oldest_s, succeeded=look.ended)
        depth = Depth({"default": queue}, look.running, {})
        seen = self._sensor.read(depth, look.t, size=look.size, worker_s=look.worker_s, busy=look.busy)
        decided = self._scaler.decide(seen, QUIET, deepest=look.waiting, starting=look.starting, running=look.running)
        return decided.size


class Keda:
    """KEDA's redis scaler over Kubernetes' HPA: so many waiting jobs a worker, the most of 300 s on the way down."""

    every = 15.0

    def __init__(self, length: int = 5) -> None:
        self._length = length
        self._past: deque[tuple[float, int]] = deque()

    def desired(self, look: Look) -> int:
        raw, size = math.ceil(look.waiting / self._length), look.size
        wanted = size if abs(look.waiting / self._length / max(1, size) - 1) <= 0.1 else raw
        self._past.append((look.t, wanted))
        while self._past[0][0] < look.t - 300:
            self._past.popleft()
        if wanted < size:
            wanted = min(size, max(n for _, n in self._past))
        return min(wanted, max(2 * size, size + 4))


class Half:
    """The seed's ResourcePool: half as many again when busy, two thirds when idle."""

    every = 10.0

    def desired(self, look: Look) -> int:
        if look.busy > 0.9:
            return math.ceil(look.size * 1.5)
        return int(look.size / 1.5) if look.busy < 0.3 else look.size


class Seed:
    """The seed's DynamicWorkerManager, with the processors as busy as the workers."""

    every = 30.0

    def desired(self, look: Look) -> int:
        wanted, cpu = look.size, 90 * look.busy
        if cpu < 40 and look.waiting > 100:
            wanted += 1
        elif cpu > 80 and wanted > 2:
            wanted -= 1
        return wanted + (look.waiting > 200)


RULES: dict[str, Callable[[], Rule]] = {
    "ours": Ours,
    "KEDA, 5 a worker": Keda,
    "KEDA, 100 a worker": lambda: Keda(100),
    "half as many again": Half,
    "seed's manager": Seed,
}


def load(speed: float) -> Callable[[float], float]:
    """Return jobs a second by time."""

    def rate(t: float) -> float:
        burst = 7 if 300 <= t < 600 else 0
        square = 3 if 900 <= t < 1200 and int(t / 20) % 2 else 0
        return 5 * speed * (1 + burst + square + 0.3 * math.sin(t / 90))

    return rate


def draw(name: str, seed: int, number: int, kill_every: float = math.inf) -> tuple[Run, float]:
    """Return what came of one rule on one draw, and the worker-seconds of who knows the load."""
    rng = random.Random(f"{seed} {number}")
    speed = 10 ** rng.uniform(0.3, 1.3)
    rate = load(speed)
    oracle = sum(math.ceil(rate(t) / speed / 0.85) for t in range(int(SECONDS)))
    return run(RULES[name](), rate, speed, SECONDS, rng, low=LOW, high=HIGH, kill_every=kill_every), oracle


def judge(seed: int, draws: int = DRAWS, rules: Iterable[str] = RULES) -> Figures:
    """Return for each rule how long jobs waited, what it cost beside who knows, and how often it changed its mind."""
    out: Figures = {}
    for name in rules:
        out[name] = _figures([draw(name, seed, number) for number in range(draws)])
    out["ours, killed"] = _figures([draw("ours", seed, number, KILL_EVERY_S) for number in range(draws)])
    return out


def _figures(runs: list[tuple[Run, float]]) -> dict[str, float]:
    return {
        "p95_mean_s": mean(run.wait(0.95) for run, _ in runs),
        "p95_worst_s": max(run.wait(0.95) for run, _ in runs),
        "p99_worst_s": max(run.wait(0.99) for run, _ in runs),
        "cost_mean": mean(run.worker_s / oracle for run, oracle in runs),
        "cost_worst": max(run.worker_s / oracle for run, oracle in runs),
        "reversals_worst": max(run.reversals for run, _ in runs),
        "left_worst_s": max(run.oldest_s for run, _ in runs),
        "most": max(run.most for run, _ in runs),
        "lost": sum(run.lost for run, _ in runs),
        "kills": sum(run.kills for run, _ in runs),
    }


def bars(figures: Figures) -> dict[str, bool]:
    """Return each bar and whether it is met: ours in its worst draw."""
    ours, killed = figures["ours"], figures["ours, killed"]
    met = {
        "p95 of the wait <= 8 s": ours["p95_worst_s"] <= 8,
        "p99 of the wait <= 14 s": ours["p99_worst_s"] <= 14,
        "worker-seconds <= 1.7x those of who knows": ours["cost_worst"] <= 1.7,
        "<= 14 reversals": ours["reversals_worst"] <= 14,
        "killed: p95 <= 12 s": killed["p95_worst_s"] <= 12,
        "no job is lost": all(of["lost"] == 0 for of in figures.values()),
    }
    met["no backlog at the end: the oldest waits for less than 2 s"] = ours["left_worst_s"] < 2
    if "KEDA, 5 a worker" in figures:
        keda = figures["KEDA, 5 a worker"]
        met["better than KEDA's rule on both"] = (
            ours["p95_mean_s"] < keda["p95_mean_s"] and ours["cost_mean"] < keda["cost_mean"]
        )
    return met


if __name__ == "__main__":
    sys.exit(main(__doc__, judge, bars, DRAWS))

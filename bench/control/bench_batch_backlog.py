"""Does the batch size that is found come near the best one, and find the next one when the cost changes?

Null hypothesis: it is no faster than AIMD on the batch size (Clipper, arXiv 1612.03079) that is told the best SLO.
A backlog of 300 best batches; a batch of b items takes c0 + a b + q b² seconds, with 20 % of noise. In a second run
c0, a and q are drawn anew at half of the work. 1.0 is the time that somebody needs who knows all. Ours also runs end to
end: `AsyncBatchProcessor` on a virtual event loop. Run: ``python -m bench.control.bench_batch_backlog``.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean
from typing import Protocol

from asyncworker.work.batch import AsyncBatchProcessor
from asyncworker.work.batch_size import BatchSize
from bench.control import verdict, virtual_loop
from bench.control.simulation import Works
from bench.control.verdict import Figures

MOST = 1000
BATCHES = 300
NOISE = 0.2
SMALL = 40
"""The largest best size that is also run end to end: items are real tasks there."""


@dataclass(frozen=True)
class Cost:
    fixed: float
    each: float
    square: float

    @classmethod
    def drawn(cls, rng: random.Random) -> Cost:
        fixed, best = 10 ** rng.uniform(-2.3, -0.7), 10 ** rng.uniform(0.9, 2.6)
        return cls(fixed, 10 ** rng.uniform(-4.3, -2.7), fixed / best**2)

    def __call__(self, items: float) -> float:
        return self.fixed + self.each * items + self.square * items * items

    @property
    def best(self) -> int:
        return max(range(1, MOST + 1), key=lambda items: items / self(items))


class Rule(Protocol):
    @property
    def size(self) -> int: ...

    def on_batch(self, items: int, seconds: float) -> object: ...


class Fixed:
    """The seed's ten; BentoML's and Triton's hundred."""

    def __init__(self, size: int) -> None:
        self.size = size

    def on_batch(self, items: int, seconds: float) -> None:
        pass


class Aimd:
    """Clipper, section 4.3.1: two more while within the SLO, a tenth less where not."""

    def __init__(self, slo: float) -> None:
        self._slo, self._size = slo, 1.0

    @property
    def size(self) -> int:
        return int(self._size)

    def on_batch(self, items: int, seconds: float) -> None:
        self._size = max(1.0, 0.9 * self._size) if seconds > self._slo else min(float(MOST), self._size + 2)


RULES: dict[str, Callable[[Cost], Rule]] = {
    "ours": lambda cost: BatchSize(MOST),
    "ours, knee 0": lambda cost: BatchSize(MOST, knee=0.0),
    "AIMD, told 2 T(best)": lambda cost: Aimd(2 * cost(cost.best)),
    "fixed 100": lambda cost: Fixed(100),
    "seed's 10": lambda cost: Fixed(10),
}


def spent(rule: Rule, cost: Cost, items: int, works: Works) -> float:
    """Return the seconds that *rule* needs for so many items."""
    seconds = 0.0
    while items > 0:
        size = min(items, rule.size)
        took = cost(size) * works.draw()
        rule.on_batch(size, took)
        seconds += took
        items -= size
    return seconds


def ideal(cost: Cost, batches: int) -> float:
    return batches * cost(cost.best)


def end_to_end(cost: Cost, rng: random.Random) -> float:
    """Return the share of the best rate that the public class reaches."""
    works, items = Works(rng, NOISE), BATCHES * cost.best

    async def handler(batch: list[int]) -> None:
        await asyncio.sleep(cost(len(batch)) * works.draw())

    async def backlog() -> float:
        loop = asyncio.get_running_loop()
        async with AsyncBatchProcessor(handler, max_batch_size=MOST) as processor:
            for item in range(items):
                await processor.submit(item)
        return loop.time()

    return ideal(cost, BATCHES) / virtual_loop.run(backlog())


def judge(seed: int, draws: int) -> Figures:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in RULES}
    public: list[float] = []
    for draw in range(draws):
        rng = random.Random(f"{seed} {draw}")
        cost, later = Cost.drawn(rng), Cost.drawn(rng)
        for name, make in RULES.items():
            works = Works(random.Random(f"{seed} {draw} noise"), NOISE)
            steady = ideal(cost, BATCHES) / spent(make(cost), cost, BATCHES * cost.best, works)
            rule = make(cost)
            spent(rule, cost, BATCHES // 2 * cost.best, works)
            changed = ideal(later, BATCHES // 2) / spent(rule, later, BATCHES // 2 * later.best, works)
            found[name].append((steady, changed))
        if cost.best <= SMALL and len(public) < 4:
            public.append(end_to_end(cost, rng))
    out = {}
    for name, pairs in found.items():
        steady_all, changed_all = zip(*pairs, strict=True)
        out[name] = {
            "rate / best": mean(steady_all),
            "worst": min(steady_all),
            "after a change": mean(changed_all),
            "its worst": min(changed_all),
        }
    out["ours, end to end"] = {"rate / best": mean(public or [math.nan]), "worst": min(public or [math.nan])}
    return out


def bars(figures: Figures) -> dict[str, bool]:
    ours, peer, public = figures["ours"], figures["AIMD, told 2 T(best)"], figures["ours, end to end"]
    return {
        "mean >= .92 of the best rate": ours["rate / best"] >= 0.92,
        "worst >= .85": ours["worst"] >= 0.85,
        "after a change >= .85": ours["after a change"] >= 0.85,
        ">= AIMD + .02, after a change + .10": ours["rate / best"] >= peer["rate / best"] + 0.02
        and ours["after a change"] >= peer["after a change"] + 0.10,
        "end to end >= .88": not public["rate / best"] < 0.88,
    }


if __name__ == "__main__":
    sys.exit(verdict.main(__doc__, judge, bars, draws=30))

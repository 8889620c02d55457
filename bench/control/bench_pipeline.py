"""Does a pipeline find how many items each stage should work on, from what it measures?

Null hypothesis: an equal split is as fast. Four stages of 3 to 100 ms, 24 slots. First the rule alone, from 50 noisy
samples a stage, against all possible splits; then `Pipeline` itself on a virtual event loop, learning included. 1.0 is
the best split there is. Run: ``python -m bench.control.bench_pipeline``.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from collections.abc import Sequence
from statistics import mean

from asyncworker.work.pipeline import Pipeline, Stage, allot
from bench.control import verdict, virtual_loop
from bench.control.simulation import Works
from bench.control.verdict import Figures

STAGES, SLOTS, SAMPLES, NOISE = 4, 24, 50, 0.5
ITEMS, RUNS = 1500, 8


def pace(service_s: Sequence[float], shares: Sequence[int]) -> float:
    return min(share / seconds for share, seconds in zip(shares, service_s, strict=True))


def best(service_s: Sequence[float]) -> float:
    """Return the pace of the best of all splits."""
    cuts = itertools.combinations(range(1, SLOTS), STAGES - 1)
    return max(pace(service_s, [b - a for a, b in itertools.pairwise((0, *cut, SLOTS))]) for cut in cuts)


def ran(service_s: Sequence[float], rng: random.Random, *, fixed: bool) -> float:
    """Return the items a second that the public class passes, from its first item to its last."""
    works = Works(rng, NOISE)

    def stage(seconds: float) -> Stage:
        async def work(item: int) -> int:
            await asyncio.sleep(seconds * works.draw())
            return item

        return Stage(work, concurrency=SLOTS // STAGES if fixed else "auto")

    async def run() -> float:
        pipeline = Pipeline(*(stage(seconds) for seconds in service_s), workers=SLOTS)
        assert await pipeline.process(range(ITEMS)) == list(range(ITEMS))
        return ITEMS / asyncio.get_running_loop().time()

    return virtual_loop.run(run())


def judge(seed: int, draws: int) -> Figures:
    rule, equal, public, public_equal = [], [], [], []
    cpu_s = 0.0
    for draw in range(draws):
        rng = random.Random(f"{seed} {draw}")
        service_s = [10 ** rng.uniform(-2.5, -1) for _ in range(STAGES)]
        works = Works(rng, NOISE)
        measured = [mean(seconds * works.draw() for _ in range(SAMPLES)) for seconds in service_s]
        most = best(service_s)
        rule.append(pace(service_s, allot(measured, SLOTS)) / most)
        equal.append(pace(service_s, [SLOTS // STAGES] * STAGES) / most)
        if draw < RUNS:
            began = time.process_time()
            public.append(ran(service_s, rng, fixed=False) / most)
            cpu_s += time.process_time() - began
            public_equal.append(ran(service_s, rng, fixed=True) / most)
    told = {
        "ours: max-min": rule,
        "equal split": equal,
        "ours: Pipeline": public,
        "Pipeline, equal split": public_equal,
    }
    figures = {name: {"pace / best": mean(shares), "worst": min(shares)} for name, shares in told.items()}
    figures["ours: Pipeline"]["us an item and stage"] = 1e6 * cpu_s / (len(public) * ITEMS * STAGES)
    return figures


def bars(figures: Figures) -> dict[str, bool]:
    rule, public = figures["ours: max-min"], figures["ours: Pipeline"]
    return {
        "max-min: mean >= .93, worst >= .78": rule["pace / best"] >= 0.93 and rule["worst"] >= 0.78,
        "max-min: >= 1.3x the equal split": rule["pace / best"] >= 1.3 * figures["equal split"]["pace / best"],
        "Pipeline, learning included: mean >= .85": public["pace / best"] >= 0.85,
        "Pipeline: faster than the equal split": public["pace / best"]
        >= 1.2 * figures["Pipeline, equal split"]["pace / best"],
    }


if __name__ == "__main__":
    sys.exit(verdict.main(__doc__, judge, bars, draws=60))

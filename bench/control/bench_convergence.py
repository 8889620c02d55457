"""Does the limiter find where most work is done, and find it again when the backend changes?

Null hypothesis: one of the published rules, or the seed's, does as well within a margin. Backends obey the universal
scalability law with drawn parameters, calls vary (CV 0.5), the backlog never ends. Each rule runs 20 s on each,
and again with a backend whose crosstalk becomes 9 times as great (even draws) or a 9th (odd ones) after 10 s.
All is in virtual time. Run: ``python -m bench.control.bench_convergence [--draws 24] [--seed N] [--json]``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from statistics import median

from bench.control import virtual_loop
from bench.control.end_to_end import mapped
from bench.control.experiment import Bar, Figures, arguments, compared, judge_all, mean, tell
from bench.control.rules import OURS, PEERS, RULES, SEEDS
from bench.control.simulation import Judged, Scalable, Works, best, run

SECONDS = 20.0


def measure(make: Callable[[], Judged], rng: random.Random, draw: int) -> dict[str, float]:
    backend = Scalable.drawn(rng)
    n, rate = best(backend)
    steady = run(make(), backend, Works(random.Random(rng.random())), SECONDS)
    changed = replace(backend, kappa=backend.kappa * (9 if draw % 2 == 0 else 1 / 9))
    step = run(make(), backend, Works(random.Random(rng.random())), SECONDS, change=(10.0, changed))
    return {
        "share": steady.rate(5, SECONDS) / rate,
        "inflight": steady.inflight(5, SECONDS) / n,
        "reached_s": min(SECONDS, steady.reaches(0.95 * rate)),
        "after": step.rate(13, SECONDS) / best(changed)[1],
    }


def bars(ours: Figures, slack: float = 0.0) -> list[Bar]:
    """Return what ours must reach alone; *slack* widens each bar, for few draws."""
    return [
        Bar("share of the best throughput, 5-20 s, mean", mean(ours["share"]), 0.95 - slack),
        Bar("the same, worst", min(ours["share"]), 0.90 - 2 * slack),
        Bar("seconds to 95 %, median", median(ours["reached_s"]), 3.0 + 20 * slack, least=False),
        Bar("seconds to 95 %, worst", max(ours["reached_s"]), 8.0 + 250 * slack, least=False),
        Bar("calls under way / best, mean", mean(ours["inflight"]), 1.2 + slack, least=False),
        Bar("share 3-10 s after a change, mean", mean(ours["after"]), 0.94 - slack),
        Bar("the same, worst", min(ours["after"]), 0.80 - 4 * slack),
    ]


def bars_beside(results: dict[str, Figures]) -> list[Bar]:
    ours = results[OURS]["share"]
    peers = [results[peer]["share"] for peer in PEERS]
    found = [
        Bar("share beyond the best peer's, mean", mean(ours) - max(map(mean, peers)), 0.03),
        Bar("share beyond the best peer's, worst", min(ours) - max(map(min, peers)), 0.08),
    ]
    for seed, factor in zip(SEEDS, (1.3, 2.0), strict=True):
        found.append(Bar(f"times {seed}", mean(ours) / mean(results[seed]["share"]), factor))
    return found


def end_to_end(seed: int, draws: int = 4) -> list[float]:
    """Return the share of the best throughput in the first 20 s of `AsyncWorkerOptimizer.map`, on a virtual loop."""
    found = []
    for draw in range(draws):
        rng = random.Random(f"{seed} {draw} end to end")
        backend = Scalable.drawn(rng)
        while best(backend)[1] > 1000:
            backend = Scalable.drawn(rng)
        found.append(virtual_loop.run(mapped(backend, Works(rng), SECONDS)) / SECONDS / best(backend)[1])
    return found


def main() -> None:
    asked = arguments(__doc__ or "", 24)
    results = judge_all(measure, [OURS] if asked.ours else list(RULES), asked.seed, asked.draws)
    columns: dict[str, Callable[[Figures], float]] = {
        "share": lambda of: mean(of["share"]),
        "worst": lambda of: min(of["share"]),
        "under way / best": lambda of: mean(of["inflight"]),
        "s to 95 %": lambda of: median(of["reached_s"]),
        "latest": lambda of: max(of["reached_s"]),
        "after a change": lambda of: mean(of["after"]),
        "worst after": lambda of: min(of["after"]),
    }
    found = bars(results[OURS]) + ([] if asked.ours else bars_beside(results))
    found.append(Bar("end to end through map, 0-20 s, mean", mean(end_to_end(asked.seed)), 0.92))
    tell(asked, dict(results), compared(results, columns), found)


if __name__ == "__main__":
    main()

"""Does a pool on a database that is asked for more than it can do find how many connections do the most work?

Null hypothesis: sizing by what callers need, a fixed size, growing on demand or a ratio serve as many. Each use takes
``h (1 + sigma (u-1) + kappa u (u-1))`` with *u* connections out (the universal scalability law), 1.3 times the best
throughput is asked for, 30 virtual seconds with start-up, ceiling 64. A second part shows that on a database that is not
contended the cap does not bind. Run: ``python -m bench.control.bench_contended_database [--seed N] [--json]``.
Ends with 1 where a bar is missed.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable
from statistics import mean

from bench.control.pool_simulation import CEILING, Erlang, OnDemand, Ours, Rule, SeedRatio, Static, run
from bench.control.verdict import Figures, main

SECONDS = 30.0
HOLD_S = 0.020
OFFERED = 1.3
DRAWS = 12
MARGIN = 0.08

RULES: dict[str, Callable[[], Rule]] = {
    "ours": Ours,
    "Erlang C alone": Erlang,
    "on demand (psycopg_pool)": OnDemand,
    "fixed 10": lambda: Static(10),
    "fixed 64": lambda: Static(64),
    "seed's ratio": SeedRatio,
}


def contended(seed: int, draws: int = DRAWS, rules: Iterable[str] = RULES) -> dict[str, list[float]]:
    """Return for each rule, draw by draw, what was served as a share of the best throughput."""
    out: dict[str, list[float]] = {name: [] for name in rules}
    for draw in range(draws):
        rng = random.Random(f"{seed} {draw}")
        sigma, best = rng.uniform(0, 0.04), rng.uniform(12, 30)
        kappa = (1 - sigma) / best**2

        def slower(n: int, sigma: float = sigma, kappa: float = kappa) -> float:
            return 1 + sigma * (n - 1) + kappa * n * (n - 1)

        peak = max(n / slower(n) for n in range(1, CEILING + 1)) / HOLD_S
        for name, shares in out.items():
            ran = run(
                RULES[name](), lambda _, rate=OFFERED * peak: rate, SECONDS, HOLD_S, 0.5, random.Random(draw), slower
            )
            shares.append(ran.served / SECONDS / peak)
    return out


def uncontended(seed: int, draws: int = 4) -> dict[str, float]:
    """Return the shares within the target, ours and Erlang's alone, on a database that slows down for nobody."""
    shares: dict[str, list[float]] = {"ours": [], "Erlang C alone": []}
    for draw in range(draws):
        for name, of in shares.items():
            rng = random.Random(f"{seed} calm {draw}")
            load, hold_s = rng.uniform(60, 140), rng.uniform(0.010, 0.030)
            of.append(run(RULES[name](), lambda _, load=load: load, SECONDS, hold_s, 1.0, rng).within((5, SECONDS)))
    return {name: mean(of) for name, of in shares.items()}


def judge(seed: int, draws: int = DRAWS) -> Figures:
    figures: Figures = {
        name: {"served_mean": mean(of), "served_worst": min(of)} for name, of in contended(seed, draws).items()
    }
    for name, share in uncontended(seed).items():
        figures[name]["uncontended"] = share
    return figures


def bars(figures: Figures) -> dict[str, bool]:
    ours = figures["ours"]
    met = {
        "served / best: mean >= .88": ours["served_mean"] >= 0.88,
        "served / best: worst >= .82": ours["served_worst"] >= 0.82,
        "uncontended: the cap does not bind": ours["uncontended"]
        >= max(0.975, figures["Erlang C alone"]["uncontended"] - 0.005),
    }
    for name, of in figures.items():
        if name != "ours":
            met[f"mean >= {name} + {MARGIN}"] = ours["served_mean"] >= of["served_mean"] + MARGIN
    return met


if __name__ == "__main__":
    sys.exit(main(__doc__, judge, bars, DRAWS))

"""Does a pool on a database that is asked for more than it can do find how many connections do the most work?

Null hypothesis: sizing by what callers need, a fixed size, growing on demand or a ratio serve as many. Each use takes
``h (1 + sigma (u-1) + kappa u (u-1))`` with *u* connections out (the universal scalability law), 1.3 times the best
throughput is asked for, 30 virtual seconds with start-up, ceiling 64. A second part shows that on a database that is not
contended the cap does not bind. Run: ``python -m bench.control.bench_contended_database [--seed N] [--json]``.
Ends with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import sys
from collections.abc import Callable
from statistics import mean
from typing import Any

from bench.control.pool_simulation import CEILING, Erlang, OnDemand, Ours, Rule, SeedRatio, Static, run
from bench.report import table

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


def contended(seed: int, draws: int = DRAWS) -> dict[str, list[float]]:
    """Return for each rule, draw by draw, what was served as a share of the best throughput."""
    out: dict[str, list[float]] = {name: [] for name in RULES}
    for draw in range(draws):
        rng = random.Random(f"{seed} {draw}")
        sigma, best = rng.uniform(0, 0.04), rng.uniform(12, 30)
        kappa = (1 - sigma) / best**2

        def slower(out: int, sigma: float = sigma, kappa: float = kappa) -> float:
            return 1 + sigma * (out - 1) + kappa * out * (out - 1)

        peak = max(n / slower(n) for n in range(1, CEILING + 1)) / HOLD_S
        for name, make in RULES.items():
            ran = run(make(), lambda _, rate=OFFERED * peak: rate, SECONDS, HOLD_S, 0.5, random.Random(draw), slower)
            out[name].append(ran.served / SECONDS / peak)
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


def bars(served: dict[str, list[float]], calm: dict[str, float]) -> dict[str, bool]:
    ours = served["ours"]
    met = {
        "served / best: mean >= .88": mean(ours) >= 0.88,
        "served / best: worst >= .82": min(ours) >= 0.82,
        "uncontended: the cap does not bind": calm["ours"] >= max(0.975, calm["Erlang C alone"] - 0.005),
    }
    for name in ("fixed 10", "fixed 64", "Erlang C alone", "seed's ratio"):
        met[f"mean >= {name} + {MARGIN}"] = mean(ours) >= mean(served[name]) + MARGIN
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    served, calm = contended(options.seed), uncontended(options.seed)
    met = bars(served, calm)
    told: dict[str, Any] = {"seed": options.seed, "served": served, "uncontended": calm, "bars": met}
    if options.json:
        print(json.dumps(told))
    else:
        print(f"seed {options.seed}, {DRAWS} draws")
        rows = [(name, f"{mean(of):.3f}", f"{min(of):.3f}") for name, of in served.items()]
        print(table(("rule", "served / best", "worst"), rows))
        print("uncontended, within target: " + ", ".join(f"{name} {share:.3f}" for name, share in calm.items()))
        for bar, good in met.items():
            print(f"{'met   ' if good else 'MISSED'}  {bar}")
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Does what was learned outlive the process, and does it do no harm where it is out of date?

Null hypothesis: a fresh start is as good. A limiter runs 10 s, its state goes through JSON into a new one, and that
runs on the same backend, or on one that has changed meanwhile. All is in virtual time.
Run: ``python -m bench.control.bench_restart [--draws 20] [--seed N] [--json]``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

from asyncworker.tune.policies.usl import UslPolicy
from bench.control.experiment import Bar, Figures, arguments, compared, judge_all, mean, tell
from bench.control.rules import OURS, PEERS, RULES, SEEDS
from bench.control.simulation import Judged, Scalable, Works, best, run


def restarted(policy: Judged) -> Judged:
    """Return what goes on after a restart: ours with its state; the others keep none."""
    assert isinstance(policy, UslPolicy)
    fresh = UslPolicy(low=policy.low, high=policy.high)
    fresh.load_state_dict(json.loads(json.dumps(policy.state_dict())))
    return fresh


def measure(make: Callable[[], Judged], rng: random.Random, draw: int) -> dict[str, float]:
    backend = Scalable.drawn(rng)
    changed = replace(backend, kappa=backend.kappa * (9 if draw % 2 == 0 else 1 / 9))
    works = [random.Random(rng.random()) for _ in range(4)]
    cold = run(make(), backend, Works(works[1]), 3.0).rate(0, 3) / best(backend)[1]
    before = make()
    if not isinstance(before, UslPolicy):
        return {
            "warm": cold,
            "cold": cold,
            "stale": run(make(), changed, Works(works[2]), 10.0).rate(3, 10) / best(changed)[1],
        }
    run(before, backend, Works(works[0]), 10.0)
    warm = run(restarted(before), backend, Works(works[1]), 3.0)
    stale = run(restarted(before), changed, Works(works[2]), 10.0)
    return {
        "warm": warm.rate(0, 3) / best(backend)[1],
        "cold": cold,
        "stale": stale.rate(3, 10) / best(changed)[1],
    }


def bars(ours: Figures, slack: float = 0.0) -> list[Bar]:
    return [
        Bar("share in the first 3 s after a restart, mean", mean(ours["warm"]), 0.93 - slack),
        Bar("the same, worst", min(ours["warm"]), 0.85 - 2 * slack),
        Bar("beyond a cold start, mean", mean(ours["warm"]) - mean(ours["cold"]), 0.03 - slack),
        Bar("out of date: share 3-10 s after, mean", mean(ours["stale"]), 0.94 - slack),
        Bar("out of date: the same, worst", min(ours["stale"]), 0.80 - 4 * slack),
    ]


def main() -> None:
    asked = arguments(__doc__ or "", 20)
    results = judge_all(measure, [OURS] if asked.ours else [OURS, *PEERS, *SEEDS], asked.seed, asked.draws)
    columns: dict[str, Callable[[Figures], float]] = {
        "restarted, 0-3 s": lambda of: mean(of["warm"]),
        "worst": lambda of: min(of["warm"]),
        "cold, 0-3 s": lambda of: mean(of["cold"]),
        "out of date, 3-10 s": lambda of: mean(of["stale"]),
        "its worst": lambda of: min(of["stale"]),
    }
    assert set(results) <= set(RULES)
    tell(asked, dict(results), compared(results, columns), bars(results[OURS]))


if __name__ == "__main__":
    main()

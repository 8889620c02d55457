"""Is the limiter right on backends of other shapes than the law it fits, and where nobody asks for the limit?

Null hypothesis: it helps only where its model is true. Shapes: saturating at a number of servers, linear up to the
cap, flat, a cliff, wildly varying calls, and arrivals at 30 and 60 % of what the backend can do. All is in virtual
time. Run: ``python -m bench.control.bench_shapes [--draws 8] [--seed N] [--json]``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial

from bench.control.experiment import Bar, Figures, Measure, arguments, compared, judge_all, mean, tell
from bench.control.rules import OURS, RULES
from bench.control.simulation import HIGH, Capacity, Judged, Scalable, Works, best, run

SECONDS = 20.0


def saturating(rng: random.Random) -> tuple[Capacity, float]:
    servers, seconds = rng.randint(8, 64), rng.uniform(0.01, 0.04)
    return (lambda n: min(n, servers) / seconds), servers


def linear(rng: random.Random) -> tuple[Capacity, float]:
    seconds = rng.uniform(0.01, 0.04)
    return (lambda n: n / seconds), HIGH


def flat(rng: random.Random) -> tuple[Capacity, float]:
    rate = 10 ** rng.uniform(2, 3)
    return (lambda n: rate), 1


def cliff(rng: random.Random) -> tuple[Capacity, float]:
    below = Scalable(1 / rng.uniform(0.01, 0.04), 0.01, 1e-9)
    edge = rng.randint(12, 90)

    def capacity(n: float) -> float:
        return below(n) if n <= edge else below(edge) * 0.5 * (edge / n) ** 1.5

    return capacity, edge


SHAPES: dict[str, Callable[[random.Random], tuple[Capacity, float]]] = {
    "saturating": saturating,
    "linear": linear,
    "flat": flat,
    "cliff": cliff,
}


def on_shape(shape: str, make: Callable[[], Judged], rng: random.Random, draw: int) -> dict[str, float]:
    capacity, knee = SHAPES[shape](rng)
    done = run(make(), capacity, Works(random.Random(rng.random())), SECONDS)
    return {
        "share": done.rate(5, SECONDS) / best(capacity)[1],
        "inflight": done.inflight(5, SECONDS),
        "crowd": done.inflight(5, SECONDS) / knee,
    }


def on_wild_calls(make: Callable[[], Judged], rng: random.Random, draw: int) -> dict[str, float]:
    backend = Scalable.drawn(rng)
    done = run(make(), backend, Works(random.Random(rng.random()), cv=1.5), SECONDS)
    return {"share": done.rate(5, SECONDS) / best(backend)[1]}


def on_arrivals(make: Callable[[], Judged], rng: random.Random, draw: int) -> dict[str, float]:
    backend = Scalable.drawn(rng)
    n, rate = best(backend)
    worst = {"served": math.inf, "left": 0.0, "limit": 0.0}
    for load in (0.3, 0.6):
        policy = make()
        done = run(policy, backend, Works(random.Random(rng.random())), SECONDS, arrivals=load * rate)
        offered = sum(done.completed) + done.left + done.inflight_s[-1]
        late = [limit for t, limit in done.limits if t > 10] or [policy.limit]
        worst["served"] = min(worst["served"], sum(done.completed) / max(1.0, offered))
        worst["left"] = max(worst["left"], done.left / rate)
        worst["limit"] = max(worst["limit"], max(late) / n)
    return worst


def measures() -> dict[str, tuple[Measure, float]]:
    """Return each experiment, and its draws beside those asked for, as a factor."""
    found: dict[str, tuple[Measure, float]] = {shape: (partial(on_shape, shape), 1.0) for shape in SHAPES}
    found["saturating"] = (found["saturating"][0], 2.0)  # its crowd varies most
    return {**found, "wild calls": (on_wild_calls, 1.0), "arrivals": (on_arrivals, 1.0)}


def bars(ours: dict[str, Figures], slack: float = 0.0) -> list[Bar]:
    return [
        Bar("saturating: share, mean", mean(ours["saturating"]["share"]), 0.97 - slack),
        Bar("saturating: under way / servers", mean(ours["saturating"]["crowd"]), 2.5 + slack, least=False),
        Bar("linear: share, mean", mean(ours["linear"]["share"]), 0.93 - slack),
        Bar("flat: calls under way", mean(ours["flat"]["inflight"]), 8.0 + 40 * slack, least=False),
        Bar("cliff: share, mean", mean(ours["cliff"]["share"]), 0.70 - slack),
        Bar("cliff: share, worst", min(ours["cliff"]["share"]), 0.55 - 2 * slack),
        Bar("wild calls: share, mean", mean(ours["wild calls"]["share"]), 0.93 - slack),
        Bar("wild calls: share, worst", min(ours["wild calls"]["share"]), 0.88 - 2 * slack),
        Bar("arrivals: served, worst", min(ours["arrivals"]["served"]), 0.96 - slack),
        Bar("arrivals: seconds of work left", max(ours["arrivals"]["left"]), 0.1 + slack, least=False),
        Bar("arrivals: limit / best, worst", max(ours["arrivals"]["limit"]), 3.0 + 10 * slack, least=False),
    ]


def main() -> None:
    asked = arguments(__doc__ or "", 8)
    rules = [OURS] if asked.ours else list(RULES)
    results: dict[str, dict[str, Figures]] = {}
    text = []
    for name, (measure, factor) in measures().items():
        results[name] = judge_all(measure, rules, asked.seed, round(asked.draws * factor))
        columns: dict[str, Callable[[Figures], float]] = {
            of: partial(_mean_of, of) for of in next(iter(results[name].values()))
        }
        text.append(f"{name}\n{compared(results[name], columns)}")
    ours = {name: found[OURS] for name, found in results.items()}
    tell(asked, dict(results), "\n\n".join(text), bars(ours))


def _mean_of(name: str, figures: Figures) -> float:
    return mean(figures[name])


if __name__ == "__main__":
    main()

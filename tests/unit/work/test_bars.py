"""The benches of this floor in short, with bars wide enough for few draws; each draws anew and tells its seed."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from bench.control import bench_batch_arrivals, bench_batch_backlog, bench_distribution, bench_pipeline
from bench.control.simulation import Works

pytestmark = pytest.mark.bars


def test_the_batch_size_comes_near_the_best(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_batch_backlog, "SMALL", 0)  # not end to end: `test_batch.py` does that
    figures = bench_batch_backlog.judge(seed, 8)
    ours = figures["ours"]
    assert ours["rate / best"] >= 0.92, seed
    assert ours["worst"] >= 0.75, seed
    assert ours["rate / best"] > figures["seed's 10"]["rate / best"], seed


@pytest.mark.parametrize(("load", "most", "p99"), [(0.02, 1.07, 1.3), (0.2, 1.07, 1.3)])
def test_answers_come_as_soon_as_by_the_best_fixed_rule(seed: int, load: float, most: float, p99: float) -> None:
    rng = random.Random(seed)
    fixed, each = rng.uniform(0.010, 0.030), rng.uniform(0.0003, 0.0008)

    def cost(items: int) -> float:
        return fixed + each * items

    rate = load * bench_batch_arrivals.HANDLERS * bench_batch_arrivals.MOST / cost(bench_batch_arrivals.MOST)
    arrivals = bench_batch_arrivals.drawn(rng, rate, 4000)
    natural = bench_batch_arrivals.simulate(bench_batch_arrivals.Natural(), arrivals, cost, Works(rng, 0.1))
    lingers = bench_batch_arrivals.simulate(bench_batch_arrivals.Natural(0.005), arrivals, cost, Works(rng, 0.1))
    ours = bench_batch_arrivals.ours(0.005, arrivals, cost, Works(rng, 0.1))
    assert ours.mean <= most * min(natural.mean, lingers.mean), seed
    assert ours.p99 <= p99 * min(natural.p99, lingers.p99), seed


def test_workers_end_together_also_when_one_turns_slow(seed: int) -> None:
    figures = bench_distribution.judge(seed, 8)
    pull, plan = figures["ours: pull, weighted factoring"], figures["ours: distribute (LPT)"]
    assert pull["makespan"] <= 1.15, seed
    assert pull["straggler"] <= 1.2, seed
    assert pull["straggler"] <= 0.6 * plan["straggler"], seed
    assert plan["makespan"] <= 1.3, seed
    assert figures["online two choices"]["ours / its mean"] <= 1.0, seed
    assert figures["online least loaded"]["ours / its mean"] <= 1.1, seed


def test_s40_the_seed_gives_all_to_one_worker_and_ours_does_not(seed: int) -> None:
    """Forty draws: where the one worker happens to be the quickest, it alone is not so bad."""
    cases = [bench_distribution.Case.drawn(random.Random(f"{seed} {draw}")) for draw in range(40)]
    one = mean(bench_distribution.seed_stale(case) / case.bound for case in cases)
    assert one > 4 * mean(bench_distribution.lpt(case) / case.bound for case in cases), seed


def test_slots_go_to_the_slowest_stage(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_pipeline, "RUNS", 2)
    figures = bench_pipeline.judge(seed, 10)
    assert figures["ours: max-min"]["pace / best"] >= 0.93, seed
    assert figures["ours: max-min"]["pace / best"] > 1.1 * figures["equal split"]["pace / best"], seed
    assert figures["ours: Pipeline"]["pace / best"] >= 0.85, seed

"""The simulated fleet keeps its books, and our rule meets its bars on a draw; the bench itself draws more."""

from __future__ import annotations

import random

import pytest

from bench.control.bench_autoscale import KILL_EVERY_S, bars, draw, judge
from bench.control.fleet_simulation import BOOT_S, Look, run

pytestmark = pytest.mark.once


class Fixed:
    every = 5.0

    def __init__(self, size: int) -> None:
        self.size = size
        self.looks: list[Look] = []

    def desired(self, look: Look) -> int:
        self.looks.append(look)
        return self.size


def test_the_books_of_a_simulated_fleet() -> None:
    rule = Fixed(4)
    done = run(rule, lambda t: 2.0, 1.0, 200.0, random.Random(1), low=4, high=8)
    assert done.lost == 0
    assert done.arrived == done.ended + done.left
    assert abs(done.arrived - 400) < 80
    assert 4 * 200 <= done.worker_s <= 4 * (200 + BOOT_S)
    assert done.wait(0.5) < 2.0
    steady = rule.looks[10:]
    assert abs(sum(look.busy for look in steady) / len(steady) - 0.5) < 0.15
    assert all(abs(look.worker_s - 4 * 5.0) < 1e-6 for look in steady)


def test_deaths_cost_time_and_no_job() -> None:
    done = run(Fixed(4), lambda t: 2.0, 1.0, 300.0, random.Random(2), low=4, high=8, kill_every=10.0)
    assert done.kills >= 25
    assert done.lost == 0
    assert done.arrived == done.ended + done.left


def test_s27_ours_meets_its_bars_and_the_seeds_rule_never_grows() -> None:
    figures = judge(11, 1, ["ours"])
    assert all(bars(figures).values()), figures
    seed, _ = draw("seed's manager", 11, 0)
    assert seed.most <= 3
    assert seed.wait(0.95) > 300


def test_s27_the_same_reports_give_the_same_decisions() -> None:
    one, two = (draw("ours", 5, 1, KILL_EVERY_S)[0] for _ in range(2))
    assert (one.waits, one.worker_s, one.changes) == (two.waits, two.worker_s, two.changes)

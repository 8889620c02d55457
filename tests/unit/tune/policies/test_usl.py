"""The default policy for backlogs: short forms of the experiments, and the parts of its rule."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from asyncworker.errors import BadParameters
from asyncworker.tune.policies import usl
from asyncworker.tune.policies.usl import UslPolicy
from bench.control import bench_convergence, bench_restart, bench_shapes, virtual_loop
from bench.control.end_to_end import mapped
from bench.control.experiment import judge
from bench.control.rules import OURS
from bench.control.simulation import Scalable, Works, best, run

SEED = random.SystemRandom().randrange(2**32)
"""New in each run; shown by a failure."""
SLACK = 0.04
"""Few draws vary more than the experiments' many."""


@pytest.mark.bars
def test_it_finds_the_best_and_finds_it_again_after_a_change(seed: int) -> None:
    ours = judge(bench_convergence.measure, OURS, seed, 4)
    assert not [str(bar) for bar in bench_convergence.bars(ours, SLACK) if bar.missed], f"seed {seed}"


@pytest.mark.bars
def test_it_beats_the_seeds_rules_on_the_same_backends(seed: int) -> None:
    seeds = {rule: judge(bench_convergence.measure, rule, seed, 2) for rule in bench_convergence.SEEDS}
    ours = judge(bench_convergence.measure, OURS, seed, 2)
    for rule, figures in seeds.items():
        assert sum(ours["share"]) > sum(figures["share"]), f"{rule}, seed {seed}"


@pytest.mark.bars
def test_it_is_right_on_other_shapes(seed: int) -> None:
    ours = {name: judge(measure, OURS, seed, 2) for name, (measure, _) in bench_shapes.measures().items()}
    few = [bar for bar in bench_shapes.bars(ours, SLACK) if not bar.what.startswith(("flat", "saturating: under"))]
    assert not [str(bar) for bar in few if bar.missed], f"seed {seed}"
    assert max(ours["flat"]["inflight"]) < 40, f"seed {seed}"
    assert max(ours["saturating"]["crowd"]) < 15, f"seed {seed}"


@pytest.mark.bars
def test_what_it_learned_helps_after_a_restart(seed: int) -> None:
    ours = judge(bench_restart.measure, OURS, seed, 5)
    assert not [str(bar) for bar in bench_restart.bars(ours, SLACK) if bar.missed], f"seed {seed}"


@pytest.mark.bars
def test_the_gate_on_real_tasks_does_as_the_simulation(seed: int) -> None:
    backend = Scalable(50.0, 0.03, 0.0005)
    completed = virtual_loop.run(mapped(backend, Works(random.Random(seed)), 10.0))
    assert completed / 10 / best(backend)[1] > 0.85, f"seed {seed}"


def test_where_nobody_asks_for_the_limit_it_does_not_move() -> None:
    policy = UslPolicy(initial=40)
    for call in range(5000):
        policy.on_complete(call * 0.01, 0.05, 5, True)
    assert policy.limit == 40


class Failing:
    """A backend that refuses at once what is beyond its capacity, and bad items however few they are."""

    def __init__(self, servers: int, bad: float = 0.0) -> None:
        self.servers, self.bad, self.t, self.rng = servers, bad, 0.0, random.Random(SEED)

    def work(self, policy: UslPolicy, seconds: float) -> list[int]:
        end, limits = self.t + seconds, []
        while self.t < end:
            n = policy.limit
            beyond = max(0, n - self.servers) / n
            self.t += 0.05 / n
            ok = self.rng.random() >= beyond and self.rng.random() >= self.bad
            limits.append(policy.on_complete(self.t, 0.05, n, ok))
        return limits


def test_it_backs_off_where_the_backend_refuses() -> None:
    policy = UslPolicy()
    limits = Failing(30).work(policy, 60.0)
    late = limits[len(limits) // 2 :]
    assert 15 <= sum(late) / len(late) <= 40


def test_bad_items_do_not_make_it_small() -> None:
    policy = UslPolicy(high=100)
    limits = Failing(1000, bad=0.2).work(policy, 60.0)
    assert sum(limits[-1000:]) / 1000 > 60


def test_an_outage_does_not_move_it_far_nor_for_long() -> None:
    policy, backend = UslPolicy(high=60), Failing(1000)
    backend.work(policy, 20.0)
    before = policy.state_dict()["centre"]
    backend.bad = 1.0
    backend.work(policy, 20.0)
    backend.bad = 0.0
    limits = backend.work(policy, 30.0)
    assert sum(limits[-1000:]) / 1000 > 0.6 * before


def test_slow_calls_do_not_hold_the_start_up_for_long() -> None:
    """Calls of 5 s: fifty at each step would take minutes, and a few that end together are no throughput."""
    ends = [
        run(UslPolicy(), lambda n: n / 5.0, Works(random.Random(SEED + draw)), 120.0).limits[-1][1]
        for draw in range(10)
    ]
    assert min(ends) >= 64, f"seed {SEED}: {ends}"


def test_s42_it_does_not_swing() -> None:
    backend = Scalable(50.0, 0.03, 0.0005)
    done = run(UslPolicy(), backend, Works(random.Random(SEED)), 30.0)
    n, _ = best(backend)
    late = sorted(limit for t, limit in done.limits if t > 10)
    assert 0.5 * n < late[len(late) // 2] < 1.6 * n, f"seed {SEED}"
    assert 0.3 * n < late[len(late) // 10] < late[-len(late) // 10] < 2.2 * n, f"seed {SEED}"


@pytest.mark.parametrize("bad", [{"dither": 0.0}, {"min_samples": 3}, {"knee_tolerance": 1.0}, {"min_window": -1.0}])
def test_arguments_that_cannot_work_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadParameters):
        UslPolicy(**bad)  # type: ignore[arg-type]


def test_a_state_taken_at_any_moment_goes_on() -> None:
    backend, policy = Failing(25), UslPolicy()
    for _ in range(30):
        backend.work(policy, 1.3)
        fresh = UslPolicy()
        fresh.load_state_dict(json.loads(json.dumps(policy.state_dict())))
        assert fresh.limit == policy.limit
        assert fresh.state_dict() == policy.state_dict()
        policy = fresh
    assert 10 <= policy.limit <= 60


def served(policy: UslPolicy, rate: Callable[[int], float], seconds: float, *, calls: int = 1) -> list[int]:
    """Work off calls of a backend in which *n* at once are served at ``rate(n)``; returns the limits, with noise."""
    rng, t, limits = random.Random(SEED), 0.0, []
    while t < seconds:
        n = policy.limit
        t += calls * rng.uniform(0.7, 1.3) / rate(n)
        limits.append(policy.on_complete(t, n / rate(n), n, True, calls))
    return limits


def test_reports_of_several_calls_at_once_say_the_same() -> None:
    knee = Scalable(50.0, 0.02, 0.002)
    best_at = best(knee)[0]
    for calls in (1, 10):
        limits = served(UslPolicy(), knee, 20.0, calls=calls)
        middle = sorted(limits[len(limits) // 2 :])[len(limits) // 4]
        assert best_at / 1.7 <= middle <= best_at * 1.7, f"{calls} calls a report, seed {SEED}"


def test_with_an_slo_no_more_are_under_way_than_keep_to_it() -> None:
    backend = Scalable(50.0, 0.02, 0.0002)  # alone a call takes 20 ms; where most is done, over 60
    limits = served(UslPolicy(slo=0.035), backend, 30.0)
    late = limits[len(limits) // 2 :]
    keeps = max(n for n in range(1, 200) if n / backend(n) <= 0.035)
    assert sum(late) / len(late) < 1.25 * keeps, f"seed {SEED}"
    free = served(UslPolicy(), backend, 30.0)
    assert sum(late) / len(late) < 0.8 * sum(free[len(free) // 2 :]) / len(free[len(free) // 2 :])
    with pytest.raises(BadParameters, match="slo"):
        UslPolicy(slo=0)


def test_nothing_higher_is_tried_where_the_caller_itself_is_the_limit() -> None:
    policy = UslPolicy(initial=8)
    policy.saturated = True
    limits = served(policy, lambda n: 500.0, 60.0)  # a full loop: 500 a second, however many
    assert max(limits) <= 16, "one step up, which brought nothing"
    assert max(limits[len(limits) // 2 :]) <= 8
    growing = UslPolicy(initial=8)
    growing.saturated = True
    assert max(served(growing, lambda n: 100.0 * min(n, 64), 10.0)) >= 64, "what grows goes on"


def test_where_calls_take_long_it_does_not_wait_for_them() -> None:
    policy = UslPolicy(initial=16)
    limits = [policy.on_wait(tick / 10) for tick in range(40)]
    assert limits == sorted(limits)
    assert list(dict.fromkeys(limits)) == [16, 32, 64, 100], "a guess, and no more than that"
    busy = UslPolicy(initial=16)
    busy.saturated = True
    assert [busy.on_wait(float(tick)) for tick in range(9)] == [16] * 9
    known = UslPolicy(initial=16)
    for tick in range(40):
        known.on_complete(tick / 100, 0.16, 16, True)
        known.on_wait(tick / 100)
    assert "still growing" in known.because, "calls end: what they tell is better than a guess"


@pytest.mark.parametrize("seed", [24, 35, 52])  # taken for a faster backend once, where it then stayed
def test_a_step_off_a_cliff_is_undone_within_three_epochs(seed: int) -> None:
    policy, rng, t, epoch, beyond = UslPolicy(), random.Random(seed), 0.0, 0, 0
    while t < 40.0:
        rate = 50.0 * policy.limit if policy.limit <= 40 else 500.0
        took = policy.limit / rate * rng.lognormvariate(-0.125, 0.5)
        t += rng.expovariate(rate)
        policy.on_complete(t, took, policy.limit, True)
        if (now := policy.state_dict()["epoch"] if policy.limit > 42 or beyond else epoch) != epoch:
            epoch = now
            beyond = beyond + 1 if policy.limit > 42 else 0
            assert beyond <= 3, f"at {t:.1f} s"


def test_a_limit_that_has_stopped_moving_is_held_longer_between_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    def moves() -> int:
        policy, t, moved = UslPolicy(), 0.0, 0
        while t < 30.0:
            n = policy.limit
            t += 0.05 / min(n, 12)  # twelve servers
            moved += policy.on_complete(t, 0.05 * max(1.0, n / 12), n, True) != n
        return moved

    rested = moves()
    monkeypatch.setattr(usl, "REST", 0)
    assert rested < 0.85 * moves()


def test_a_large_step_down_is_over_when_no_more_are_under_way_than_may_be() -> None:
    policy, t = UslPolicy(initial=100), 0.0
    policy._before, policy.limit, policy._state.limit = 100, 20, 20
    policy._begin(0.0, settled=False)
    for under_way in range(100, 20, -1):  # calls that began long before
        t += 0.01
        policy.on_complete(t, 5.0, under_way, True)
        assert not policy._settled
    policy.on_complete(t + 0.01, 5.0, 20, True)
    assert policy._settled


def test_so_much_work_is_under_way_as_fetching_some_takes() -> None:
    limits = served(UslPolicy(stock=0.002), lambda n: 20_000.0, 3.0, calls=20)
    assert min(limits[len(limits) // 2 :]) >= 0.002 * 20_000 / 1.3, "however flat throughput is"
    assert min(served(UslPolicy(), lambda n: 20_000.0, 3.0, calls=20)[-500:]) < 20

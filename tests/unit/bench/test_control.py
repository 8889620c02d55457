"""The ports of other people's rules, and the backends they are judged on."""

from __future__ import annotations

import asyncio
import cmath
import math
import random
import subprocess
import sys
from collections.abc import Callable

import pytest

from asyncworker.tune.policies.aimd import AimdPolicy
from asyncworker.tune.policies.fixed import FixedPolicy
from bench.control import rules, virtual_loop
from bench.control.bench_batch_arrivals import Bento
from bench.control.simulation import HIGH, Scalable, Works, best, run


def test_vegas_by_hand() -> None:
    """As its own test has it: alpha 3, beta 6, the shortest time 10 ms, a limit of 10."""
    for rtt, after in [(0.010, 16), (0.050, 9), (0.014, 10), (0.012, 11)]:
        vegas = rules.Vegas(random.Random(1), initial=10, high=20)
        assert vegas.on_complete(0.0, 0.010, 10, True) == 10
        assert vegas.on_complete(0.0, rtt, 11, True) == after


def test_vegas_does_not_grow_where_the_limit_is_not_used_and_shrinks_on_a_drop() -> None:
    vegas = rules.Vegas(random.Random(1), initial=10)
    vegas.on_complete(0.0, 0.010, 10, True)
    assert vegas.on_complete(0.0, 0.010, 4, True) == 10
    assert vegas.on_complete(0.0, 0.010, 4, False) == 9


def test_the_seeds_rule_by_hand() -> None:
    growing = rules.Growing()
    assert [growing.on_complete(float(t), 0.1, 5, True) for t in range(1, 6)] == [7, 10, 15, 22, 33]


def test_bbr_doubles_until_throughput_stalls_and_then_holds_twice_the_product() -> None:
    bbr, t, limits = rules.Bbr(), 0.0, []
    for _ in range(4000):
        n = bbr.limit
        rtt = max(1, n / 10) * 0.1  # ten servers of 0.1 s: the product is 10
        t += rtt / n
        limits.append(bbr.on_complete(t, rtt, n, True))
    assert limits[-1] in range(18, 23)
    assert max(limits) >= 32


def test_envoy_by_hand() -> None:
    envoy, t = rules.Envoy(), 0.1
    for _ in range(50):
        t += 0.001
        envoy.on_complete(t, 0.010, 3, True)
    # g = 1.25, L = 3 * 1.25 + sqrt(3.75) = 5.68
    assert envoy.on_complete(t + 0.2, 0.010, 3, True) == 5


def test_vector_by_hand() -> None:
    vector = rules.Vector()
    vector.on_complete(0.0, 0.1, 1, True)
    assert vector.on_complete(0.2, 0.1, 1, True) == 2
    assert vector.on_complete(0.9, 10.0, 2, True) == 1


def test_windows_hand_on_means_of_ten_or_more() -> None:
    class Heard(rules.Growing):
        def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
            heard.append((rtt, inflight))
            return 5

    heard: list[tuple[float, int]] = []
    windowed = rules.Windowed(Heard(), 1.0)
    for call in range(40):
        windowed.on_complete(call * 0.09, 0.1 + call / 1000, call, True)
    assert len(heard) == 3
    assert heard[0] == (pytest.approx(0.1075), 13)  # the calls 2 to 13: the first window had too few


@pytest.mark.parametrize("name", rules.RULES)
def test_each_rule_keeps_its_bounds(name: str) -> None:
    rule = rules.RULES[name](random.Random(1))
    done = run(rule, Scalable(50.0, 0.03, 0.0005), Works(random.Random(2)), 5.0)
    assert sum(done.completed) > 100
    assert all(1 <= limit <= HIGH for _, limit in done.limits)


@pytest.mark.parametrize("n", [1, 5, 44, 150])
def test_the_simulated_throughput_is_the_stated_one(n: int) -> None:
    backend = Scalable(50.0, 0.03, 0.0005)
    done = run(FixedPolicy(n), backend, Works(random.Random(1)), 60.0)
    assert done.rate(10, 60) == pytest.approx(backend(n), rel=0.05)
    assert done.inflight(10, 60) == pytest.approx(n, rel=0.01)
    peak, rate = best(backend)
    assert peak == round(math.sqrt(0.97 / 0.0005))
    assert backend(n) <= rate


def test_virtual_time_costs_none_and_knows_a_deadlock() -> None:
    async def main() -> float:
        await asyncio.gather(asyncio.sleep(3600.0), asyncio.sleep(7200.0))
        return asyncio.get_running_loop().time()

    assert virtual_loop.run(main()) == pytest.approx(7200.0)

    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(virtual_loop.Deadlock):
        virtual_loop.run(wait())


@pytest.mark.once
@pytest.mark.parametrize("bench", ["bench_convergence", "bench_shapes", "bench_restart"])
def test_the_experiments_run(bench: str) -> None:
    line = [sys.executable, "-m", f"bench.control.{bench}", "--draws", "1", "--ours", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode in (0, 1), done.stderr
    assert '"bars"' in done.stdout


@pytest.mark.parametrize(
    ("rtts", "limits"), [((1.0, 0.5), (21, 22)), ((2.0, 2.0), (19, 18)), ((1.3, 1.3), (20, 20))], ids=str
)
def test_failsafe_by_its_own_test(rtts: tuple[float, float], limits: tuple[int, int]) -> None:
    """`TestAdaptiveLimiter_record` of failsafe-go: a limit of 20, and ten windows of 1 s each in the long mean."""
    failsafe = rules.Failsafe()
    failsafe._windows, failsafe._long, failsafe._short = 10, 1.0, rtts[0]
    for rtt, limit in zip(rtts, limits, strict=True):
        failsafe._window(rtt)
        assert failsafe.limit == limit


def test_failsafes_windows_by_their_own_tests() -> None:
    """`TestCovarianceWindow` and `TestVariationWindowSliding`; ours has no word before ten pairs."""
    up, down = rules.Correlation(), rules.Correlation()
    for x in range(1, 13):
        rising = up.add(x, 10.0 * (1 + (x - 1) % 3))
        falling = down.add(x, 130.0 - 10.0 * x)
    assert falling[0] == pytest.approx(-1.0)
    assert rising[1] == pytest.approx(0.4082, abs=1e-4)  # of 10, 20, 30, four times
    assert rules.Correlation().add(1.0, 2.0) == (0.0, 0.0)


def test_aimd_by_its_own_test() -> None:
    """`AIMDLimitTest` of concurrency-limits."""
    assert AimdPolicy(initial=10).on_complete(0.0, 0.001, 10, True) == 11
    assert AimdPolicy(initial=10).on_complete(0.0, 0.0, 0, False) == 9


@pytest.mark.parametrize("period", [4.0, 32 / 9, 32 / 7])
def test_hill_climbing_finds_a_waves_amplitude_as_a_fourier_sum_does(period: float) -> None:
    """.NET's has no test of its own; its recurrence is Goertzel's, so the sum it stands for is the vector."""
    rng = random.Random(3)
    samples = [20 + 3 * math.cos(2 * math.pi * i / 4 + 0.4) + rng.random() for i in range(32)]
    summed = sum(x * cmath.exp(-2j * math.pi * i / period) for i, x in enumerate(samples)) / 32
    assert abs(rules.HillClimbing._wave(samples, period)) == pytest.approx(abs(summed), rel=1e-9)


def test_hill_climbing_goes_up_where_throughput_answers_its_wave_and_not_where_it_does_not() -> None:
    def climbed(throughput: Callable[[int], float]) -> int:
        climbing, t = rules.HillClimbing(random.Random(1)), 0.0
        for _ in range(60_000):
            t += 1 / throughput(climbing.limit)
            climbing.on_complete(t, 0.1, climbing.limit, True)
        return climbing.limit

    assert climbed(lambda n: 10.0 * n) > 40
    assert climbed(lambda n: 500.0) <= 25


def test_bento_by_hand() -> None:
    bento = Bento()
    assert bento.decide(3, 0.02, 0.0) == (3, 0.0)  # nobody has waited yet: go
    for items, seconds in ((1, 0.011), (3, 0.013)):
        bento.on_batch(items, seconds)
    # 0.95 * 0.02 = 19 ms; three wait for (silent 1 ms + tick 1 ms + 1 ms an item) each: 9 ms, ten: 30 ms
    assert bento.decide(3, 0.02, 0.001) == (0, 0.001)
    assert bento.decide(10, 0.02, 0.001) == (10, 0.0)

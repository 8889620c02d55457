"""The ports of other people's rules, and the backends they are judged on."""

from __future__ import annotations

import asyncio
import math
import random
import subprocess
import sys

import pytest

from asyncworker.tune.policies.fixed import FixedPolicy
from bench.control import rules, virtual_loop
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


@pytest.mark.parametrize("bench", ["bench_convergence", "bench_shapes", "bench_restart"])
def test_the_experiments_run(bench: str) -> None:
    line = [sys.executable, "-m", f"bench.control.{bench}", "--draws", "1", "--ours", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode in (0, 1), done.stderr
    assert '"bars"' in done.stdout

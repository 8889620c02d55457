"""The rules that are compared, and the backends they are judged on; the ports stand by `test_originals`."""

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


def test_the_seeds_rule_by_hand() -> None:
    growing = rules.Growing()
    assert [growing.on_complete(float(t), 0.1, 5, True) for t in range(1, 6)] == [7, 10, 15, 22, 33]


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

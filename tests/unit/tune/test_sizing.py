"""How many connections: short forms of the experiments, and what the rule keeps to whatever it is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.tune.policies.erlang import ErlangPolicy
from asyncworker.tune.policies.policy import Decision, Observation
from asyncworker.tune.policies.usl import UslPolicy
from asyncworker.tune.sizing import CALM, PATIENCE_S, CappedSizing
from bench.control import bench_contended_database, bench_pool_sizing


def sizing(low: int = 2, high: int = 32) -> CappedSizing:
    return CappedSizing(ErlangPolicy(low=low, high=high), UslPolicy(low=low, high=high, initial=2 * low))


def saturate(rule: CappedSizing, seconds: float, began: float = 0.0) -> float:
    """Let callers wait all the time, on a database that does 100 a second whoever asks; returns the time."""
    t = began
    while t < began + seconds:
        t += 0.01
        rule.on_complete(t, rule.size / 100, rule.size, 50)
        if int(t * 2) > int((t - 0.01) * 2):
            rule.tick(Observation(t=t, size=rule.size, arrivals=300, waiting=50, service_s=rule.size / 100))
    return t


@pytest.mark.bars
def test_callers_wait_no_longer_than_they_should(seed: int) -> None:
    figures = bench_pool_sizing.judge(seed, 2, ("ours", "seed's ratio"))
    ours = figures["ours"]
    assert ours["steady_worst"] >= 0.97, f"seed {seed}"
    assert ours["overall_worst"] >= 0.94, f"seed {seed}"
    assert ours["cost_mean"] <= 1.6, f"seed {seed}"
    assert ours["resizes_worst"] <= 24, f"seed {seed}"
    assert figures["seed's ratio"]["steady_worst"] < ours["steady_worst"], f"seed {seed}"


@pytest.mark.bars
def test_a_database_that_is_asked_for_too_much_does_most_work(seed: int) -> None:
    served = bench_contended_database.contended(seed, 2, ("ours", "fixed 10", "fixed 64", "seed's ratio"))
    ours = served.pop("ours")
    assert min(ours) >= 0.85, f"seed {seed}"
    assert sum(ours) > 0.9 * sum(served.pop("fixed 10")), f"seed {seed}"  # which may happen to be the very best
    for name, others in served.items():
        assert sum(ours) > sum(others), f"{name}, seed {seed}"


def test_the_cap_holds_while_callers_wait_and_is_lifted_when_nobody_does() -> None:
    rule = sizing()
    t = saturate(rule, PATIENCE_S * 0.9)
    assert not rule.capped
    t = saturate(rule, 20, t)
    assert rule.capped
    assert rule.size < rule.needed
    assert "slow the others" in rule.because
    for _ in range(CALM - 1):
        rule.on_complete(t, 0.02, 3, 0)
    assert rule.capped
    rule.on_complete(t, 0.02, 3, 0)
    assert not rule.capped
    assert rule.size == rule.needed


def test_a_wait_now_and_then_caps_nothing() -> None:
    rule = sizing()
    for number in range(10_000):
        rule.on_complete(number / 100, 0.02, 3, int(number % 100 < 90))
    assert not rule.capped


def test_one_fewer_is_no_reason_to_close_a_connection() -> None:
    class Swaying:
        low, high, size = 2, 32, 9

        def tick(self, seen: Observation) -> Decision:
            return Decision(self.size, "")

    policy = Swaying()
    rule = CappedSizing(policy, UslPolicy(low=2, high=32))  # type: ignore[arg-type]
    sizes = []
    for policy.size in (9, 8, 9, 8, 10, 9, 8, 7, 3, 2):
        rule.tick(Observation(t=0.0, size=9))
        sizes.append(rule.size)
    assert sizes == [9, 9, 9, 9, 10, 10, 8, 8, 3, 2]


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-1, 1000)


@given(
    reports=st.lists(st.tuples(numbers, numbers, st.integers(0, 100), st.integers(0, 100), st.booleans()), max_size=60)
)
def test_whatever_it_is_told_it_keeps_to_its_bounds(reports: list[tuple[float, float, int, int, bool]]) -> None:
    rule = sizing(3, 9)
    for t, held, in_use, waiting, ok in reports:
        assert 3 <= rule.on_complete(t, held, in_use, waiting, ok=ok) <= 9
        seen = Observation(t=t, size=rule.size, arrivals=held, waiting=waiting, service_s=held)
        assert 3 <= rule.tick(seen).size <= 9

from __future__ import annotations

import heapq
import random

import pytest

from asyncworker.errors import BadParameters
from asyncworker.tune.policies.erlang import ErlangPolicy, wait_probability
from asyncworker.tune.policies.policy import Observation


def waited(size: int, load: float, wait_s: float, calls: int = 20_000) -> float:
    """Return the share of callers that wait longer, of calls of one second on the mean, by simulation."""
    rng, t, late = random.Random(1), 0.0, 0
    free = [0.0] * size
    for _ in range(calls):
        t += rng.expovariate(load)
        begin = max(t, free[0])
        heapq.heapreplace(free, begin + rng.expovariate(1.0))
        late += begin - t > wait_s
    return late / calls


@pytest.mark.parametrize(("size", "load", "wait_s"), [(3, 2.0, 0.0), (10, 8.0, 0.0), (10, 8.0, 0.5), (30, 25.0, 0.2)])
def test_the_formula_agrees_with_a_simulation(size: int, load: float, wait_s: float) -> None:
    assert wait_probability(size, load, 1.0, wait_s) == pytest.approx(waited(size, load, wait_s), abs=0.05)


def test_known_values() -> None:
    assert wait_probability(1, 0.5, 1.0, 0.0) == pytest.approx(0.5)  # M/M/1: the load
    assert wait_probability(3, 2.0, 1.0, 0.0) == pytest.approx(4 / 9)  # a textbook value
    assert wait_probability(5, 5.0, 1.0, 1.0) == 1.0


def pool(policy: ErlangPolicy, t: float, **more: float) -> int:
    return policy.tick(Observation(t=t, size=10, **more)).size


def test_the_least_size_that_is_good_enough() -> None:
    policy = ErlangPolicy(wait=0.01, share=0.05)
    size = pool(policy, 0.0, arrivals=400.0, service_s=0.02)
    asked = 420.0  # a standard deviation above
    assert (
        wait_probability(size, asked * 0.02, 0.02, 0.01) <= 0.05 < wait_probability(size - 1, asked * 0.02, 0.02, 0.01)
    )


def test_it_grows_at_once_and_shrinks_after_a_while() -> None:
    policy = ErlangPolicy(stabilization=10.0)
    few = pool(policy, 0.0, arrivals=50.0, service_s=0.02)
    many = pool(policy, 1.0, arrivals=800.0, service_s=0.02)
    assert many > 2 * few
    assert pool(policy, 5.0, arrivals=50.0, service_s=0.02) == many
    later = [pool(policy, 5.0 + t, arrivals=50.0, service_s=0.02) for t in range(40)]
    assert later[-1] == few


def test_callers_that_wait_already_are_served_soon() -> None:
    policy = ErlangPolicy(high=64)
    assert pool(policy, 0.0, arrivals=10.0, service_s=0.05, waiting=100) == 10 + 20


def test_more_than_fits_is_the_most_and_nothing_known_is_no_change() -> None:
    policy = ErlangPolicy(high=20)
    assert pool(policy, 0.0, arrivals=10.0) == 10
    assert pool(policy, 1.0, arrivals=10_000.0, service_s=1.0) == 20


@pytest.mark.parametrize("bad", [{"wait": -1.0}, {"share": 0.0}, {"share": 1.0}, {"cv": -1.0}])
def test_arguments_that_cannot_work_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadParameters):
        ErlangPolicy(**bad)

"""The size of batches: within its bounds whatever it sees, near the best where the cost has one, and quick to relearn."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.errors import BadParameters
from asyncworker.work.batch_size import BatchSize


def learn(policy: BatchSize, cost: tuple[float, float, float], batches: int) -> int:
    """Return the usual size of the last eight batches: some are there to try their neighbours."""
    sizes = []
    for _ in range(batches):
        sizes.append(policy.size)
        policy.on_batch(sizes[-1], cost[0] + cost[1] * sizes[-1] + cost[2] * sizes[-1] ** 2)
    return statistics.mode(sizes[-8:])


def rate(cost: tuple[float, float, float], items: float) -> float:
    return items / (cost[0] + cost[1] * items + cost[2] * items * items)


@settings(max_examples=100, deadline=None)
@given(
    most=st.integers(1, 1000),
    slo=st.none() | st.floats(1e-3, 10),
    seen=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e6), st.floats(0, 1e3)), max_size=60),
)
def test_the_maximum_is_a_promise(most: int, slo: float | None, seen: list[tuple[float, float, float]]) -> None:
    policy = BatchSize(most, slo=slo)
    for share, seconds, waited in seen:
        items = max(1, round(share * policy.size))
        assert 1 <= policy.on_batch(items, seconds, waited=waited) == policy.size <= most
        assert policy.seconds(items) >= 0


@settings(max_examples=30, deadline=None)
@given(fixed=st.floats(1e-3, 0.2), each=st.floats(1e-5, 1e-3), best=st.floats(5, 400))
def test_it_finds_the_best_size(fixed: float, each: float, best: float) -> None:
    cost = (fixed, each, fixed / best**2)
    size = learn(BatchSize(1000), cost, 60)
    assert rate(cost, size) >= 0.93 * rate(cost, best)


def test_where_size_costs_nothing_it_takes_the_most_that_pays() -> None:
    assert learn(BatchSize(100), (0.1, 0.0001, 0.0), 60) >= 80
    assert learn(BatchSize(100), (0.0, 0.01, 0.0), 60) <= 2


def test_batches_that_are_not_full_teach_the_cost_but_grow_nothing() -> None:
    policy = BatchSize(100)
    policy.on_batch(4, 0.14)
    size = policy.size
    for items in (1, 2, 3) * 10:
        policy.on_batch(items, 0.1 + 0.01 * items)
    assert policy.size == size > 3
    assert policy.seconds(10) == pytest.approx(0.2, rel=0.01)


def test_it_relearns_when_the_cost_changes() -> None:
    policy = BatchSize(1000)
    learn(policy, (0.01, 0.0001, 0.01 / 20**2), 60)
    cost = (0.1, 0.0001, 0.1 / 300**2)
    size = learn(policy, cost, 60)
    assert policy.relearned >= 1
    assert rate(cost, size) >= 0.93 * rate(cost, 300)


def test_one_stall_is_forgotten() -> None:
    policy = BatchSize(1000)
    cost = (0.01, 0.0001, 0.01 / 50**2)
    learn(policy, cost, 60)
    policy.on_batch(policy.size, 30.0)
    assert policy.size <= 20, "a small batch tells whether it was one"
    learn(policy, cost, 10)
    assert policy.relearned == 0
    assert rate(cost, policy.size) >= 0.93 * rate(cost, 50)


def test_an_slo_bounds_the_size() -> None:
    policy = BatchSize(1000, slo=0.5)
    size = learn(policy, (0.1, 0.01, 0.0), 60)
    assert 10 <= size <= 40
    policy.on_batch(size, 0.1 + 0.01 * size, waited=0.2)
    assert policy.size < size, "what items wait leaves less to the batch"
    policy.on_batch(policy.size, 0.1 + 0.01 * policy.size, waited=1e9)
    assert policy.size >= 3, "under overload, small batches would only make it worse"


def test_numbers_out_of_range_are_refused() -> None:
    for options in ({"max_size": 0}, {"max_size": 1, "slo": 0.0}):
        with pytest.raises(BadParameters):
            BatchSize(**options)

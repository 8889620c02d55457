"""Who gets which task: near the best, whole, and refused where it makes no sense."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.errors import BadParameters
from asyncworker.work.balance import ShortestDelay, balance_score, distribute, makespan_bound

CAPACITIES = st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0]), min_size=1, max_size=6)


@pytest.mark.parametrize("workers", [1, 2, 7, 16])
def test_s40_equal_tasks_spread_evenly(workers: int) -> None:
    plan = distribute(range(40 * workers), [{"id": number, "load": 0} for number in range(workers)])
    loads = [len(tasks) for tasks in plan.values()]
    assert max(loads) / (sum(loads) / workers) <= 1.1
    assert balance_score(plan).makespan_ratio <= 1.1


def test_s40_online_each_worker_gets_its_part() -> None:
    policy = ShortestDelay(range(8), rng=random.Random(1))
    counts = Counter(policy.pick() for _ in range(800))
    assert max(counts.values()) <= 1.1 * 100


def test_load_and_capacity_count() -> None:
    workers = [{"id": "busy", "load": 20.0}, {"id": "quick", "capacity": 2.0}, {"id": "idle"}]
    plan = distribute(range(100), workers)
    assert {worker: len(tasks) for worker, tasks in plan.items()} == {"busy": 10, "quick": 60, "idle": 30}
    assert balance_score(plan, workers).makespan_ratio == pytest.approx(1)


def test_weights_come_from_the_task_or_a_function() -> None:
    tasks = [{"weight": 3.0}, {"weight": 1.0}, {"weight": 1.0}, {"weight": 1.0}]
    assert sorted(len(share) for share in distribute(tasks, "ab").values()) == [1, 3]
    assert sorted(len(share) for share in distribute(tasks, "ab", weight=lambda task: 1.0).values()) == [2, 2]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0, 100), max_size=60), CAPACITIES)
def test_every_task_goes_to_one_worker_and_none_is_twice_too_late(
    weights: list[float], capacities: list[float]
) -> None:
    workers = [{"id": number, "capacity": capacity} for number, capacity in enumerate(capacities)]
    plan = distribute(range(len(weights)), workers, weight=weights.__getitem__)
    assert sorted(task for tasks in plan.values() for task in tasks) == list(range(len(weights)))
    assert all(tasks == sorted(tasks) for tasks in plan.values()), "in the order given"
    score = balance_score(plan, workers, weight=weights.__getitem__)
    assert 1 - 1e-9 <= score.makespan_ratio <= 2 * (1 + 1e-9) + (max(capacities) / min(capacities) > 1)
    assert 0 <= score.jain <= 1 + 1e-9
    assert score.cv >= 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.1, 10), min_size=1, max_size=5), st.lists(st.sampled_from([1.0, 3.0]), min_size=1, max_size=3)
)
def test_the_bound_is_one(weights: list[float], capacities: list[float]) -> None:
    best = min(
        max(
            sum(weight for weight, chosen in zip(weights, choice, strict=True) if chosen == worker) / capacity
            for worker, capacity in enumerate(capacities)
        )
        for choice in itertools.product(range(len(capacities)), repeat=len(weights))
    )
    assert makespan_bound(weights, capacities) <= best * (1 + 1e-9)


def test_the_score_of_work_that_was_measured() -> None:
    score = balance_score({"a": 3.0, "b": 1.0})
    assert score.jain == pytest.approx(16 / 20)
    assert score.cv == pytest.approx(0.5)
    assert score.makespan_ratio == pytest.approx(1.5)
    even = balance_score({"a": 4.0, "b": 2.0}, [{"id": "a", "capacity": 2.0}, {"id": "b"}])
    assert (even.jain, even.cv, even.makespan_ratio) == (pytest.approx(1), 0, pytest.approx(1))


def test_who_has_nothing_counts() -> None:
    score = balance_score({"a": [1, 2, 3, 4]}, ["a", "b"])
    assert (score.jain, score.makespan_ratio) == (0.5, 2.0)
    empty = balance_score({"a": [], "b": []})
    assert (empty.jain, empty.cv, empty.makespan_ratio) == (1, 0, 1)


@pytest.mark.parametrize(
    ("tasks", "workers"),
    [
        ([1], []),
        ([1], ["a", "a"]),
        ([1], [{"id": "a", "capacity": 0}]),
        ([1], [{"id": "a", "capacity": math.inf}]),
        ([1], [{"id": "a", "load": -1}]),
        ([1], [{"id": "a", "load": "much"}]),
        ([1], [{"name": "a"}]),
        ([{"weight": -1}], ["a"]),
        ([{"weight": math.nan}], ["a"]),
    ],
)
def test_what_makes_no_sense_is_refused(tasks: Any, workers: Any) -> None:
    with pytest.raises(BadParameters):
        distribute(tasks, workers)


def test_a_worker_that_nobody_named_is_refused() -> None:
    with pytest.raises(BadParameters, match="'b'"):
        balance_score({"b": 1.0}, ["a"])
    with pytest.raises(BadParameters):
        ShortestDelay([])


def test_tasks_go_where_they_end_first() -> None:
    policy = ShortestDelay(["slow", "quick"], rng=random.Random(1))
    assert {policy.pick(), policy.pick()} == {"slow", "quick"}
    policy.ended("slow", 4.0)
    policy.ended("quick", 1.0)
    assert Counter(policy.pick() for _ in range(40)) == {"quick": 32, "slow": 8}


def test_of_many_workers_two_are_looked_at() -> None:
    policy = ShortestDelay(range(1000), rng=random.Random(1))
    assert len({policy.pick() for _ in range(500)}) > 300


def test_who_once_took_long_is_asked_again_after_a_while() -> None:
    sent = ShortestDelay(range(3), rng=random.Random(1))
    for worker in range(3):
        sent._waiting[worker] += 1
        sent.ended(worker, 60.0 if worker == 2 else 1.0)
    picked = []
    for _ in range(4000):
        worker = sent.pick()
        picked.append(worker)
        sent.ended(worker, 1.0)
    assert 2 not in picked[:1000], "it is not forgotten at once"
    assert picked[-100:].count(2) > 10, "one long task does not leave it out for good"

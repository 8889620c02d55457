"""Pulled chunks: every task is done once, whoever stops, and at the end the late one gets help."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.errors import BadParameters
from asyncworker.work.factoring import Factoring
from bench.control import bench_distribution


def test_the_first_chunk_is_one_task_and_later_ones_shrink() -> None:
    factoring: Factoring[str, int] = Factoring(range(100))
    sizes, now = [], 0.0
    while tasks := factoring.take("a", now):
        sizes.append(len(tasks))
        now += len(tasks)
        assert factoring.ended("a", now).tasks == tasks
    assert sizes[0] == 1
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    assert sizes[1] > 20
    assert sum(sizes) == 100
    assert factoring.done


def test_a_quick_worker_gets_more() -> None:
    factoring: Factoring[str, int] = Factoring(range(1000))
    for worker, seconds in (("quick", 1.0), ("slow", 4.0)):
        factoring.take(worker, 0.0)
        factoring.ended(worker, seconds)
    assert len(factoring.take("quick", 4.0)) > 3 * len(factoring.take("slow", 4.0))


def test_the_late_chunk_is_copied_and_the_first_copy_counts() -> None:
    factoring: Factoring[str, int] = Factoring([1, 2, 3])
    for worker in "ab":
        factoring.take(worker, 0.0)
    assert factoring.ended("a", 1.0).tasks == [1]
    assert factoring.take("a", 1.0) == [3]
    assert factoring.ended("a", 2.0).tasks == [3]
    assert factoring.take("a", 2.5) == [2], "b is late: a should be quicker"
    assert factoring.take("c", 2.5) == [], "two copies are enough, and of c nothing is known"
    ended = factoring.ended("a", 3.5)
    assert (ended.tasks, ended.stop) == ([2], ["b"])
    factoring.dropped("b")
    assert factoring.done


def test_a_copy_that_comes_second_counts_nothing() -> None:
    factoring: Factoring[str, int] = Factoring([1, 2, 3])
    for worker in "ab":
        factoring.take(worker, 0.0)
    factoring.ended("a", 1.0)
    factoring.take("a", 1.0)
    factoring.ended("a", 2.0)
    assert factoring.take("a", 100.0) == [2]
    assert factoring.ended("b", 101.0).tasks == [2]
    ended = factoring.ended("a", 102.0)
    assert (ended.tasks, ended.stop) == ([], [])


def test_tasks_that_may_not_run_twice_are_not_copied() -> None:
    factoring: Factoring[str, int] = Factoring([1, 2], speculate=False)
    for worker in "ab":
        factoring.take(worker, 0.0)
    factoring.ended("a", 1.0)
    assert factoring.take("a", 100.0) == []


@settings(max_examples=80, deadline=None)
@given(
    weights=st.lists(st.floats(0, 10), max_size=60),
    speeds=st.lists(st.sampled_from([0.5, 1.0, 4.0]), min_size=1, max_size=4),
    drops=st.lists(st.booleans(), max_size=30),
    overhead=st.sampled_from([0.0, 0.1]),
)
def test_every_task_is_done_once(weights: list[float], speeds: list[float], drops: list[bool], overhead: float) -> None:
    factoring: Factoring[int, int] = Factoring(range(len(weights)), weight=weights.__getitem__, overhead=overhead)
    done: list[int] = []
    ends: dict[int, float] = {}
    now = 0.0
    while not factoring.done:
        for worker in set(range(len(speeds))) - set(ends):
            if tasks := factoring.take(worker, now):
                ends[worker] = now + overhead + sum(weights[task] for task in tasks) / speeds[worker]
        worker = min(ends, key=ends.__getitem__)
        now = ends.pop(worker)
        if drops and drops.pop():
            factoring.dropped(worker)
            continue
        ended = factoring.ended(worker, now)
        done += ended.tasks
        for other in ended.stop:
            factoring.dropped(other)
            del ends[other]
    assert sorted(done) == list(range(len(weights)))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(BadParameters):
        Factoring([1], overhead=-1.0)
    with pytest.raises(BadParameters):
        Factoring([1], weight=lambda task: -1.0)
    factoring: Factoring[str, int] = Factoring([1, 2])
    factoring.take("a", 0.0)
    with pytest.raises(BadParameters, match="'a'"):
        factoring.take("a", 1.0)


@pytest.mark.parametrize("draw", [358, 515, 923])
def test_a_large_task_with_a_slow_worker_is_begun_again_in_time(draw: int) -> None:
    """The largest task of all went to a slow worker first, and its copy came when only the slow were free."""
    case = bench_distribution.Case.drawn(random.Random(f"286488145 {draw}"))
    assert bench_distribution.ours(case) / case.bound < 1.2

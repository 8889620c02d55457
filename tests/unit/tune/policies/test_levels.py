from __future__ import annotations

from itertools import pairwise

import pytest

from asyncworker.errors import BadParameters
from asyncworker.tune.policies.levels import Level, LevelsPolicy
from asyncworker.tune.policies.policy import Observation


class Pool:
    """Work that arrives at a steady rate, and units that each do one piece a second."""

    def __init__(self, arrivals: float, size: int) -> None:
        self.arrivals, self.size, self.waiting, self.t = arrivals, size, 0.0, 0.0

    def second(self) -> Observation:
        self.t += 1
        asked = self.waiting + self.arrivals
        done = min(asked, self.size)
        self.waiting = asked - done
        return Observation(
            t=self.t,
            size=self.size,
            arrivals=self.arrivals,
            completions=done,
            waiting=self.waiting,
            oldest_s=self.waiting / self.arrivals,
            busy=done / self.size,
        )

    def sizes(self, policy: LevelsPolicy, seconds: int) -> list[int]:
        found = []
        for _ in range(seconds):
            self.size = policy.tick(self.second()).size
            found.append(self.size)
        return found


def reversals(sizes: list[int]) -> int:
    ways = [after > before for before, after in pairwise(sizes) if after != before]
    return sum(a != b for a, b in pairwise(ways))


def seeds_rule(arrivals: float, seconds: int) -> list[int]:
    """The seed's: times 1.5 above 80 % in use, divided by it below 60 %, whatever will come of that."""
    pool, sizes = Pool(arrivals, 5), []
    for _ in range(seconds):
        busy = pool.second().busy
        if busy > 0.8:
            pool.size = min(64, int(pool.size * 1.5))
        elif busy < 0.6:
            pool.size = max(1, int(pool.size / 1.5))
        sizes.append(pool.size)
    return sizes


@pytest.mark.parametrize("arrivals", [3.0, 9.5, 17.0, 23.0, 31.0, 47.0])
def test_s42_levels_settle_under_steady_load(arrivals: float) -> None:
    for size in (1, 5, 60):
        sizes = Pool(arrivals, size).sizes(LevelsPolicy(), 400)
        assert reversals(sizes[200:]) == 0
        assert len(set(sizes[300:])) == 1
        assert arrivals <= sizes[-1] <= 3 * arrivals + 2


def test_s42_the_seeds_rule_swings_for_ever() -> None:
    assert max(reversals(seeds_rule(arrivals, 400)[200:]) for arrivals in (3.0, 9.5, 17.0, 23.0, 31.0, 47.0)) > 50


def test_levels_are_climbed_and_left_with_a_margin() -> None:
    policy = LevelsPolicy(drain=10.0)
    path = []
    for age in (0.0, 2.6, 3.1, 7.6, 9.1, 16.0, 18.5, 14.0, 11.9, 7.0, 5.9, 2.4, 1.9):
        policy.tick(Observation(t=0.0, size=4, oldest_s=age, busy=1.0))
        path.append(policy.level)
    low, medium, high, critical = Level
    assert path == [low, low, medium, medium, high, high, critical, critical, high, high, medium, medium, low]


def test_a_burst_may_skip_levels() -> None:
    policy = LevelsPolicy(drain=10.0)
    assert policy.tick(Observation(t=0.0, size=10, oldest_s=100.0)).size == 15
    assert policy.level is Level.CRITICAL
    policy.tick(Observation(t=1.0, size=15, oldest_s=0.0, busy=0.1))
    assert policy.level is Level.LOW


def test_it_is_patient_before_it_shrinks_and_leaves_room() -> None:
    policy = LevelsPolicy(patience=3)
    calm = Observation(t=0.0, size=30, busy=0.6)
    assert [policy.tick(calm).size for _ in range(3)] == [30, 30, 23]


@pytest.mark.parametrize("bad", [{"drain": 0.0}, {"factor": 1.0}, {"patience": 0}])
def test_arguments_that_cannot_work_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadParameters):
        LevelsPolicy(**bad)  # type: ignore[arg-type]

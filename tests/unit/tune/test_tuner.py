from __future__ import annotations

import asyncio
import contextlib

from asyncworker.tune.actuators.limiter import Limiter
from asyncworker.tune.policies.fixed import FixedPolicy
from asyncworker.tune.policies.policy import Decision, Observation
from asyncworker.tune.tuner import Tuner
from bench.control import virtual_loop


class Wanting(FixedPolicy):
    """Wants what the test says."""

    def __init__(self, size: int) -> None:
        super().__init__(50)
        self.size = size

    def tick(self, observation: Observation) -> Decision:
        return Decision(self.size, "the test says so")


class Pool:
    """A limiter, and a sensor of what it would do a second at its size."""

    def __init__(self, size: int, rates: dict[int, float], waiting: float = 5) -> None:
        self.limiter = Limiter(size, name="pool", high=20)
        self.rates, self.waiting, self.t = rates, waiting, 0.0

    def sense(self) -> Observation:
        self.t += 1
        rate = self.rates.get(self.limiter.size, 100.0)
        return Observation(t=self.t, size=self.limiter.size, completions=rate, waiting=self.waiting)

    def tuner(self, policy: Wanting) -> Tuner:
        return Tuner(self.limiter, self.sense, policy)


def test_the_actuator_follows_the_policy_within_its_bounds_and_says_why() -> None:
    pool = Pool(4, {})
    policy = Wanting(10)
    tuner = pool.tuner(policy)
    assert tuner.tick() == Decision(10, "the test says so")
    policy.size = 99
    assert tuner.tick().size == 20
    assert [(one.name, one.old, one.new, one.because) for one in tuner.decisions] == [
        ("pool", 4, 10, "the test says so"),
        ("pool", 10, 20, "the test says so"),
    ]


def test_a_change_that_hurts_is_undone_within_three_windows() -> None:
    for rate in (85.0, 40.0):
        pool = Pool(5, {10: rate})
        tuner = pool.tuner(Wanting(10))
        tuner.tick()
        sizes = [tuner.tick().size for _ in range(3)]
        assert 5 in sizes, rate
        assert "undone" in list(tuner.decisions)[-1].because


def test_what_was_undone_is_not_tried_again_at_once_and_later_less_often() -> None:
    pool = Pool(5, {10: 50.0})
    tuner = pool.tuner(Wanting(10))
    for _ in range(100):
        tuner.tick()
    tried = sum(one.new == 10 for one in tuner.decisions)
    assert 2 <= tried <= 7
    assert pool.limiter.size == 5


def test_a_way_that_gets_worse_step_by_step_is_undone_to_where_it_was_best() -> None:
    pool = Pool(5, {6: 97.0, 7: 88.0, 8: 80.0, 9: 70.0})
    policy = Wanting(6)
    tuner = pool.tuner(policy)
    tuner.tick()
    for size in (7, 8, 9):
        policy.size = size
        tuner.tick()
        if pool.limiter.size == 5:
            break
    assert pool.limiter.size == 5


def test_less_work_is_no_harm() -> None:
    pool = Pool(5, {10: 20.0}, waiting=0)
    tuner = pool.tuner(Wanting(10))
    for _ in range(10):
        tuner.tick()
    assert pool.limiter.size == 10


def test_a_change_that_stands_its_probation_stays() -> None:
    pool = Pool(5, {10: 95.0})
    tuner = pool.tuner(Wanting(10))
    for _ in range(10):
        tuner.tick()
    assert pool.limiter.size == 10
    assert len(tuner.decisions) == 1


def test_it_ticks_until_cancelled() -> None:
    pool = Pool(5, {})

    async def main() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10.5):
                await pool.tuner(Wanting(10)).run(every=1.0)

    virtual_loop.run(main())
    assert pool.t == 10

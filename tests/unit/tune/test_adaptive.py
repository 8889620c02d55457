from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import pytest

from asyncworker.errors import BadParameters
from asyncworker.events import Bus, Decided
from asyncworker.tune.actuators.limiter import Limiter
from asyncworker.tune.adaptive import AdaptiveLimiter
from asyncworker.tune.decisions import Decisions
from asyncworker.tune.policies.aimd import AimdPolicy
from asyncworker.tune.policies.fixed import FixedPolicy
from asyncworker.tune.policies.usl import UslPolicy
from bench.control import virtual_loop
from bench.control.simulation import Scalable, Works


class Recorded(FixedPolicy):
    def __init__(self) -> None:
        super().__init__(3)
        self.reports: list[tuple[float, float, int, bool]] = []

    def on_complete(self, t: float, rtt: float, inflight: int, ok: bool) -> int:
        self.reports.append((t, rtt, inflight, ok))
        return self.limit


def test_what_calls_took_is_reported() -> None:
    policy = Recorded()

    async def main() -> None:
        limiter = AdaptiveLimiter(policy)

        async def call(seconds: float) -> None:
            async with limiter:
                await asyncio.sleep(seconds)

        await asyncio.gather(*(call(seconds) for seconds in (1.0, 2.0, 3.0, 4.0)))

    virtual_loop.run(main())
    # The fourth waited a second for its permit, which is no part of its own time.
    assert policy.reports == [(1.0, 1.0, 3, True), (2.0, 2.0, 3, True), (3.0, 3.0, 2, True), (5.0, 4.0, 1, True)]


async def test_an_error_is_a_failed_call_and_a_cancellation_none() -> None:
    policy = Recorded()
    limiter = AdaptiveLimiter(policy)
    with pytest.raises(KeyError):
        async with limiter:
            raise KeyError
    with pytest.raises(asyncio.CancelledError):
        async with limiter:
            raise asyncio.CancelledError
    assert [ok for *_, ok in policy.reports] == [False]
    assert limiter.limiter.in_use == 0


async def test_to_enter_twice_is_refused_rather_than_to_wait_for_oneself() -> None:
    limiter = AdaptiveLimiter(FixedPolicy(1))
    async with limiter:
        with pytest.raises(BadParameters):
            async with limiter:
                pass
    assert limiter.limiter.in_use == 0


def test_it_finds_its_size_on_a_backend() -> None:
    bus, told = Bus(), []
    bus.listen(Decided, told.append)

    async def main() -> AdaptiveLimiter:
        backend = virtual_loop.Backend(Scalable(50.0, 0.03, 0.0005), Works(random.Random(1)))
        limiter = AdaptiveLimiter(UslPolicy(), Limiter(1, name="backend", high=200), decisions=Decisions(bus))

        async def call() -> None:
            async with limiter:
                await backend.call()

        async with asyncio.TaskGroup() as group:
            for _ in range(3000):
                group.create_task(call())
        assert 32 <= backend.most <= 200
        return limiter

    limiter = virtual_loop.run(main())
    assert limiter.limit == limiter.policy.limit
    assert 22 <= limiter.policy.state_dict()["centre"] <= 88  # 44 is best
    assert list(limiter.decisions) == told
    assert told[0] == Decided("backend", 4, 8, told[0].because, told[0].at_s)
    assert limiter.completed == 3000
    assert all(decided.because for decided in told)
    assert all(before.new == after.old for before, after in pairwise(told))


async def test_who_has_no_task_a_call_reports_itself() -> None:
    limiter = AdaptiveLimiter(AimdPolicy(initial=4), clock=lambda: 100.0)
    assert limiter.limiter.try_acquire()
    assert limiter.limiter.try_acquire()
    limiter.complete(began=99.0)
    limiter.limiter.release()
    assert limiter.limit == 5
    limiter.complete(began=99.0, ok=False)
    limiter.limiter.release()
    assert limiter.limit == 4


def test_the_last_thousand_decisions_are_kept() -> None:
    decisions = Decisions()
    for size in range(1, 2001):
        decisions.add("pool", size, size + 1, "more")
    decisions.add("pool", 7, 7, "no change")
    assert len(decisions) == 1000
    assert next(iter(decisions)).old == 1001


def test_calls_that_take_long_are_not_waited_for() -> None:
    async def main() -> float:
        limiter = AdaptiveLimiter(UslPolicy())

        async def call() -> None:
            async with limiter:
                await asyncio.sleep(10.0)

        await asyncio.gather(*(call() for _ in range(100)))
        return asyncio.get_running_loop().time()

    assert virtual_loop.run(main()) < 13.0, "four at once would have taken 250 s"

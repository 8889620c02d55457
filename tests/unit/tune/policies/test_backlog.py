from __future__ import annotations

import math
import random

import pytest

from asyncworker.errors import BadParameters
from asyncworker.tune.policies.backlog import BacklogPolicy
from asyncworker.tune.policies.policy import Decision, Observation


def seen(t: float, size: int, **more: float) -> Observation:
    return Observation(t=t, size=size, **more)


def test_the_formula() -> None:
    policy = BacklogPolicy(service_s=0.5)
    # (10/0.85 + (160-10)/15) / 2 = 10.88
    assert policy.tick(seen(0.0, 5, arrivals=10.0, waiting=160)).size == 11


def test_small_changes_are_left_unless_work_is_late() -> None:
    policy = BacklogPolicy(service_s=1.0)
    assert policy.tick(seen(0.0, 20, arrivals=17.5)).size == 20
    assert policy.tick(seen(1.0, 20, arrivals=17.5, oldest_s=16.0)).size == 21


def test_it_shrinks_to_the_most_that_was_wanted_of_late() -> None:
    policy = BacklogPolicy(service_s=1.0, stabilization=60.0)
    policy.tick(seen(0.0, 40, arrivals=34.0))
    assert policy.tick(seen(30.0, 40, arrivals=0.0)).size == 40
    sizes = [policy.tick(seen(30.0 + t, 40, arrivals=0.0)).size for t in range(5, 200, 5)]
    assert sizes[-1] < 10
    assert sizes == sorted(sizes, reverse=True)


def test_speed_is_learned_from_busy_workers_alone() -> None:
    policy = BacklogPolicy()
    assert policy.tick(seen(0.0, 4, waiting=10, completions=2, busy=0.5)) == Decision(8, "work waits, speed unknown")
    policy.tick(seen(5.0, 4, waiting=10, completions=8, busy=1.0))
    assert policy.state_dict()["speed"] == 2.0
    policy.tick(seen(10.0, 4, waiting=0, completions=1, busy=0.2))
    assert policy.state_dict()["speed"] == 2.0


def test_nothing_known_and_nothing_to_do_is_no_change() -> None:
    assert BacklogPolicy().tick(seen(0.0, 7)).size == 7


def test_a_burst_is_worked_off_and_forgotten() -> None:
    rng, policy = random.Random(5), BacklogPolicy(high=64)
    size, waiting, starting, spent, needed, late = 1, 0.0, [], 0.0, 0.0, 0
    for t in range(1200):
        arrivals = max(0.0, rng.gauss(16 if 300 <= t < 600 else 4, 2))
        ready = size - sum(at > t for at in starting)
        done = min(waiting + arrivals, ready * 1.0)
        waiting += arrivals - done
        spent, needed = spent + size, needed + arrivals / 0.85
        late += waiting > 15 * arrivals + 15
        if t % 5 == 0:
            oldest = waiting / max(arrivals, 1.0)
            decision = policy.tick(
                Observation(
                    t=float(t),
                    size=size,
                    arrivals=arrivals,
                    completions=done,
                    waiting=waiting,
                    oldest_s=oldest,
                    busy=done / max(1, ready),
                )
            )
            starting += [t + 10] * max(0, decision.size - size)
            size = decision.size
    assert late < 20
    assert waiting < 20
    assert spent < 2 * needed


@pytest.mark.parametrize("bad", [{"drain": 0.0}, {"utilisation": 0.0}, {"service_s": -1.0}, {"drain": math.nan}])
def test_arguments_that_cannot_work_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadParameters):
        BacklogPolicy(**bad)  # type: ignore[arg-type]

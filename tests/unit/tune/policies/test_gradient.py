from __future__ import annotations

import pytest

from asyncworker.errors import BadParameters
from asyncworker.tune.policies.gradient import GradientPolicy


def test_the_rule_by_hand() -> None:
    policy = GradientPolicy(initial=20)
    policy.on_complete(0.0, 0.1, 20, True)
    assert policy.state_dict()["estimate"] == pytest.approx(20 * 0.8 + 0.2 * (20 + 4))  # no slower: g = 1
    # The mean of 0.1 and 0.4 is 0.25; g = 1.5 * 0.25/0.4 = 0.9375.
    policy.on_complete(0.0, 0.4, 20, True)
    assert policy.state_dict()["estimate"] == pytest.approx(20.8 * 0.8 + 0.2 * (20.8 * 0.9375 + 4))


def test_it_falls_when_calls_take_longer_and_no_further_than_by_half_at_once() -> None:
    policy = GradientPolicy(initial=100)
    for _ in range(20):
        policy.on_complete(0.0, 0.1, 100, True)
    before = policy.limit
    policy.on_complete(0.0, 60.0, 150, True)
    assert before > policy.limit > 0.85 * before
    assert policy.because == "calls take longer than usual"


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    policy = GradientPolicy(initial=20)
    for _ in range(100):
        policy.on_complete(0.0, 0.1, 5, True)
    assert policy.limit == 20


def test_calls_that_fail_at_once_do_not_look_fast() -> None:
    policy = GradientPolicy(initial=20)
    for _ in range(100):
        policy.on_complete(0.0, 0.0001, 20, False)
    assert policy.limit == 20


@pytest.mark.parametrize("bad", [{"tolerance": 0.5}, {"smoothing": 0.0}, {"queue": -1}, {"window": 1}])
def test_arguments_that_cannot_work_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadParameters):
        GradientPolicy(**bad)  # type: ignore[arg-type]

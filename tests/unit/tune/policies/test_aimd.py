from __future__ import annotations

import pytest

from asyncworker.errors import BadParameters
from asyncworker.tune.policies.aimd import AimdPolicy


def test_one_more_after_a_good_call_that_found_the_limit_used() -> None:
    policy = AimdPolicy(initial=10)
    assert policy.on_complete(0.0, 0.001, 10, True) == 11
    assert policy.on_complete(0.0, 0.001, 5, True) == 11
    assert policy.on_complete(0.0, 0.001, 6, True) == 12


def test_a_tenth_fewer_after_a_failure_or_a_timeout() -> None:
    policy = AimdPolicy(initial=10)
    assert policy.on_complete(0.0, 0.001, 1, False) == 9
    assert policy.on_complete(0.0, 6.0, 9, True) == 8
    assert policy.because == "a call timed out"


@pytest.mark.parametrize("bad", [{"backoff": 1.0}, {"backoff": 0.1}, {"timeout": 0.0}])
def test_arguments_that_cannot_work_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadParameters):
        AimdPolicy(**bad)  # type: ignore[arg-type]

"""What every policy owes, asked of each file of the room."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker import registry
from asyncworker.errors import BadParameters
from asyncworker.tune.policies.policy import Decision, Observation

NAMES = registry.names("policy")
LIMITERS = [name for name in NAMES if hasattr(registry.find("policy", name).open(), "on_complete")]
SCALERS = [name for name in NAMES if hasattr(registry.find("policy", name).open(), "tick")]

numbers = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 1e3)
completions = st.lists(st.tuples(numbers, numbers, st.integers(-3, 300), st.booleans()), max_size=200)
observations = st.lists(
    st.builds(
        Observation,
        t=numbers,
        size=st.integers(-3, 300),
        arrivals=numbers,
        completions=numbers,
        waiting=numbers,
        oldest_s=numbers,
        busy=numbers,
        service_s=numbers,
    ),
    max_size=30,
)


def made(name: str, **bounds: int) -> Any:
    return registry.find("policy", name).open(**({} if name == "fixed" else bounds))


def work(policy: Any, seed: int, calls: int = 3000) -> list[int]:
    """Report calls of a backend with twenty servers; returns the limits."""
    rng, t, limits = random.Random(seed), 0.0, []
    for _ in range(calls):
        n = policy.limit
        t += 1 / (min(n, 20) * 50)
        limits.append(policy.on_complete(t, n / (min(n, 20) * 50) * rng.uniform(0.5, 1.5), n, rng.random() > 0.01))
    return limits


def look(policy: Any, seed: int, ticks: int = 40) -> list[Decision]:
    """Report a pool that is asked for 10 to 200 pieces a second; returns the decisions."""
    rng, size, decisions = random.Random(seed), policy.low, []
    for t in range(ticks):
        seen = Observation(
            t=float(t),
            size=size,
            arrivals=rng.uniform(10, 200),
            completions=min(100.0, size * 10.0),
            waiting=rng.choice([0, 50]),
            oldest_s=rng.uniform(0, 30),
            busy=rng.uniform(0.3, 1),
            service_s=0.1,
        )
        decisions.append(policy.tick(seen))
        size = decisions[-1].size
    return decisions


def test_each_file_is_a_policy() -> None:
    assert set(NAMES) == {"fixed", "levels", "aimd", "gradient", "usl", "backlog", "erlang"}
    assert set(LIMITERS) | set(SCALERS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_bounds_are_1_or_more_and_in_order(name: str) -> None:
    policy = made(name, low=3, high=7)
    assert 1 <= policy.low <= policy.high
    for bounds in ({"low": 0, "high": 5}, {"low": 6, "high": 5}):
        with pytest.raises(BadParameters):
            registry.find("policy", name).open(**({"size": 0} if name == "fixed" else bounds))


@pytest.mark.parametrize("name", LIMITERS)
@pytest.mark.parametrize("bounds", [(1, 1), (1, 3), (5, 60), (40, 400)])
def test_limits_keep_their_bounds(name: str, bounds: tuple[int, int]) -> None:
    policy = made(name, low=bounds[0], high=bounds[1])
    limits = work(policy, 1)
    assert all(policy.low <= limit <= policy.high for limit in limits)
    assert limits[-1] == policy.limit
    assert policy.because


@pytest.mark.parametrize("name", SCALERS)
@pytest.mark.parametrize("bounds", [(1, 1), (2, 3), (4, 60)])
def test_sizes_keep_their_bounds_and_have_a_cause(name: str, bounds: tuple[int, int]) -> None:
    policy = made(name, low=bounds[0], high=bounds[1])
    for decision in look(policy, 1):
        assert policy.low <= decision.size <= policy.high
        assert decision.because


@pytest.mark.parametrize("name", LIMITERS)
@given(odd=completions)
@settings(max_examples=40, deadline=None)
def test_odd_completions_are_survived(name: str, odd: list[tuple[float, float, int, bool]]) -> None:
    policy = made(name, low=2, high=50)
    for report in [*odd, (1.0, 0.1, 5, True)]:
        limit = policy.on_complete(*report)
        assert policy.low <= limit <= policy.high
    _finite(policy.state_dict())


@pytest.mark.parametrize("name", SCALERS)
@given(odd=observations)
@settings(max_examples=60, deadline=None)
def test_odd_observations_are_survived(name: str, odd: list[Observation]) -> None:
    policy = made(name, low=2, high=50)
    for observation in odd:
        assert policy.low <= policy.tick(observation).size <= policy.high
    _finite(policy.state_dict())


def _finite(state: Any) -> None:
    json.dumps(state, allow_nan=False)


@pytest.mark.parametrize("name", LIMITERS)
def test_a_limiter_policy_is_deterministic(name: str) -> None:
    assert work(made(name), 7) == work(made(name), 7)


@pytest.mark.parametrize("name", SCALERS)
def test_a_scaler_policy_is_deterministic(name: str) -> None:
    assert look(made(name), 7) == look(made(name), 7)


@pytest.mark.parametrize("name", NAMES)
def test_s42_what_was_learned_outlives_the_process(name: str) -> None:
    first, second = made(name), made(name)
    (work if name in LIMITERS else look)(first, 3)
    state = json.loads(json.dumps(first.state_dict(), allow_nan=False))
    second.load_state_dict(state)
    if name in LIMITERS:
        assert second.limit == first.limit
    third = made(name)
    third.load_state_dict(state)
    assert (work if name in LIMITERS else look)(second, 5) == (work if name in LIMITERS else look)(third, 5)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_brought_within_other_bounds(name: str) -> None:
    wide, narrow = made(name, low=1, high=200), made(name, low=2, high=3)
    (work if name in LIMITERS else look)(wide, 3)
    narrow.load_state_dict(wide.state_dict())
    if name in LIMITERS:
        assert narrow.low <= narrow.limit <= narrow.high
        assert all(narrow.low <= limit <= narrow.high for limit in work(narrow, 4, 300))
    else:
        assert all(narrow.low <= decision.size <= narrow.high for decision in look(narrow, 4))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_state_is_refused_and_changes_nothing(name: str) -> None:
    policy = made(name)
    (work if name in LIMITERS else look)(policy, 3)
    before = policy.state_dict()
    bad: list[dict[str, Any]] = [
        {**before, "nonsense": 1},
        *({**before, key: "x\0"} for key in before if key != "because"),
    ]
    bad += [{**before, key: math.nan} for key, value in before.items() if isinstance(value, float)]
    for state in bad:
        with pytest.raises(BadParameters):
            policy.load_state_dict(state)
    assert policy.state_dict() == before

"""The scaler: within its bounds, stopped by what is short, and never against those who work."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.errors import BadParameters
from asyncworker.fleet.scaler import IDLE_S, Scaler
from asyncworker.tune.policies.policy import Decision, Observation
from asyncworker.tune.sensors.host import Host

GIB = 2**30


def host(cpu: float = 0.5, used: float = 0.5) -> Host:
    return Host(processors=4, cpu_ratio=cpu, memory_bytes=10 * GIB, memory_used_bytes=int(used * 10 * GIB))


def seen(size: int, t: float = 0.0, **more: float) -> Observation:
    return Observation(t=t, size=size, **more)


class Wants:
    """A policy that wants a given number."""

    low, high = 1, 1000

    def __init__(self, size: int) -> None:
        self.size = size

    def tick(self, observation: Observation) -> Decision:
        return Decision(self.size, "it is said so")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


def scaler(wants: int, **options: Any) -> Scaler:
    return Scaler(policy=Wants(wants), **options)


def test_bounds_hold() -> None:
    assert scaler(100, low=2, high=8).decide(seen(4), host()).size == 8
    assert scaler(1, low=2, high=8).decide(seen(4), host()).size == 2
    assert scaler(1, low=2, high=8).decide(seen(0), host(cpu=1.0, used=1.0)).size == 2, "the least are always there"


@pytest.mark.parametrize(
    ("machine", "size", "because"),
    [
        (host(cpu=0.96), 4, "the processors are 96% busy; else 8: it is said so"),
        (host(used=0.9), 4, "90% of the memory is in use; else 8: it is said so"),
        (host(used=0.64), 6, "there is memory for 2 more; else 8: it is said so"),
        (host(), 7, "there is memory for 4 more"),
    ],
)
def test_s27_what_is_short_stops_growth_and_is_told(machine: Host, size: int, because: str) -> None:
    decision = scaler(8).decide(seen(4), machine, worker_bytes=GIB if size != 7 else 1.1 * GIB)
    assert decision.size == size
    assert decision.because.startswith(because.partition(" for 4")[0])


def test_s27_busy_workers_are_not_stopped_because_they_are_busy() -> None:
    assert scaler(4).decide(seen(4, busy=1.0, waiting=1000), host(cpu=1.0, used=1.0)).size == 4
    assert scaler(8).decide(seen(4, busy=1.0, waiting=1000), host(cpu=1.0, used=1.0)).size == 4
    assert scaler(3).decide(seen(4), host(cpu=1.0, used=1.0)).size == 3, "fewer is always possible"


def test_a_backend_that_bears_no_more_stops_growth() -> None:
    decision = scaler(8).decide(seen(2), host(), backend=3.7)
    assert decision == Decision(3, "what they work with bears 3.7; else 8: it is said so")
    assert scaler(8).decide(seen(0, waiting=1), host(), backend=0.1).size == 1


def test_s26_from_nobody_to_one_and_back() -> None:
    one = Scaler(low=0, high=8)
    assert one.decide(seen(0), host()) == Decision(0, "nothing to do")
    assert one.decide(seen(0, waiting=1), host(cpu=1.0, used=1.0)) == Decision(1, "work waits, and nobody works")
    assert one.decide(seen(0), host(), scheduled=1) == Decision(1, "work will be due, and nobody works")
    assert one.decide(seen(1, t=10.0), host(), running=1).size == 1
    assert one.decide(seen(1, t=20.0), host()).size == 1
    assert one.decide(seen(1, t=20.0 + IDLE_S - 1), host()).size == 1
    assert one.decide(seen(1, t=20.0 + IDLE_S), host(), scheduled=1).size == 1
    assert one.decide(seen(1, t=21.0 + IDLE_S), host()).size == 1
    assert one.decide(seen(1, t=21.0 + 2 * IDLE_S), host()) == Decision(0, "nothing to do for 60 s")


def test_a_queue_above_its_threshold_forces_one_more_at_a_time() -> None:
    one = scaler(2, queue_threshold=100)
    assert one.decide(seen(2), host(), deepest=100).size == 2
    assert one.decide(seen(2), host(), deepest=101) == Decision(3, "101 wait in one queue, more than 100")
    assert one.decide(seen(3), host(), deepest=200, starting=1).size == 2
    assert one.decide(seen(2), host(cpu=0.99), deepest=101).size == 2


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 20),
    st.lists(
        st.builds(
            seen,
            st.integers(0, 40),
            st.floats(0, 1e6),
            waiting=st.floats(0, 1e9),
            arrivals=st.floats(0, 1e9),
            completions=st.floats(0, 1e9),
            busy=st.floats(0, 1),
            oldest_s=st.floats(0, 1e6),
        ),
        max_size=20,
    ),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 100),
)
def test_s25_whatever_is_seen_there_are_never_too_many(
    low: int, reports: list[Observation], cpu: float, used: float, backend: float
) -> None:
    one = Scaler(low=low, high=20)
    for report in reports:
        decision = one.decide(report, host(cpu, used), worker_bytes=GIB / 10, backend=backend)
        assert low <= decision.size <= 20
        if decision.size > max(report.size, low, 1):
            assert cpu <= 0.95
            assert used <= 0.85


@pytest.mark.parametrize(
    "bad",
    [
        {"low": -1},
        {"low": 3, "high": 2},
        {"low": 0, "high": 0},
        {"cpu_ratio": 0.0},
        {"cpu_ratio": 1.5},
        {"memory_ratio": math.nan},
    ],
)
def test_what_cannot_work_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadParameters):
        Scaler(**bad)

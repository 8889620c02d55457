"""Lingering: only while others are expected in time."""

from __future__ import annotations

import pytest

from asyncworker.work.linger import Linger


def steady(gap: float, linger: float = 0.005, slo: float | None = None) -> tuple[Linger, float]:
    """Return one that saw items come each *gap* seconds, and when the last came."""
    policy = Linger(linger, slo=slo)
    for number in range(200):
        policy.on_item(number * gap)
    return policy, 199 * gap


def test_nobody_is_waited_for_at_first() -> None:
    assert Linger(1.0).wait(0.0, 0.0, 0.0) == 0


def test_an_item_waits_while_others_are_expected() -> None:
    policy, now = steady(0.0005)
    assert policy.rate == pytest.approx(2000)
    assert policy.wait(now, now, 0.0) == pytest.approx(0.004), "eight mean gaps"
    assert policy.wait(now, now - 0.002, 0.0) == pytest.approx(0.003), "and no longer than linger in all"
    assert policy.wait(now, now - 0.0046, 0.0) == 0, "hardly anybody comes in the rest"
    assert policy.wait(now, now - 1, 0.0) == 0


def test_a_rare_item_does_not_wait() -> None:
    policy, now = steady(0.01)
    assert policy.wait(now, now, 0.0) == 0


def test_a_silence_ends_the_wait() -> None:
    policy, now = steady(0.00025)
    assert policy.wait(now + 0.001, now, 0.0) == pytest.approx(0.001)
    assert policy.wait(now + 0.0021, now, 0.0) == 0


def test_the_slo_bounds_wait_and_work_together() -> None:
    policy, now = steady(0.0001, 0.1, 0.05)
    assert policy.wait(now, now, 0.0345) == pytest.approx(0.0005)
    assert policy.wait(now, now, 0.03495) == 0
    assert policy.wait(now, now - 0.03, 0.01) == 0

from __future__ import annotations

from asyncworker.fleet.crashes import LONGEST_S, YOUNG_S, Crashes


def test_s30_a_loop_of_crashes_backs_off_and_is_told() -> None:
    crashes = Crashes()
    assert [crashes.died("a", 0.1) for _ in range(4)] == [0.0, 1.0, 2.0, 4.0]
    assert crashes.looping == ["a"]
    assert crashes.died("b", 0.1) == 0.0, "each for itself"
    assert [crashes.died("a", 0.1) for _ in range(10)][-1] == LONGEST_S
    assert crashes.total == 15


def test_who_lives_long_is_forgiven() -> None:
    crashes = Crashes()
    for _ in range(5):
        crashes.died("a", 1.0)
    crashes.lives("a", YOUNG_S - 1)
    assert crashes.looping
    assert crashes.died("a", YOUNG_S) == 0.0
    assert not crashes.looping
    for _ in range(5):
        crashes.died("a", 1.0)
    crashes.lives("a", YOUNG_S)
    assert not crashes.looping
    crashes.died("b", 0.0)
    crashes.forget("b")
    crashes.forget("nobody")
    assert crashes.died("b", 0.0) == 0.0


def test_who_did_a_job_was_of_use() -> None:
    crashes = Crashes()
    assert [crashes.died("a", 1.0, jobs=1) for _ in range(5)] == [0.0] * 5
    assert not crashes.looping
    assert [crashes.died("a", 1.0) for _ in range(2)] == [1.0, 2.0]

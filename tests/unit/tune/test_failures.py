from __future__ import annotations

from asyncworker.tune.failures import HOLD, TRIES, Failures


def test_failures_that_go_with_the_load_show_what_is_too_much() -> None:
    failures = Failures()
    assert failures.answer(0.02, 100, 40, 1).limit is None
    answer = failures.answer(0.5, 100, 40, 1)
    assert (answer.limit, answer.because, answer.hold) == (28, "50% of calls fail", HOLD)
    assert failures.answer(0.0, 100, 28, 1).too_many == 40


def test_failures_that_stay_are_usual() -> None:
    failures, limit = Failures(), 40
    for _ in range(TRIES):
        limit = round(failures.answer(0.5, 100, limit, 1).limit or 0)
    answer = failures.answer(0.5, 100, limit, 1)
    assert (answer.limit, answer.because) == (40, "50% of calls fail at any limit")
    assert failures.answer(0.5, 100, 40, 1) == (None, "", 0, 0), "and are borne"


def test_at_the_least_limit_there_is_no_further_back() -> None:
    failures = Failures()
    assert failures.answer(0.9, 50, 1, 1).limit == 0.7
    assert failures.answer(0.9, 50, 1, 1).limit == 1

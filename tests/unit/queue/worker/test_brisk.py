"""Claims of short jobs grow, and shrink at once where jobs take long."""

from __future__ import annotations

import pytest

from asyncworker.queue.job import Op, Settled
from asyncworker.queue.worker.brisk import EACH_S, WIDEST, Brisk
from tests.support.clock import FrozenClock


def claims(brisk: Brisk, clock: FrozenClock, took_s: float, rounds: int) -> list[int]:
    """Return how much may be claimed in each of some rounds, where all that is claimed takes so long a job."""
    found = []
    for _ in range(rounds):
        room, want = brisk.widen({"maps": 2, "other": 5}, 7, 200, {"other": 3})
        assert room["other"] == 5
        assert want == room["maps"] + 5
        brisk.took({"maps": room["maps"], "other": 3})
        clock.advance(took_s * room["maps"])
        found.append(room["maps"])
    return found


def test_short_jobs_are_claimed_by_more_and_more() -> None:
    clock = FrozenClock()
    assert claims(Brisk(["maps"], clock), clock, EACH_S / 2, 6) == [2, 4, 8, 16, 2 * WIDEST, 2 * WIDEST]


def test_long_jobs_are_not() -> None:
    clock = FrozenClock()
    brisk = Brisk(["maps"], clock)
    assert claims(brisk, clock, 2 * EACH_S, 3) == [2, 2, 2]
    claims(brisk, clock, EACH_S / 2, 4)
    assert claims(brisk, clock, 2 * EACH_S, 3)[1:] == [2, 2]


def test_who_was_given_less_than_asked_for_stays() -> None:
    clock = FrozenClock()
    brisk = Brisk(["maps"], clock)
    brisk.widen({"maps": 2}, 2, 200, {})
    brisk.took({"maps": 1})
    assert brisk.widen({"maps": 2}, 2, 200, {}) == ({"maps": 2}, 2)


def test_while_some_run_nothing_grows() -> None:
    clock = FrozenClock()
    brisk = Brisk(["maps"], clock)
    claims(brisk, clock, EACH_S / 2, 3)
    assert brisk.widen({"maps": 1}, 1, 200, {"maps": 1}) == ({"maps": 1}, 1)


def test_a_claim_has_its_bound() -> None:
    clock = FrozenClock()
    brisk = Brisk(["maps"], clock)
    claims(brisk, clock, EACH_S / 2, 5)
    assert brisk.widen({"maps": 20}, 20, 100, {})[1] == 100


@pytest.mark.parametrize("op", [Op.RETRY, Op.FAILED])
def test_short_jobs_that_fail_are_no_reason_for_more(op: Op) -> None:
    clock = FrozenClock()
    brisk = Brisk(["maps"], clock)
    assert claims(brisk, clock, EACH_S / 2, 3) == [2, 4, 8]
    brisk.ended([Settled("a", Op.SUCCEEDED, "maps"), Settled("b", op, "maps")])
    assert claims(brisk, clock, EACH_S / 2, 2) == [2, 4]
    brisk.ended([Settled("a", Op.SUCCEEDED, "maps"), Settled("b", op, "other")])
    assert claims(brisk, clock, EACH_S / 2, 1) == [8]

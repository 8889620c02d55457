from __future__ import annotations

import random

from asyncworker.tune.change import Change

COUNTING = 0.001


def test_two_in_a_row_far_off_are_a_change() -> None:
    change = Change()
    assert change.judge(0.3, COUNTING) == 0
    assert change.judge(0.02, COUNTING) == 0
    assert change.judge(-0.3, COUNTING) == 0
    assert change.judge(-0.3, COUNTING) < 0


def test_many_a_little_off_the_same_way_are_one_too() -> None:
    change = Change()
    found = [change.judge(0.09, COUNTING) for _ in range(12)]
    assert found[0] == 0
    assert any(one > 0 for one in found)
    change.forget()
    assert change.judge(0.09, COUNTING) == 0


def test_what_always_varies_is_no_change_in_the_end() -> None:
    rng, change = random.Random(11), Change.of(0.1)
    found = [change.judge(rng.gauss(0, 0.25), COUNTING) != 0 for _ in range(400)]
    assert sum(found[100:]) < 0.1 * sum(found) + 12
    assert 0.1 < change.unusual**0.5 < 0.4
    for _ in range(200):
        change.judge(rng.gauss(0, COUNTING**0.5), COUNTING)
    assert change.unusual < 0.001, "when it is quiet again, that is noticed, too"

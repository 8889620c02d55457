from __future__ import annotations

import gc

import pytest

from asyncworker.events import Bus, Decided
from asyncworker.testing import FrozenClock
from asyncworker.tune.actuators.limiter import Limiter
from asyncworker.tune.adaptive import AdaptiveLimiter
from asyncworker.tune.decisions import MOST_KINDS, Decisions, cause, undone
from asyncworker.tune.policies.fixed import FixedPolicy
from asyncworker.tune.policies.policy import Decision, Observation
from asyncworker.tune.tuner import Tuner


@pytest.mark.parametrize(
    ("because", "kind"),
    [
        ("start-up: 1.23e+04/s at 8, still growing", "start-up"),
        ("probe, most work at 12.5", "probe"),
        ("the backend is slower", "the backend is slower"),
        ("a cliff at 30", "a cliff at n"),
        ("7% of calls fail at any limit", "n% of calls fail at any limit"),
        ("12/s arrive, 3 wait, one does 2/s", "n/s arrive"),
        ("undone: 3/s after 5/s before, while work waits", "undone"),
        ("level critical", "level critical"),
        ("", ""),
    ],
)
def test_a_cause_is_a_clause_without_its_numbers(because: str, kind: str) -> None:
    assert cause(because) == kind


def made(*changes: tuple[str, int, int, str]) -> list[Decided]:
    return [Decided(*change) for change in changes]


def test_what_is_taken_back_is_the_whole_way_that_led_there() -> None:
    changes = made(
        ("pool", 4, 5, "more"),
        ("pool", 5, 8, "more"),
        ("other", 1, 2, "more"),
        ("pool", 8, 12, "more"),
        ("pool", 12, 5, "undone: 3/s after 5/s before"),
        ("pool", 5, 6, "more"),
    )
    assert undone(changes) == [False, True, False, True, False, False]


def test_what_went_the_other_way_or_took_back_itself_is_not_undone() -> None:
    changes = made(
        ("pool", 9, 4, "less"),
        ("pool", 4, 8, "probe, most work at 4"),
        ("pool", 8, 5, "a cliff at 8"),
        ("pool", 5, 4, "undone: 1/s after 2/s before"),
    )
    assert undone(changes) == [False, True, False, False]
    assert undone([]) == []


def test_what_led_to_a_size_that_is_kept_is_not_undone() -> None:
    changes = made(
        ("task mail", 128, 256, "start-up: 9/s at 128, still growing"),
        ("task mail", 256, 512, "start-up: 12/s at 256, still growing"),
        ("task mail", 512, 1000, "start-up: 15/s at 512, still growing"),
        ("task mail", 1000, 826, "a cliff at 996"),
    )
    assert undone(changes) == [False, False, True, False]
    down = made(("pool", 9, 6, "level low"), ("pool", 6, 2, "level low"), ("pool", 2, 5, "undone: 1/s"))
    assert undone(down) == [False, True, False]


def test_decisions_are_dated_told_and_counted_by_name_and_cause() -> None:
    bus, told, clock = Bus(), [], FrozenClock()
    bus.listen(Decided, told.append)
    decisions = Decisions(bus, clock=clock)
    decisions.add("pool", 1, 2, "level high")
    clock.advance(5)
    decisions.add("pool", 2, 3, "level high")
    decisions.add("pool", 3, 3, "level high")
    assert list(decisions) == told
    assert told[1].at_s - told[0].at_s == 5
    assert decisions.made == {("pool", "level high"): 2}


def test_names_made_of_ids_do_not_fill_the_memory() -> None:
    decisions = Decisions()
    for number in range(2 * MOST_KINDS):
        decisions.add(f"job {number}", 1, 2, "more")
    assert len(decisions.made) == MOST_KINDS


def test_what_is_sized_can_be_looked_at_for_as_long_as_it_is_used() -> None:
    decisions = Decisions()
    limiter = AdaptiveLimiter(FixedPolicy(3), Limiter(3, name="mail"), decisions=decisions, clock=lambda: 1.0)
    assert limiter.limiter.try_acquire()
    limiter.complete(began=0.5)
    seen = decisions.watched["mail"]
    assert (seen.size, seen.in_use, seen.completed) == (3, 1, 1)
    del seen, limiter
    gc.collect()
    assert not decisions.watched


def test_a_tuner_counts_what_it_saw_done() -> None:
    times = iter((1.0, 2.0, 4.0))
    policy = FixedPolicy(2)
    tuner = Tuner(Limiter(2, name="crew"), lambda: Observation(t=next(times), size=2, completions=10.0), policy)
    assert tuner.tick() == Decision(2, "fixed")
    tuner.tick()
    tuner.tick()
    assert tuner.completed == 30
    assert tuner.decisions.watched["crew"] is tuner

from __future__ import annotations

import msgspec

from asyncworker.tune.decisions import Decisions
from asyncworker.tune.rollup import Rollup, Rollups


class Thing:
    """What is watched: sized, and counted."""

    def __init__(self, name: str, size: int = 4) -> None:
        self.name, self.size, self.in_use, self.completed = name, size, 0, 0.0


def test_a_stretch_says_what_changed_how_often_and_what_was_done() -> None:
    decisions, mail, idle = Decisions(), Thing("mail"), Thing("idle")
    decisions.add("mail", 1, 4, "of before")
    decisions.watch(mail)
    decisions.watch(idle)
    rollups = Rollups(decisions, 100.0, "host:1")
    for old, new, because in ((4, 8, "probe, most work at 4"), (8, 2, "undone: 1/s"), (2, 5, "probe, most work at 5")):
        decisions.add("mail", old, new, because)
    decisions.add("pool", 1, 2, "level high")
    mail.completed = 50.0
    assert rollups.take(110.0) == [
        Rollup(110.0, 10.0, "mail", 4, 5, 2, 8, "host:1", {"probe": 2, "undone": 1}, 1, 5.0),
        Rollup(110.0, 10.0, "pool", 1, 2, 1, 2, "host:1", {"level high": 1}, 0, None),
    ]
    assert rollups.take(120.0) == []
    mail.completed = 70.0
    assert rollups.take(130.0) == [Rollup(130.0, 10.0, "mail", 4, 4, 4, 4, "host:1", {}, 0, 2.0)]


def test_more_changes_than_are_kept_are_still_counted() -> None:
    decisions = Decisions(kept=10)
    rollups = Rollups(decisions, 0.0)
    for size in range(1, 101):
        decisions.add("pool", size, size + 1, "more")
    (one,) = rollups.take(10.0)
    assert one.causes == {"more": 100}
    assert (one.first, one.last) == (91, 101)


def test_what_is_counted_anew_is_no_negative_rate() -> None:
    decisions, thing = Decisions(), Thing("map")
    decisions.watch(thing)
    thing.completed = 100.0
    rollups = Rollups(decisions, 0.0)
    thing = Thing("map")
    decisions.watch(thing)
    decisions.add("map", 4, 8, "more")
    assert rollups.take(10.0)[0].rate == 0.0


def test_a_rollup_is_small_and_can_be_read_back() -> None:
    one = Rollup(1.7e9, 10.0, "mail", 4, 4, 4, 4, "host:1", {}, 0, 2.5)
    packed = msgspec.json.encode(one)
    assert len(packed) < 200
    assert msgspec.json.decode(packed, type=Rollup) == one

"""Death is a beat that was seen to stand still for that worker's lease, by one's own monotonic clock."""

from __future__ import annotations

from asyncworker.events import Bus
from asyncworker.queue.worker.sweeper import Sweeper


class Frozen:
    def __init__(self) -> None:
        self.s = 100.0

    def monotonic(self) -> float:
        return self.s

    def now(self) -> float:
        return 0.0


def sweeper() -> tuple[Sweeper, Frozen]:
    clock = Frozen()
    return Sweeper(None, "me", bus=Bus(), clock=clock), clock  # type: ignore[arg-type] - its broker is not asked


def test_a_beat_that_stands_still_for_its_lease_is_a_death() -> None:
    it, clock = sweeper()
    assert it.dead({"a": "5:9:1500", "me": "1:1:1500"}) == []
    clock.s += 1.4
    assert it.dead({"a": "5:9:1500", "me": "1:1:1500"}) == []
    clock.s += 0.2
    assert it.dead({"a": "5:9:1500", "me": "1:1:1500"}) == [("a", "5:9:1500")]


def test_a_beat_that_moved_starts_anew() -> None:
    it, clock = sweeper()
    it.dead({"a": "5:9:1000"})
    clock.s += 0.9
    assert it.dead({"a": "5:10:1000"}) == []
    clock.s += 0.9
    assert it.dead({"a": "5:10:1000"}) == []
    clock.s += 0.2
    assert it.dead({"a": "5:10:1000"}) == [("a", "5:10:1000")]


def test_each_worker_has_the_lease_it_named() -> None:
    it, clock = sweeper()
    it.dead({"short": "0:0:1000", "long": "0:0:60000"})
    clock.s += 2
    assert it.dead({"short": "0:0:1000", "long": "0:0:60000"}) == [("short", "0:0:1000")]


def test_an_outage_is_nobodys_death() -> None:
    it, clock = sweeper()
    it.dead({"a": "5:9:1000"})
    clock.s += 5
    it.look(None)
    assert it.dead({"a": "5:9:1000"}) == []


def test_who_left_is_forgotten() -> None:
    it, clock = sweeper()
    it.dead({"a": "5:9:1000"})
    it.dead({})
    clock.s += 5
    assert it.dead({"a": "5:9:1000"}) == []

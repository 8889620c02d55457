from __future__ import annotations

import gc

from asyncworker.tune.garbage import Pauses, advice
from asyncworker.tune.histogram import LogHistogram


def pauses(*, young: int = 0, whole: tuple[float, ...] = ()) -> dict[int, LogHistogram]:
    by_generation = {generation: LogHistogram() for generation in range(3)}
    for _ in range(young):
        by_generation[0].add(0.0001)
    for seconds in whole:
        by_generation[2].add(seconds)
    return by_generation


def test_collections_are_timed_while_it_is_open() -> None:
    measured = Pauses()
    measured.open()
    gc.collect()
    measured.close()
    assert measured.by_generation[2].count >= 1
    before = measured.by_generation[2].count
    gc.collect()
    assert measured.by_generation[2].count == before
    assert measured._on not in gc.callbacks
    measured.close()


def test_no_advice_while_pauses_hurt_nobody() -> None:
    assert advice((3, 13, 0), pauses(young=10, whole=(0.001,)), 100, frozen=0, objects=10) == []
    assert advice((3, 13, 0), pauses(), 0, frozen=0, objects=10) == []


def test_long_pauses_are_answered_by_freezing_what_stays() -> None:
    (freeze,) = advice((3, 13, 0), pauses(whole=(0.05,)), 100, frozen=0, objects=300_000)
    assert "gc.freeze()" in freeze
    assert "300,000" in freeze
    assert "0.050 s" in freeze
    assert advice((3, 13, 0), pauses(whole=(0.05,)), 100, frozen=1, objects=300_000) == []


def test_the_threshold_is_blamed_where_young_collections_are_many() -> None:
    found = advice((3, 13, 0), pauses(young=1_000, whole=(0.05,)), 100, frozen=1, objects=10)
    assert len(found) == 1
    assert "set_threshold" in found[0]


def test_incremental_pythons_are_told_apart() -> None:
    for version, incremental in (((3, 14, 0), True), ((3, 14, 4), True), ((3, 14, 5), False), ((3, 15, 0), False)):
        text = " ".join(advice(version, pauses(young=1_000, whole=(0.05,)), 100, frozen=1, objects=10))
        assert ("incrementally" in text) is incremental, version

from __future__ import annotations

from asyncworker.fleet.stillness import Stillness
from asyncworker.share.board import Gauges


def gauges(up_s: float, idle_s: float, *, running: int = 0, ended: int = 0) -> Gauges:
    return Gauges(stage=1, running=running, ended=ended, idle_us=int(idle_s * 1e6), up_us=int(up_s * 1e6))


def looked(*looks: tuple[int, dict[str, Gauges]]) -> float:
    """Return the stillness after looks a second apart: what waits, and who works."""
    stillness = Stillness()
    for at, (waiting, workers) in enumerate(looks):
        stillness.look(float(at), waiting, workers)
    return stillness.seconds


def test_jobs_that_nobody_takes_though_there_is_room_make_it_grow() -> None:
    assert looked(*((5, {"a": gauges(at, at), "b": gauges(at, 0)}) for at in range(10))) == 9


def test_it_begins_anew_when_anything_moves() -> None:
    still = [(5, {"a": gauges(at, at, ended=at // 5)}) for at in range(10)]
    assert looked(*still) == 4


def test_what_does_not_wait_is_no_stillness() -> None:
    assert looked(*((0, {"a": gauges(at, at)}) for at in range(10))) == 0


def test_who_is_full_may_take_its_time() -> None:
    assert looked(*((5, {"a": gauges(at, 0, running=3)}) for at in range(10))) == 0


def test_without_workers_others_complain() -> None:
    assert looked(*((5, {}) for _ in range(10))) == 0


def test_a_worker_that_is_new_at_each_look_shows_nothing() -> None:
    assert looked(*((5, {f"a {at}": gauges(1, 1)}) for at in range(10))) == 0

"""Who stays awake for an answer, and for how long."""

from __future__ import annotations

import time

import pytest

from asyncworker.queue.near import NEAR_S, PATIENCE, RECENT_S, Near


class Watch:
    """A clock that stands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def answers(self, near: Near, after: float, times: int = 1) -> None:
        for _ in range(times):
            near.sent()
            self.now += after
            near.answered()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def test_a_new_server_is_taken_for_near_once_it_has_answered(watch: Watch):
    near = Near(2)
    assert not near.sent()
    near.answered()
    assert near.sent()


def test_for_a_command_now_and_then_nobody_stays_awake(watch: Watch):
    near = Near(2)
    watch.answers(near, NEAR_S / 2, 10)
    watch.now += 2 * RECENT_S
    assert not near.sent()
    watch.now += NEAR_S / 2
    near.answered()
    assert near.sent()


def test_nobody_stays_awake_for_longer_than_it_pays(watch: Watch):
    near = Near(2)
    near.sent()
    watch.now += 0.9 * NEAR_S
    assert near.worth()
    watch.now += 0.2 * NEAR_S
    assert not near.worth()


def test_for_a_server_far_away_nobody_stays_awake(watch: Watch):
    near = Near(2)
    watch.answers(near, 2 * NEAR_S, 2 * PATIENCE)
    assert not near.sent()
    watch.answers(near, 2 * NEAR_S, 1000)
    assert not near.sent()


def test_a_server_that_was_slow_for_a_while_is_near_again_by_one_answer(watch: Watch):
    near = Near(2)
    watch.answers(near, 10 * NEAR_S, PATIENCE)
    assert not near.sent()
    watch.answers(near, NEAR_S / 2)
    assert near.sent()


def test_some_slow_answers_are_borne(watch: Watch):
    near = Near(2)
    watch.answers(near, NEAR_S / 2, 10)
    watch.answers(near, 5 * NEAR_S, 3)
    assert near.sent()


def test_on_a_single_processor_the_server_is_let_run(watch: Watch):
    near = Near(1)
    watch.answers(near, NEAR_S / 2, 10)
    assert not near.sent()

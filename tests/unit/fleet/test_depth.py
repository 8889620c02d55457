from __future__ import annotations

import pytest

from asyncworker.fleet.depth import DepthSensor
from asyncworker.queue.job import Depth, QueueDepth


def depth(running: int = 0, **queues: QueueDepth) -> Depth:
    return Depth(queues, running, {})


def test_what_came_and_went_between_two_looks() -> None:
    sensor = DepthSensor()
    first = sensor.read(depth(2, a=QueueDepth(queued=10, succeeded=5)), 0.0, size=2, worker_s=0.0, busy=1.0)
    assert (first.arrivals, first.completions, first.waiting) == (0.0, 0.0, 10)
    after = depth(4, a=QueueDepth(queued=20, succeeded=13, failed=1, retried=1, cancelled=2, oldest_s=3.0))
    seen = sensor.read(after, 2.0, size=2, worker_s=4.0, busy=0.5)
    assert seen.completions == (8 + 1 + 1) / 2
    assert seen.arrivals == (10 + 2 + 8 + 1 + 1 + 2) / 2
    assert (seen.waiting, seen.oldest_s, seen.busy, seen.size, seen.t) == (20, 3.0, 0.5, 2, 2.0)


def test_delayed_jobs_arrive_when_they_are_due() -> None:
    sensor = DepthSensor()
    sensor.read(depth(a=QueueDepth(scheduled=100, enqueued=100)), 0.0, size=1, worker_s=1.0, busy=0.0)
    seen = sensor.read(depth(a=QueueDepth(scheduled=200, enqueued=200)), 1.0, size=1, worker_s=1.0, busy=0.0)
    assert seen.arrivals == 0.0
    seen = sensor.read(depth(a=QueueDepth(queued=150, scheduled=50, enqueued=200)), 2.0, size=1, worker_s=1.0, busy=0.0)
    assert seen.arrivals == 150.0


def test_paused_queues_do_not_wait() -> None:
    paused = QueueDepth(queued=50, oldest_s=100.0, paused=True)
    seen = DepthSensor().read(
        depth(a=paused, b=QueueDepth(queued=1, oldest_s=2.0)), 0.0, size=1, worker_s=1.0, busy=0.0
    )
    assert (seen.waiting, seen.oldest_s) == (1, 2.0)
    empty = QueueDepth(queued=0, oldest_s=9.0)
    assert DepthSensor().read(depth(a=empty), 0.0, size=1, worker_s=1.0, busy=0.0).oldest_s == 0.0


@pytest.mark.parametrize(("worker_s", "completions"), [(8.0, 5.0), (4.0, 10.0), (0.0, 0.0)])
def test_completions_are_told_as_if_all_worked_all_the_time(worker_s: float, completions: float) -> None:
    sensor = DepthSensor()
    sensor.read(depth(a=QueueDepth()), 0.0, size=4, worker_s=0.0, busy=1.0)
    seen = sensor.read(depth(a=QueueDepth(succeeded=10)), 2.0, size=4, worker_s=worker_s, busy=1.0)
    assert seen.completions == completions


def test_counts_and_times_that_run_backwards_are_nothing() -> None:
    sensor = DepthSensor()
    sensor.read(depth(9, a=QueueDepth(queued=5, succeeded=50)), 5.0, size=1, worker_s=1.0, busy=0.0)
    seen = sensor.read(depth(0, a=QueueDepth()), 6.0, size=1, worker_s=1.0, busy=0.0)
    assert (seen.arrivals, seen.completions) == (0.0, 0.0)
    seen = sensor.read(depth(0, a=QueueDepth(succeeded=5)), 6.0, size=1, worker_s=1.0, busy=0.0)
    assert (seen.arrivals, seen.completions) == (0.0, 0.0)

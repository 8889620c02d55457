from __future__ import annotations

import pytest

from asyncworker.events import BrokerDisrupted, Bus, JobEnd, JobsEnded
from asyncworker.tune.sensors.jobs import BOUNDS_S, OTHER, JobsSensor


def ended(bus: Bus, *ends: JobEnd) -> None:
    bus.emit(JobsEnded(epoch="e", ends=list(ends)))


def test_times_are_counted_by_task_and_queue() -> None:
    bus = Bus()
    sensor = JobsSensor(bus, {"mail"}, {"default"})
    ended(bus, JobEnd("mail", "default", "succeeded", 0.005, 0.02), JobEnd("mail", "default", "failed", 0.0051, 1000.0))
    waits, wait_sum = sensor.wait["mail", "default"].read()
    assert waits[:2] == [1, 1]
    assert sum(waits) == 2
    assert wait_sum == pytest.approx(0.0101)
    durations, _ = sensor.duration["mail", "default"].read()
    assert durations[BOUNDS_S.index(0.025)] == 1
    assert durations[-1] == 1


def test_a_later_attempt_has_a_duration_but_no_wait() -> None:
    bus = Bus()
    sensor = JobsSensor(bus, {"mail"}, {"default"})
    ended(bus, JobEnd("mail", "default", "succeeded", -1.0, 0.02))
    assert sum(sensor.wait["mail", "default"].read()[0]) == 0
    assert sum(sensor.duration["mail", "default"].read()[0]) == 1


def test_names_that_nobody_registered_make_one_series() -> None:
    bus, tasks = Bus(), {"mail"}
    sensor = JobsSensor(bus, tasks, {"default"})
    for number in range(10_000):
        ended(bus, JobEnd(f"task-{number}", f"queue-{number}", "unknown", 0.0, 0.0))
    assert set(sensor.duration) == {(OTHER, OTHER)}
    tasks.add("late")
    ended(bus, JobEnd("late", "default", "succeeded", 0.0, 0.0))
    assert set(sensor.duration) == {(OTHER, OTHER), ("late", "default")}


def test_disruptions_are_counted_until_it_is_closed() -> None:
    bus = Bus()
    sensor = JobsSensor(bus, (), ())
    bus.emit(BrokerDisrupted(broker="redis://h", error="gone"))
    sensor.close()
    bus.emit(BrokerDisrupted(broker="redis://h", error="gone"))
    assert sensor.disruptions == 1
    assert not bus.wants(JobsEnded)


def test_attempts_are_counted_by_how_they_ended() -> None:
    bus = Bus()
    sensor = JobsSensor(bus, {"mail"}, {"default"})
    statuses = ["succeeded", "retrying", "succeeded"]
    bus.emit(JobsEnded(epoch="e", ends=[JobEnd("mail", "default", one, 0.0, 0.1) for one in statuses]))
    bus.emit(JobsEnded(epoch="e", ends=[JobEnd("what", "default", "unknown", -1.0, 0.0)]))
    assert sensor.attempts == {("mail", "default"): {"succeeded": 2, "retrying": 1}, (OTHER, "default"): {"unknown": 1}}

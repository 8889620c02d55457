"""What one process tells under ``/metrics``: its jobs, limits, decisions, pools, loop and memory, on one sheet.

Everything here is this process's own, and read without waiting for the event loop: a loop that is held is when these
are wanted most. Names of series come from what was registered, and there are bounds for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from asyncworker.daemon.catalogue import CATALOGUE, DOUBLINGS
from asyncworker.daemon.instruments import Instruments
from asyncworker.daemon.sheet import Labels, Series, Sheet, Spread
from asyncworker.engine import Engine
from asyncworker.mapreduce.job import MAP_TASK
from asyncworker.tune.decisions import Decisions
from asyncworker.tune.histogram import LogHistogram
from asyncworker.tune.sensors.jobs import JobsSensor
from asyncworker.tune.sensors.memory import MemoryOptimizer
from asyncworker.tune.sensors.sensor import Readable, Timed

ALONE = "worker"
"""The name of a process that has no supervisor to give it another."""

READINGS = {
    "loop_utilisation_ratio": "event_loop_busy_ratio",
    "memory_rss_bytes": "process_resident_memory_bytes",
    "memory_objects": "process_objects",
    "memory_leaks_suspected": "memory_leaks_suspected",
    "pool_connections": "pool_connections",
    "pool_waiters": "pool_waiters",
    "batch_size": "batch_size",
    "loop_held_total": "event_loop_stalls_total",
    "gc_pause_seconds_total": "gc_pause_seconds_total",
    "pool_leaks_total": "pool_leaks_total",
}
DURATIONS = {
    "loop_lag_seconds": "event_loop_lag_seconds",
    "pool_acquire_seconds": "pool_acquire_seconds",
    "batch_wait_seconds": "batch_wait_seconds",
}
"""The names of sensors' readings, and of their metrics. What is not here is not told."""
ENDS = ("succeeded", "failed")
"""Told from the start: Prometheus sees no increase in a series that begins with its first event."""


class ProcessMetrics:
    """Read sheets; each has all that was measured until then.

    Args:
        instruments: None where they are switched off.
        decisions: what is told of; else those of the engine's own optimizer.
        target: the name of this process.
    """

    def __init__(
        self,
        engine: Engine,
        instruments: Instruments | None,
        decisions: Decisions | None = None,
        *,
        target: str = ALONE,
    ) -> None:
        self._engine, self._instruments, self._decisions = engine, instruments, decisions
        self._memory = instruments.memory if instruments else MemoryOptimizer()
        self._jobs = JobsSensor(engine.bus, engine.tasks, frozenset(engine.queues))
        self._target = target
        self._series = Series()

    def close(self) -> None:
        """Listen no more."""
        self._jobs.close()

    def read(self) -> Sheet:
        """Return what there is now; may be called in another thread."""
        sheet = Sheet({}, {})
        self._read_jobs(sheet)
        self._read_sizes(sheet)
        sensors: list[Readable] = [*self._engine.sensors, self._memory]
        if self._instruments is not None:
            sensors.append(self._instruments.loop)
            self._read_tasks(sheet, self._instruments)
        self._read_sensors(sheet, sensors)
        return self._series.merge([sheet])

    def _read_jobs(self, sheet: Sheet) -> None:
        jobs = self._jobs
        for status in ENDS:
            sheet.put("partitions_total", 0, status)
        for name, histograms in (("job_wait_seconds", jobs.wait), ("job_duration_seconds", jobs.duration)):
            for key, histogram in histograms.copy().items():
                sheet.spreads[name, key] = Spread(*histogram.read())
        for (task, queue), attempts in jobs.attempts.copy().items():
            for status, number in attempts.copy().items():
                sheet.put("job_attempts_total", number, task, queue, status)
                if task == MAP_TASK:
                    _add(sheet, "partitions_total", number, (status,))
        sheet.put("broker_disruptions_total", jobs.disruptions)

    def _read_sizes(self, sheet: Sheet) -> None:
        decisions = self._engine.optimizer.decisions if self._decisions is None else self._decisions
        for name, thing in decisions.things().items():
            sheet.put("concurrency_limit", thing.size, name)
            sheet.put("concurrency_inflight", thing.in_use, name)
        for (name, reason), number in decisions.made.copy().items():
            sheet.put("optimizer_decisions_total", number, name, reason)

    def _read_tasks(self, sheet: Sheet, instruments: Instruments) -> None:
        for of in instruments.profiler.get_profile_report().functions:
            if of.name in self._engine.tasks:
                _add(sheet, "profiled_jobs_total", of.calls, (of.name,))
                parts = {"on_loop": of.on_loop_s, "cpu": of.cpu_s, "await": of.await_s, "ready": of.ready_s}
                for state, seconds in parts.items():
                    _add(sheet, "profiled_seconds_total", seconds, (of.name, state))

    def _read_sensors(self, sheet: Sheet, sensors: Sequence[Readable]) -> None:
        for sensor in sensors:
            for one in sensor.read():
                if one.name in READINGS:
                    name = READINGS[one.name]
                    # What has a label that is not told is summed up over it.
                    _add(sheet, name, one.value, self._labels(name, one.labels))
            for of in sensor.durations() if isinstance(sensor, Timed) else ():
                if of.name in DURATIONS:
                    name = DURATIONS[of.name]
                    key, told = (name, self._labels(name, of.labels)), spread(of.histogram)
                    sheet.spreads[key] = told.plus(sheet.spreads[key]) if key in sheet.spreads else told

    def _labels(self, name: str, given: Iterable[tuple[str, str]]) -> Labels:
        known = {"target": self._target, **dict(given)}
        return tuple(known.get(label, "") for label in CATALOGUE[name].labels)


def _add(sheet: Sheet, name: str, value: float, labels: Labels) -> None:
    sheet.numbers[name, labels] = sheet.numbers.get((name, labels), 0.0) + value


def spread(histogram: LogHistogram) -> Spread:
    """Return its counts in `DOUBLINGS`."""
    below = [number for _, number in histogram.below(DOUBLINGS)]
    ends = [0, *below, max(histogram.count, below[-1])]
    return Spread([after - before for before, after in pairwise(ends)], histogram.sum)

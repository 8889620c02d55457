"""What one worker process tells under ``/metrics`` beside its jobs: its limits, decisions, pools, loop and memory.

Everything here is this process's own, and read in the server's threads without waiting for the event loop: a loop that
is held is when these are wanted most. Names of series come from what was registered, and there are bounds for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from asyncworker.daemon.instruments import Instruments
from asyncworker.engine import Engine
from asyncworker.tune.decisions import Decisions
from asyncworker.tune.histogram import LogHistogram
from asyncworker.tune.sensors.memory import MemoryOptimizer
from asyncworker.tune.sensors.sensor import Durations, Readable, Reading, Timed

DOUBLINGS = range(7, 25)
"""Buckets from 128 microseconds to 17 seconds, each twice as wide as the one before."""
MOST_REASONS = 200
OTHER = "other"

GAUGES = {
    "loop_utilisation_ratio": ("event_loop_busy_ratio", "Share of the last second in which the event loop was busy."),
    "memory_rss_bytes": ("process_resident_memory_bytes", "Memory of this process."),
    "memory_objects": ("process_objects", "Objects that the garbage collector knew at the last look."),
    "memory_leaks_suspected": ("memory_leaks_suspected", "Types whose objects became more and more, at the last look."),
    "pool_connections": ("pool_connections", "Connections, by what they do."),
    "pool_waiters": ("pool_waiters", "Callers that wait for a connection."),
    "batch_size": ("batch_size", "Items that the next batch takes at most."),
}
COUNTERS = {
    "loop_held_total": ("event_loop_stalls", "Times that the event loop was held for long."),
    "gc_pause_seconds_total": ("gc_pause_seconds", "Time in which the garbage collector held this process."),
    "pool_leaks_total": ("pool_leaks", "Borrowed connections that seemed not to come back."),
}
HISTOGRAMS = {
    "loop_lag_seconds": ("event_loop_lag_seconds", "How long what is ready waits for its turn on the event loop."),
    "pool_acquire_seconds": ("pool_acquire_seconds", "How long callers waited for a connection."),
    "batch_wait_seconds": ("batch_wait_seconds", "From adding an item to the start of its batch."),
}
"""By the reading's name: the metric's, without its prefix, and what it is. What is not here is not told."""
LABELS = ("queue", "task", "status", "reason", "pool", "limiter", "target", "state")


class ProcessMetrics(Collector):
    """Made anew at each scrape.

    Args:
        instruments: None where they are switched off.
        decisions: what is told of; else those of the engine's own optimizer.
    """

    def __init__(self, engine: Engine, instruments: Instruments | None, decisions: Decisions | None = None) -> None:
        self._engine, self._instruments, self._decisions = engine, instruments, decisions
        self._memory = instruments.memory if instruments else MemoryOptimizer()

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        sensors: list[Readable] = [*self._engine.sensors, self._memory]
        if self._instruments is not None:
            sensors.append(self._instruments.loop)
            yield from self._tasks(self._instruments)
        yield from self._sizes()
        yield from told(sensors)

    def _sizes(self) -> Iterator[Metric]:
        decisions = self._engine.optimizer.decisions if self._decisions is None else self._decisions
        limit = GaugeMetricFamily("asyncworker_concurrency_limit", "How many at once.", labels=("limiter",))
        inflight = GaugeMetricFamily("asyncworker_concurrency_inflight", "How many now.", labels=("limiter",))
        for name, thing in sorted(decisions.things().items()):
            limit.add_metric((name,), thing.size)
            inflight.add_metric((name,), thing.in_use)
        made = CounterMetricFamily(
            "asyncworker_optimizer_decisions", "Changes of a size, by cause.", labels=("limiter", "reason")
        )
        counts: dict[tuple[str, str], int] = {}
        for key, number in sorted(decisions.made.copy().items()):
            if len(counts) >= MOST_REASONS:
                key = (OTHER, OTHER)
            counts[key] = counts.get(key, 0) + number
        for key, number in counts.items():
            made.add_metric(key, number)
        yield from (limit, inflight, made)

    def _tasks(self, instruments: Instruments) -> Iterator[Metric]:
        times = CounterMetricFamily(
            "asyncworker_profiled_seconds", "Time of the jobs that were measured.", labels=("task", "state")
        )
        calls = CounterMetricFamily("asyncworker_profiled_jobs", "Jobs that were measured.", labels=("task",))
        for of in instruments.profiler.get_profile_report().functions:
            if of.name in self._engine.tasks:
                calls.add_metric((of.name,), of.calls)
                parts = {"on_loop": of.on_loop_s, "cpu": of.cpu_s, "await": of.await_s, "ready": of.ready_s}
                for state, seconds in parts.items():
                    times.add_metric((of.name, state), seconds)
        yield from (times, calls)


def told(sensors: Sequence[Readable]) -> Iterator[Metric]:
    """Yield what these sensors tell, one metric for each name."""
    readings = [one for sensor in sensors for one in sensor.read()]
    for names, family in ((GAUGES, GaugeMetricFamily), (COUNTERS, CounterMetricFamily)):
        yield from _families(readings, names, family)
    durations = [one for sensor in sensors if isinstance(sensor, Timed) for one in sensor.durations()]
    for name, (metric, doc) in HISTOGRAMS.items():
        found = [one for one in durations if one.name == name]
        if found:
            whole = HistogramMetricFamily(f"asyncworker_{metric}", doc, labels=_labels(found))
            for one in found:
                whole.add_metric([value for _, value in one.labels], *_buckets(one.histogram))
            yield whole


def _families(
    readings: Sequence[Reading],
    names: dict[str, tuple[str, str]],
    family: Callable[..., GaugeMetricFamily | CounterMetricFamily],
) -> Iterator[Metric]:
    for name, (metric, doc) in names.items():
        found = [one for one in readings if one.name == name]
        if not found:
            continue
        labels = [label for label in _labels(found) if label in LABELS]
        whole = family(f"asyncworker_{metric}", doc, labels=labels)
        sums: dict[tuple[str, ...], float] = {}
        for one in found:  # what has a label that is not told is summed up over it
            key = tuple(value for label, value in one.labels if label in LABELS)
            sums[key] = sums.get(key, 0.0) + one.value
        for key, value in sums.items():
            whole.add_metric(key, value)
        yield whole


def _labels(found: Sequence[Reading | Durations]) -> list[str]:
    return [label for label, _ in found[0].labels]


def _buckets(histogram: LogHistogram) -> tuple[list[tuple[str, float]], float]:
    buckets: list[tuple[str, float]] = [(f"{bound:.6g}", number) for bound, number in histogram.below(DOUBLINGS)]
    return [*buckets, ("+Inf", histogram.count)], histogram.sum

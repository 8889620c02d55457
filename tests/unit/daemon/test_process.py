from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from itertools import accumulate
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from asyncworker import AsyncBatchProcessor, Engine
from asyncworker.daemon import sheet as module
from asyncworker.daemon.catalogue import DOUBLINGS, LABELS
from asyncworker.daemon.instruments import Instruments
from asyncworker.daemon.process import ProcessMetrics, spread
from asyncworker.daemon.sheet import text
from asyncworker.events import BrokerDisrupted, JobEnd, JobsEnded
from asyncworker.mapreduce.job import MAP_TASK
from asyncworker.queue.task import DEFAULTS
from asyncworker.tune.histogram import LogHistogram
from asyncworker.tune.sensors.sensor import Durations, Reading
from asyncworker.tune.tuner import Tuner
from tests.unit.tune.test_tuner import Pool, Wanting

WITH_INSTRUMENTS = {
    "concurrency_limit": {"limiter"},
    "concurrency_inflight": {"limiter"},
    "optimizer_decisions": {"limiter", "reason"},
    "partitions": {"status"},
    "profiled_seconds": {"task", "state"},
    "profiled_jobs": {"task"},
    "event_loop_lag_seconds": {"le"},
    "event_loop_stalls": set(),
    "event_loop_busy_ratio": {"target"},
    "process_resident_memory_bytes": {"target"},
    "process_objects": set(),
    "memory_leaks_suspected": set(),
    "gc_pause_seconds": set(),
    "pool_connections": {"pool", "state"},
    "pool_waiters": {"pool"},
    "pool_leaks": {"pool"},
    "pool_acquire_seconds": {"pool", "le"},
    "batch_size": {"task"},
    "batch_wait_seconds": {"task", "le"},
    "broker_disruptions": set(),
}


class Connections:
    """A pool that tells of itself."""

    def __init__(self) -> None:
        self.waits = LogHistogram()
        self.waits.add(0.01)

    def read(self) -> list[Reading]:
        labels = (("pool", "shop"),)
        return [
            Reading("pool_connections", 3, (*labels, ("state", "used"))),
            Reading("pool_connections", 1, (*labels, ("state", "idle"))),
            Reading("pool_waiters", 2, labels),
            Reading("pool_leaks_total", 1, labels),
            Reading("something_else", 1, (("id", "26 characters"),)),
        ]

    def durations(self) -> list[Durations]:
        return [Durations("pool_acquire_seconds", self.waits, (("pool", "shop"),))]


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()

    @engine.task(name="send")
    async def send() -> None:
        await asyncio.sleep(0)

    yield engine
    await engine.close()


def scraped(metrics: ProcessMetrics) -> dict[str, Any]:
    body, _ = text(metrics.read(), "")
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def values(families: dict[str, Any]) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("asyncworker_"), *sorted(sample.labels.values())): sample.value
        for family in families.values()
        for sample in family.samples
    }


async def test_a_process_tells_its_limits_decisions_pools_loop_and_memory(engine: Engine) -> None:
    pool, batches = Connections(), AsyncBatchProcessor(lambda items: None, name="rows")
    assert engine.watch(pool) is pool
    engine.watch(batches)
    crew = Pool(4, {})
    tuner = Tuner(crew.limiter, crew.sense, Wanting(10), decisions=engine.optimizer.decisions)
    tuner.tick()
    async with Instruments(engine) as instruments:
        assert engine.profiler is instruments.profiler
        for _ in range(200):
            await instruments.profiler.measure("send", asyncio.sleep(0))
            await instruments.profiler.measure("an id", asyncio.sleep(0))
        while not instruments.loop.lag.count:
            await asyncio.sleep(0.01)
        families = scraped(ProcessMetrics(engine, instruments))
    assert engine.profiler is None
    assert {name.removeprefix("asyncworker_") for name in families} == set(WITH_INSTRUMENTS)
    for name, labels in WITH_INSTRUMENTS.items():
        family = families[f"asyncworker_{name}"]
        assert family.documentation, name
        assert {label for sample in family.samples for label in sample.labels} == labels, name
        assert labels <= {*LABELS, "le"}
    found = values(families)
    assert found["concurrency_limit", "pool"] == 10
    assert found["concurrency_inflight", "pool"] == 0
    assert found["optimizer_decisions_total", "pool", "the test says so"] == 1
    assert found["pool_connections", "shop", "used"] == 3
    assert found["pool_waiters", "shop"] == 2
    assert found["pool_leaks_total", "shop"] == 1
    assert found["pool_acquire_seconds_bucket", "0.016384", "shop"] == 1
    assert found["pool_acquire_seconds_bucket", "0.008192", "shop"] == 0
    assert found["pool_acquire_seconds_count", "shop"] == 1
    assert found["process_resident_memory_bytes", "worker"] > 1e6
    assert found["event_loop_lag_seconds_count",] >= 1
    assert found["batch_size", "rows"] >= 1
    assert found["profiled_jobs_total", "send"] >= 1
    assert found["profiled_seconds_total", "await", "send"] >= 0
    assert not any("an id" in key for key in found)


async def test_what_is_no_longer_used_is_no_longer_told(engine: Engine) -> None:
    engine.watch(Connections())
    gc.collect()
    assert engine.sensors == []
    pool = engine.watch(Connections())
    assert engine.sensors == [pool]


async def test_without_instruments_it_tells_the_rest(engine: Engine) -> None:
    families = scraped(ProcessMetrics(engine, None))
    assert "asyncworker_process_resident_memory_bytes" in families
    assert "asyncworker_event_loop_lag_seconds" not in families
    assert "asyncworker_broker_disruptions" in families


async def test_reasons_without_end_are_bounded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = engine.optimizer.decisions
    monkeypatch.setattr(module.Series.__init__, "__defaults__", (200,))
    metrics = ProcessMetrics(engine, None)
    for number in range(400):
        decisions.add(f"limiter {number}", 1, 2, "more")
    family = scraped(metrics)["asyncworker_optimizer_decisions"]
    told = [sample for sample in family.samples if sample.name.endswith("_total")]
    assert len(told) == 201
    assert sum(sample.value for sample in told) == len(decisions.made) == 400


async def test_jobs_are_told_by_how_they_ended_and_partitions_by_themselves(engine: Engine) -> None:
    metrics = ProcessMetrics(engine, None)
    ends = [JobEnd("send", "default", "succeeded", 0.02, 0.3), JobEnd("send", "default", "retrying", -1.0, 0.3)]
    engine.tasks.add(MAP_TASK, test_buckets_add_up, DEFAULTS)
    parts = [JobEnd(MAP_TASK, queue, "succeeded", 0.0, 1.0) for queue in ("default", "cpu_intensive")]
    engine.bus.emit(JobsEnded(epoch="e", ends=[*ends, *parts]))
    engine.bus.emit(BrokerDisrupted(broker="redis://h", error="gone"))
    found = values(scraped(metrics))
    assert found["job_attempts_total", "default", "retrying", "send"] == 1
    assert found["job_duration_seconds_count", "default", "send"] == 2
    assert found["job_duration_seconds_bucket", "+Inf", "default", "send"] == 2
    assert found["job_duration_seconds_bucket", "0.25", "default", "send"] == 0
    assert found["job_duration_seconds_bucket", "0.5", "default", "send"] == 2
    assert found["job_wait_seconds_sum", "default", "send"] == 0.02
    assert found["partitions_total", "succeeded"] == 2
    assert found["broker_disruptions_total",] == 1
    metrics.close()
    engine.bus.emit(BrokerDisrupted(broker="redis://h", error="gone"))
    assert values(scraped(metrics))["broker_disruptions_total",] == 1


async def test_buckets_add_up(engine: Engine) -> None:
    histogram = LogHistogram()
    for seconds in (1e-7, 1e-4, 0.003, 0.003, 1.5, 100.0):
        histogram.add(seconds)
    below = dict(histogram.below(DOUBLINGS))
    assert list(below.values()) == sorted(below.values())
    for bound, number in below.items():
        assert number == sum(seconds < bound for seconds in (1e-7, 1e-4, 0.003, 0.003, 1.5, 100.0)), bound
    told = spread(histogram)
    assert list(accumulate(told.counts)) == [*below.values(), 6]
    assert told.sum == histogram.sum

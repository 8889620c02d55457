from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from asyncworker.daemon.metrics import MetricsServer, WorkerMetrics
from asyncworker.errors import BrokerDown, SettingsError
from asyncworker.events import BrokerDisrupted, Bus, JobEnd, JobsEnded
from asyncworker.queue.job import Depth, QueueDepth
from asyncworker.tune.sensors.jobs import JobsSensor

FIRST_TEN = {
    "jobs_enqueued": {"queue"},
    "jobs": {"queue", "status"},
    "job_retries": {"queue"},
    "jobs_redelivered": {"queue"},
    "job_duration_seconds": {"task", "queue"},
    "job_wait_seconds": {"task", "queue"},
    "jobs_running": set(),
    "queue_jobs": {"queue", "state"},
    "queue_oldest_seconds": {"queue"},
    "broker_disruptions": set(),
}
MAIL = QueueDepth(
    queued=3, scheduled=2, oldest_s=1.5, enqueued=100, succeeded=80, failed=7, cancelled=5, expired=3, retried=4
)


class Counts:
    """A broker of which only the counts are asked."""

    def __init__(self) -> None:
        self.answer: Any = Depth(queues={"mail": MAIL}, running=2, workers={})

    async def depth(self, queues: Any) -> Depth:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
async def served() -> AsyncIterator[SimpleNamespace]:
    bus, broker = Bus(), Counts()
    sensor = JobsSensor(bus, {"send"}, {"mail"})
    metrics = WorkerMetrics(broker, ["mail"], sensor, asyncio.get_running_loop())  # type: ignore[arg-type] - the verb it uses
    server = MetricsServer(metrics, 0)
    yield SimpleNamespace(bus=bus, broker=broker, url=server.url)
    await asyncio.to_thread(server.close)


async def fetch(url: str, **headers: str) -> str:
    def get() -> str:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.read().decode()

    return await asyncio.to_thread(get)


async def test_the_first_ten_metrics_are_there_with_their_labels(served: SimpleNamespace) -> None:
    served.bus.emit(JobsEnded(epoch="e", ends=[JobEnd("send", "mail", "succeeded", 0.02, 0.3)]))
    served.bus.emit(BrokerDisrupted(broker="redis://h", error="gone"))
    text = await fetch(served.url)
    assert "_created" not in text
    families = {family.name.removeprefix("asyncworker_"): family for family in text_string_to_metric_families(text)}
    assert set(families) == set(FIRST_TEN)
    for name, labels in FIRST_TEN.items():
        assert families[name].documentation, name
        assert {label for sample in families[name].samples for label in sample.labels} - {"le"} == labels, name
    values = {(s.name, *sorted(s.labels.values())): s.value for family in families.values() for s in family.samples}
    assert values["asyncworker_jobs_enqueued_total", "mail"] == 100
    assert values["asyncworker_jobs_total", "mail", "succeeded"] == 80
    assert values["asyncworker_job_retries_total", "mail"] == 4
    assert values["asyncworker_queue_jobs", "mail", "queued"] == 3
    assert values["asyncworker_queue_oldest_seconds", "mail"] == 1.5
    assert values[("asyncworker_jobs_running",)] == 2
    assert values[("asyncworker_broker_disruptions_total",)] == 1
    assert values["asyncworker_job_duration_seconds_bucket", "0.25", "mail", "send"] == 0
    assert values["asyncworker_job_duration_seconds_bucket", "0.5", "mail", "send"] == 1
    assert values["asyncworker_job_duration_seconds_bucket", "+Inf", "mail", "send"] == 1
    assert values["asyncworker_job_duration_seconds_count", "mail", "send"] == 1
    assert values["asyncworker_job_wait_seconds_sum", "mail", "send"] == 0.02


async def test_without_the_broker_it_tells_what_this_process_knows(served: SimpleNamespace) -> None:
    served.broker.answer = BrokerDown("cannot reach redis://:hunter2@h")
    text = await fetch(served.url)
    assert "asyncworker_broker_disruptions_total" in text
    assert "asyncworker_queue_jobs" not in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1]:1", "a@localhost"]
)
async def test_a_foreign_host_is_not_answered(served: SimpleNamespace, host: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        await fetch(served.url, Host=host)
    assert caught.value.code == 421
    caught.value.close()
    assert "asyncworker_jobs_total" in await fetch(served.url, Host="LOCALHOST:1")


async def test_a_taken_port_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            SettingsError, match=f"metrics port {port} of 127.0.0.1 cannot be had: Address already in use"
        ):
            MetricsServer(WorkerMetrics(Counts(), [], JobsSensor(Bus(), (), ()), asyncio.get_running_loop()), port)  # type: ignore[arg-type] - the verb it uses

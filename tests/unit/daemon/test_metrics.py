from __future__ import annotations

import asyncio
import contextlib
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from asyncworker import Engine
from asyncworker.daemon import metrics as module
from asyncworker.daemon.catalogue import CATALOGUE
from asyncworker.daemon.health import Check
from asyncworker.daemon.metrics import BrokerMetrics, MetricsServer, WorkerMetrics, checked
from asyncworker.daemon.sheet import Sheet
from asyncworker.errors import BrokerDown, SettingsError, TaskFailed
from asyncworker.queue.job import Depth, QueueDepth, WorkerCard
from tests.support.brokers import until

MAIL = QueueDepth(
    queued=3,
    scheduled=2,
    oldest_s=1.5,
    enqueued=100,
    succeeded=80,
    failed=7,
    cancelled=5,
    expired=3,
    retried=4,
    most=50,
)


class Counts:
    """A broker of which only the counts are asked."""

    def __init__(self) -> None:
        card = WorkerCard("h", 1, ("mail",), 1, 10.0, 0.0)
        cards = {"e": card, "f": msgspec.structs.replace(card, role="feeder")}
        self.answer: Any = Depth(queues={"mail": MAIL}, running=2, workers=cards)

    async def depth(self, queues: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


NOTHING = Check(True)


@pytest.fixture
async def served() -> AsyncIterator[SimpleNamespace]:
    broker, own = Counts(), Sheet({("broker_disruptions_total", ()): 1.0}, {})
    state = SimpleNamespace(broker=broker, check=NOTHING)
    metrics = WorkerMetrics(BrokerMetrics(broker, ["mail"]), lambda: own, asyncio.get_running_loop())  # type: ignore[arg-type] - the verb it uses
    server = MetricsServer(metrics, 0, {"/readyz": lambda: state.check})
    state.url, state.base = server.url, server.url.removesuffix("/metrics")
    yield state
    await asyncio.to_thread(server.close)


async def fetch(url: str, **headers: str) -> str:
    return (await answer(url, **headers))[0]


async def answer(url: str, **headers: str) -> tuple[str, str]:
    """Return the body and its type."""

    def get() -> tuple[str, str]:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.read().decode(), answer.headers["Content-Type"]

    return await asyncio.to_thread(get)


async def test_what_the_broker_counts_is_there_with_its_labels(served: SimpleNamespace) -> None:
    text = await fetch(served.url)
    assert "_created" not in text
    families = {family.name.removeprefix("asyncworker_"): family for family in text_string_to_metric_families(text)}
    for name, family in families.items():
        entry = CATALOGUE.get(name) or CATALOGUE[f"{name}_total"]
        assert (family.documentation, family.type) == (entry.doc, entry.kind), name
        assert {label for sample in family.samples for label in sample.labels} == set(entry.labels), name
    values = {(s.name, *sorted(s.labels.values())): s.value for family in families.values() for s in family.samples}
    assert values["asyncworker_jobs_enqueued_total", "mail"] == 100
    assert values["asyncworker_jobs_total", "mail", "succeeded"] == 80
    assert values["asyncworker_job_retries_total", "mail"] == 4
    assert values["asyncworker_queue_jobs", "mail", "queued"] == 3
    assert values["asyncworker_queue_oldest_seconds", "mail"] == 1.5
    assert values["asyncworker_queue_paused", "mail"] == 0
    assert values["asyncworker_queue_bound_jobs", "mail"] == 50
    assert values[("asyncworker_jobs_running",)] == 2
    assert values[("asyncworker_workers_alive",)] == 1, "feeders are no workers"
    assert values[("asyncworker_broker_up",)] == 1
    assert values[("asyncworker_broker_disruptions_total",)] == 1


async def test_without_the_broker_it_tells_what_this_process_knows(served: SimpleNamespace) -> None:
    served.broker.answer = BrokerDown("cannot reach redis://:hunter2@h")
    text = await fetch(served.url)
    assert "asyncworker_broker_disruptions_total" in text
    assert "asyncworker_broker_up 0.0" in text
    assert "asyncworker_queue_jobs" not in text
    assert "hunter2" not in text


async def test_both_formats_are_served(served: SimpleNamespace) -> None:
    plain, kind = await answer(served.url)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    opened, kind = await answer(served.url, Accept=accept)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert opened.endswith("# EOF\n")
    assert {f.name for f in openmetrics_families(opened)} == {f.name for f in text_string_to_metric_families(plain)}
    for odd in ("application/openmetrics-text;version=x.y", "text/plain;version=;escaping=", "*/*", ""):
        assert "asyncworker_jobs_total" in (await answer(served.url, Accept=odd))[0]


async def test_checks_say_why_in_json(served: SimpleNamespace) -> None:
    assert await fetch(f"{served.base}/readyz") == '{"ok":true,"reasons":[]}'
    served.check = Check(False, ("the broker does not answer",))
    with pytest.raises(urllib.error.HTTPError) as caught:
        await fetch(f"{served.base}/readyz")
    with caught.value as error:
        assert (error.code, error.read()) == (503, b'{"ok":false,"reasons":["the broker does not answer"]}')


async def test_a_loop_that_does_not_turn_is_no_live_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look() -> Check:
        return NOTHING

    turning = asyncio.get_running_loop()
    assert await asyncio.to_thread(checked(look, turning)) == NOTHING
    over = asyncio.new_event_loop()
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    held = checked(look, over)()
    assert held == Check(False, ("the event loop does not turn",))
    await asyncio.to_thread(over.run_until_complete, asyncio.sleep(0.01))
    over.close()
    assert checked(look, over)() == held


async def test_there_is_nothing_else(served: SimpleNamespace) -> None:
    for request, status in ((f"{served.base}/", 404), (urllib.request.Request(served.url, method="POST"), 405)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            await asyncio.to_thread(urllib.request.urlopen, request, timeout=10)
        caught.value.close()
        assert caught.value.code == status


async def test_dead_letters_schedules_and_map_reduce_jobs_are_looked_for_seldom() -> None:
    async with Engine() as engine:

        @engine.task(name="fail", max_attempts=1)
        async def fail() -> None:
            raise ValueError

        @engine.mapper
        async def linger(item: int, params: object) -> int:
            await go.wait()
            return item

        go = asyncio.Event()
        engine.functions.add_reducer("Sum", Sum)
        await engine.schedules.add("nightly", "fail", cron="0 3 * * *")
        with contextlib.suppress(TaskFailed):
            await (await fail.enqueue()).result(timeout=20)
        metrics = BrokerMetrics(engine.broker, engine.queues)
        job = await engine.map_reduce(range(40), map="linger", reduce="Sum", partition_size=10)

        async def cut() -> bool:
            metrics._next_s = 0.0
            return (await metrics.read())[0].numbers.get(("map_reduce_jobs", ())) == 1

        await until(cut)
        before = (await metrics.read())[0].numbers
        assert (before["dead_letters", ()], before["schedules", ()]) == (1, 1)
        assert before["job_progress_ratio", ()] == 0
        go.set()
        await job.result(timeout=20)
        assert (await metrics.read())[0].numbers["map_reduce_jobs", ()] == 1, "not yet"
        metrics._next_s = 0.0
        assert (await metrics.read())[0].numbers["map_reduce_jobs", ()] == 0


class Sum:
    def initial(self, params: object) -> int:
        return 0

    def fold(self, acc: int, value: int) -> int:
        return acc + value

    def merge(self, acc: int, other: int) -> int:
        return acc + other

    def finish(self, acc: int, params: object) -> int:
        return acc


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
            MetricsServer(Sheet, port, {})


async def test_a_backlog_does_not_hide_the_map_reduce_jobs_under_way(
    redis_url: str, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "words.jsonl").write_text('{"text": "a"}\n' * 30)
    async with Engine(redis_url, namespace=namespace) as engine:

        @engine.task()
        async def wait() -> None: ...

        @engine.cron("0 3 * * *")
        async def nightly() -> None: ...

        await wait.enqueue_many([()] * 1500)
        job = await engine.map_reduce(
            str(tmp_path / "words.jsonl"), "word_count", params={"field": "text"}, partition_size=10
        )
        async with asyncio.timeout(20):
            while (await job.status()).state != "blocked":
                await asyncio.sleep(0.01)
        sheet, _ = await BrokerMetrics(engine.broker, engine.queues, engine.schedules).read()
        assert sheet.numbers["map_reduce_jobs", ()] == 1
        assert sheet.numbers["job_progress_ratio", ()] == 0
        assert sheet.numbers["schedules", ()] == 1
        await job.cancel()

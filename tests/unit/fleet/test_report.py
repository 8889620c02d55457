"""What a worker tells of itself is what it does; and it knows what to do when nobody is told any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncworker import Engine
from asyncworker.errors import SettingsError
from asyncworker.events import Bus, JobEnd, JobsClaimed, JobsEnded, WorkerIdled, WorkerStarted, WorkerStopped
from asyncworker.fleet import report as module
from asyncworker.fleet.process import LEAVING, STARTING, WORKING
from asyncworker.fleet.report import EVERY_S, REPORTS, Report
from asyncworker.share.channel import HighPerformanceIPC
from tests.support.brokers import until
from tests.support.clock import FrozenClock


@pytest.fixture
async def supervisor() -> AsyncIterator[HighPerformanceIPC]:
    async with HighPerformanceIPC("supervisor") as ipc:
        yield ipc


def never() -> None:
    raise AssertionError("nobody asked for that")


async def test_what_happens_is_told(supervisor: HighPerformanceIPC, frozen_clock: FrozenClock) -> None:
    bus = Bus()
    async with Report(f"{supervisor.place}:w", bus, never, 10.0, frozen_clock) as report:

        def told() -> tuple[int, int, int, float, float]:
            report._ipc.send_heartbeat()
            of = supervisor.read_gauges("w")
            return of.stage, of.running, of.ended, of.idle_us / 1e6, of.up_us / 1e6

        frozen_clock.advance(5)
        assert told() == (STARTING, 0, 0, 0.0, 0.0)
        bus.emit(WorkerStarted(epoch="e", queues=("default",), concurrency=10))
        frozen_clock.advance(1)
        bus.emit(WorkerIdled(epoch="e", idle=True))
        frozen_clock.advance(2)
        assert told() == (WORKING, 0, 0, 2.0, 3.0), "also while it is idle"
        bus.emit(WorkerIdled(epoch="e", idle=False))
        bus.emit(JobsClaimed(epoch="e", count=3, redelivered=0))
        frozen_clock.advance(4)
        bus.emit(JobsEnded(epoch="e", ends=[JobEnd("t", "q", "succeeded", 0.0, 0.0)] * 2))
        assert told() == (WORKING, 1, 2, 2.0, 7.0)
        bus.emit(WorkerStarted(epoch="f", queues=("default",), concurrency=10))
        assert told() == (WORKING, 0, 2, 2.0, 7.0), "a new incarnation holds nothing"
        bus.emit(WorkerStopped(epoch="f", handed_back=0))
        assert told()[0] == LEAVING
    bus.emit(WorkerIdled(epoch="f", idle=True))


async def test_a_worker_that_waits_for_work_is_idle_and_one_that_is_full_is_not(
    supervisor: HighPerformanceIPC,
) -> None:
    engine, go = Engine(queues={"default": 2, "other": 2}), asyncio.Event()

    @engine.task()
    async def wait() -> None:
        await go.wait()

    async with Report(f"{supervisor.place}:w", engine.bus, never, 10.0) as report, engine:

        async def idle() -> bool:
            return supervisor.read_gauges("w").idle_us > EVERY_S * 1e6

        await until(idle)
        jobs = await wait.enqueue_many([()] * 5)

        async def full() -> bool:
            return supervisor.read_gauges("w").running == 2

        await until(full)
        before = report._gauges()
        await asyncio.sleep(EVERY_S)
        after = report._gauges()
        assert after.idle_us == before.idle_us, "a queue at its bound makes it full"
        assert after.up_us > before.up_us
        go.set()
        for job in jobs:
            await job.result(timeout=20)
        await until(idle)


async def test_what_it_measured_is_sent_and_all_of_it_at_the_end(
    supervisor: HighPerformanceIPC, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.01)
    supervisor.create_message_queue(REPORTS)
    count = 0
    async with Report(f"{supervisor.place}:w", Bus(), never, 10.0, told=lambda: count):
        first = await supervisor.receive_message(REPORTS, 20)
        assert first is not None
        assert (first.sender_id, first.data) == ("w", 0)
        count = 7
    told = []
    while message := await supervisor.receive_message(REPORTS, 0.01):
        told.append(message.data)
    assert told[-1] == 7
    async with Report(f"{supervisor.place}:v", Bus(), never, 10.0, told=lambda: "all"):
        pass
    last = await supervisor.receive_message(REPORTS, 20)
    assert last is not None
    assert (last.sender_id, last.data) == ("v", "all"), "also of a short life"


async def test_a_supervisor_that_is_gone_is_told_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.01)
    owner = HighPerformanceIPC("supervisor")
    await owner.start()
    owner.create_message_queue(REPORTS)
    async with Report(f"{owner.place}:w", Bus(), lambda: None, 10.0, told=lambda: 1):
        assert await owner.receive_message(REPORTS, 20)
        await owner.cleanup()


async def test_without_its_supervisor_it_stops_before_the_lease_is_over() -> None:
    owner = HighPerformanceIPC("supervisor")
    await owner.start()
    stopped = asyncio.Event()
    async with Report(f"{owner.place}:w", Bus(), stopped.set, 0.05):
        await owner.cleanup()
        async with asyncio.timeout(20):
            await stopped.wait()


@pytest.mark.parametrize("address", ["nowhere:w", "/dev/null:w"])
async def test_without_a_supervisor_it_does_not_begin(address: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="supervisor"):
        async with Report(address, Bus(), never, 10.0):
            pass

"""The sum over processes, the dead with the living; real processes are in tests/faults and tests/stories."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker import Engine
from asyncworker.daemon import fleet_metrics as module
from asyncworker.daemon.catalogue import CATALOGUE
from asyncworker.daemon.fleet_metrics import LAST_WORDS_S, FleetMetrics, Ledger, Telling, Told, known_as
from asyncworker.daemon.process import ProcessMetrics
from asyncworker.daemon.sheet import Sheet, Spread
from asyncworker.events import JobEnd, JobsEnded
from asyncworker.fleet.manager import DynamicWorkerManager
from tests.support.clock import FrozenClock

DECISIONS = ("optimizer_decisions_total", ("l", "r"))
WAITERS = ("pool_waiters", ("p",))
ACQUIRE = ("pool_acquire_seconds", ("p",))


class Process:
    """A worker process that counts."""

    def __init__(self, name: str, pid: int) -> None:
        self.name, self.pid, self.count = name, pid, 0
        self._telling = Telling(self._read)

    def _read(self) -> Sheet:
        told = Spread([self.count] * 19, float(self.count))
        return Sheet({DECISIONS: float(self.count), WAITERS: float(self.pid)}, {ACQUIRE: told})

    def tell(self) -> bytes:
        told = msgspec.msgpack.decode(self._telling(), type=Told)
        told.pid = self.pid
        return msgspec.msgpack.encode(told)


moves = st.one_of(
    st.tuples(st.just("count"), st.integers(0, 2), st.integers(1, 5)),
    st.tuples(st.just("tell"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("end"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("kill"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("look"), st.just(0), st.sampled_from([1.0, 2 * LAST_WORDS_S])),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(moves, max_size=40))
def test_counts_are_those_of_all_processes_but_for_the_last_beats_of_killed_ones(
    played: list[tuple[str, int, float]],
) -> None:
    clock = FrozenClock()
    ledger, pid, last = Ledger(clock), 3, 0.0
    alive = {number: Process(f"worker-{number}", number) for number in range(3)}
    told = dict.fromkeys(range(3), 0)
    dead = 0
    for kind, number, of in played:
        process = alive[number]
        if kind == "count":
            process.count += int(of)
        elif kind == "look":
            clock.advance(of)
            ledger.keep({one.name for one in alive.values()} - ({"worker-0"} if of > 1 else set()))
            if of > 1:  # the first was not there for long: it is over, and another life begins
                dead += told[0]
                told[0], alive[0] = 0, Process("worker-0", pid)
                pid += 1
        elif kind == "tell" or kind == "end":
            ledger.hear(process.name, process.tell())
            told[number] = process.count
        if kind in {"end", "kill"}:
            dead += told[number]
            told[number], alive[number] = 0, Process(process.name, pid)
            pid += 1
        sheet = ledger.read({one.pid for one in alive.values()})
        expected = dead + sum(told.values())
        assert sheet.numbers.get(DECISIONS, 0) == expected
        assert expected >= last, "nothing ever goes down"
        last = expected
        if ACQUIRE in sheet.spreads:
            assert sheet.spreads[ACQUIRE] == Spread([expected] * 19, float(expected))
        assert sheet.numbers.get(WAITERS, 0) <= sum(one.pid for one in alive.values()), "gauges go with their process"


def test_what_comes_again_or_after_the_burial_changes_nothing(frozen_clock: FrozenClock) -> None:
    ledger, process = Ledger(frozen_clock), Process("worker-1", 1)
    process.count = 5
    first = process.tell()
    ledger.hear("worker-1", first)
    ledger.hear("worker-1", first)
    assert ledger.read({1}).numbers == {DECISIONS: 5, WAITERS: 1}
    assert ledger.read(set()).numbers == {DECISIONS: 5}
    ledger.keep(set())
    process.count = 6
    ledger.hear("worker-1", process.tell())
    assert ledger.read({1}).numbers[DECISIONS] == 6, "last words may come after the end"
    frozen_clock.advance(LAST_WORDS_S + 1)
    ledger.keep(set())
    process.count = 7
    ledger.hear("worker-1", process.tell())
    assert ledger.read({1}).numbers == {DECISIONS: 6}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([1, 2, 3]),
        None,
        {"life": 1},
        msgspec.msgpack.encode(Told("x", 1, Sheet({("jobs_total", ("q",)): 1.0}))),
        msgspec.msgpack.encode(Told("x", 1, Sheet({("of_tomorrow", ()): 1.0}))),
    ],
)
def test_nonsense_is_no_sheet(data: Any, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    ledger.hear("worker-1", data)
    assert ledger.read({1}) == Sheet()
    assert "worker-1" in caplog.text


def test_names_that_somebody_thought_up_are_not_told() -> None:
    assert [known_as(name) for name in ("worker-1", "worker-1000", "mine", "worker-1x")] == [
        "worker-1",
        "worker-1000",
        "other",
        "other",
    ]


@pytest.fixture
async def fleet() -> AsyncIterator[SimpleNamespace]:
    async with Engine() as engine:
        manager = DynamicWorkerManager("shop", engine.broker, queues=engine.queues, min_workers=0, max_workers=3)
        metrics = FleetMetrics(engine, manager)
        yield SimpleNamespace(engine=engine, manager=manager, metrics=metrics)
        metrics.close()


async def test_the_supervisor_tells_of_itself_and_its_processes(fleet: SimpleNamespace) -> None:
    fleet.manager.decisions.add("workers", 1, 2, "12/s arrive, 3 wait")
    fleet.manager.failed_cycles = 2
    told = (await fleet.metrics.read()).numbers
    assert told["optimizer_decisions_total", ("workers", "n/s arrive")] == 1
    assert (told["workers_min", ()], told["workers_max", ()]) == (0, 3)
    assert told["workers", ("working",)] == 0
    assert told["control_failures_total", ()] == 2
    assert told["process_resident_memory_bytes", ("supervisor",)] > 1e6
    assert told["fleet_healthy", ()] == 1
    assert told["broker_up", ()] == 1
    body, kind = await fleet.metrics.render("application/openmetrics-text;version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert b"asyncworker_workers_max 3.0" in body


async def test_workers_sheets_come_in_by_the_manager(fleet: SimpleNamespace) -> None:
    worker = Engine()
    telling = Telling(ProcessMetrics(worker, None, target="worker-1").read)
    ends = [JobEnd("nobody", "nowhere", "succeeded", 0.02, 0.3)] * 3
    worker.bus.emit(JobsEnded(epoch="e", ends=ends))
    fleet.manager._crew.heard("worker-1", telling())
    told = await fleet.metrics.read()
    assert told.numbers["job_attempts_total", ("other", "other", "succeeded")] == 3
    assert sum(told.spreads["job_duration_seconds", ("other", "other")].counts) == 3
    assert ("process_resident_memory_bytes", ("worker-1",)) not in told.numbers, "that process is not there"


async def test_e15_random_tasks_and_queues_in_messages_make_no_series(fleet: SimpleNamespace) -> None:
    worker = Engine()
    telling = Telling(ProcessMetrics(worker, None).read)
    sizes = set()
    for _ in range(10):
        ends = [JobEnd(os.urandom(6).hex(), os.urandom(6).hex(), "succeeded", 0.0, 0.1) for _ in range(10_000)]
        worker.bus.emit(JobsEnded(epoch="e", ends=ends))
        fleet.manager._crew.heard("worker-1", telling())
        told = await fleet.metrics.read()
        sizes.add(len(told.numbers) + len(told.spreads))
        await asyncio.sleep(0)
    assert len(sizes) == 1
    assert told.numbers["job_attempts_total", ("other", "other", "succeeded")] == 100_000


async def test_every_number_told_is_in_the_catalogue(fleet: SimpleNamespace) -> None:
    told = await fleet.metrics.read()
    assert told.fits()
    assert {name for name, _ in told.numbers} <= set(CATALOGUE)
    assert module.SUPERVISOR in {label for _, labels in told.numbers for label in labels}

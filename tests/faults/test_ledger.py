"""The checker sees what it is for: a judge that cannot say no is none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from asyncworker.events import Bus, LeaseEnded, WorkerReaped, WorkerStarted
from asyncworker.queue.context import Context
from tests.faults.ledger import Fault, Ledger, Run, Story, judge, read

IDS = ["a", "b", "c"]


def ran(*ids: str, at: float = 1.0) -> list[Run]:
    return [Run(id, 0, 1, 7, "e", at) for id in ids]


def test_what_a_worker_writes_is_read(tmp_path: Path) -> None:
    ledger, bus = Ledger(tmp_path, "one"), Bus()
    ledger.follow(bus)
    bus.emit(WorkerStarted(epoch="e1", queues=("q",), concurrency=1))
    ledger.ran(Context("a", "task", "q", 2, 1, None))
    bus.emit(LeaseEnded(epoch="e1", because="it was silent for long"))
    bus.emit(WorkerReaped(epoch="e2", jobs=3))
    ledger.mark("here")
    ledger.write("ran", "not finished")
    ledger.close()
    path = tmp_path / "one.ledger"
    path.write_text(path.read_text().removesuffix("finished\n"))
    story = read(tmp_path)
    (run,) = story.runs
    assert (run.id, run.deliveries, run.attempt, run.epoch) == ("a", 1, 2, "e1")
    assert (story.lost, story.reaped, story.leases_lost, story.marks[0][0]) == (["e1"], {"e2": 3}, 2, "here")


@pytest.mark.parametrize(
    ("runs", "faults", "completed", "holds"),
    [
        ("abc", [], 3, True),
        ("ab", [], 3, False),  # lost
        ("abc", [], 2, False),  # ran, but is not over
        ("abcx", [], 3, False),  # nobody asked for x
        ("abcc", [], 3, False),  # twice without a cause
        ("abcc", [Fault(0.5, frozenset("c"))], 3, True),
        ("abcc", [Fault(0.5, frozenset("ab"))], 3, False),  # within the number, but not what was held
        ("abccc", [Fault(0.5, frozenset("abc"))], 3, False),
        ("abccc", [Fault(0.5, frozenset("c")), Fault(0.6, frozenset("bc"))], 3, True),
    ],
)
def test_a_broken_promise_is_seen(runs: str, faults: list[Fault], completed: int, holds: bool) -> None:
    verdict = judge("f", 1, IDS, Story(runs=ran(*runs)), faults, completed=completed)
    assert verdict.holds is holds, verdict


def test_what_the_fleet_gave_up_itself_counts_into_the_bound() -> None:
    fault = Fault(0.5, frozenset("a"), frozenset({"killed"}))
    story = Story(runs=ran(*"abccb"), reaped={"killed": 1, "starved": 1})
    assert not judge("f", 1, IDS, story, [fault], completed=3).holds
    assert judge(
        "f", 1, IDS, dataclasses.replace(story, reaped={"killed": 1, "starved": 2}), [fault], completed=3
    ).holds


def test_recovery_is_measured_from_the_fault() -> None:
    story = Story(runs=[*ran("a", at=1.0), *ran("b", "a", at=3.5), *ran("c", at=2.0)])
    verdict = judge("f", 1, IDS, story, [Fault(3.0, frozenset("abc"))], completed=3)
    assert verdict.recovered_p99_s == 0.5
    assert str(verdict) == (
        "f seed=1 tasks=3 completed=3 lost=0 duplicate=1 unexpected=0 bound=3 recovered_p99_s=0.50 elapsed=0.0"
    )

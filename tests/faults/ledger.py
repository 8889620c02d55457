"""The ledger that workers keep, and the judgement over it.

Each worker process appends to a file of its own, with one ``write`` a line, so that what it did stands there even when
it is killed right after. A run of a job is written before its end can be acknowledged. Lines begin with their kind:

    ran     id deliveries attempt pid epoch at    a run came to its end; at: seconds of the machine's monotonic clock
    joined  epoch pid                             an incarnation began
    lost    epoch because                         it lost its lease, or fenced itself
    reaped  epoch jobs                            somebody else's silence was taken for death, and its jobs given back
    mark    word pid                              whatever a test wants to know

The judgement is that of Jepsen's total queue: what went in must come out, and nothing else.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from asyncworker.events import Bus, LeaseEnded, WorkerReaped, WorkerStarted
from asyncworker.queue.context import Context

NOBODY = "-"


class Ledger:
    """The file of one worker."""

    def __init__(self, folder: Path, name: str = "") -> None:
        path = folder / f"{name or os.getpid()}.ledger"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._epoch = NOBODY

    def follow(self, bus: Bus) -> None:
        """Write down what becomes of the worker's leases, and of others'."""
        bus.listen(WorkerStarted, self._joined)
        bus.listen(LeaseEnded, lambda event: self.write("lost", event.epoch, event.because))
        bus.listen(WorkerReaped, lambda event: self.write("reaped", event.epoch, event.jobs))

    def ran(self, ctx: Context) -> None:
        self.write("ran", ctx.id, ctx.deliveries, ctx.attempt, os.getpid(), self._epoch, time.monotonic())

    def mark(self, word: str) -> None:
        self.write("mark", word, os.getpid())

    def write(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())

    def close(self) -> None:
        os.close(self._file)

    def _joined(self, event: WorkerStarted) -> None:
        self._epoch = event.epoch
        self.write("joined", event.epoch, os.getpid())


@dataclass(frozen=True)
class Run:
    """A line of a run."""

    id: str
    deliveries: int
    attempt: int
    pid: int
    epoch: str
    at: float

    @property
    def apart(self) -> bool:
        """Whether it was in a process of its own: that has no epoch."""
        return self.epoch == NOBODY


@dataclass
class Story:
    """All ledgers of a scenario, read."""

    runs: list[Run] = field(default_factory=list)
    joined: dict[str, int] = field(default_factory=dict)
    """epoch -> pid"""
    lost: list[str] = field(default_factory=list)
    reaped: dict[str, int] = field(default_factory=dict)
    """epoch -> how many jobs it held"""
    marks: list[tuple[str, int]] = field(default_factory=list)

    @property
    def leases_lost(self) -> int:
        return len(self.reaped.keys() | set(self.lost))


def read(folder: Path) -> Story:
    """Read all ledgers of a folder; a last line that was not finished is nothing yet."""
    story = Story()
    for path in sorted(folder.glob("*.ledger")):
        for line in path.read_text().split("\n")[:-1]:
            kind, *words = line.split(" ")
            match kind:
                case "ran":
                    id, deliveries, attempt, pid, epoch, at = words
                    story.runs.append(Run(id, int(deliveries), int(attempt), int(pid), epoch, float(at)))
                case "joined":
                    story.joined[words[0]] = int(words[1])
                case "lost":
                    story.lost.append(words[0])
                case "reaped":
                    story.reaped[words[0]] = int(words[1])
                case "mark":
                    story.marks.append((words[0], int(words[1])))
                case _:
                    raise AssertionError(f"{path.name}: no line of a ledger: {line!r}")
    return story


@dataclass(frozen=True)
class Fault:
    """Something that was done to a fleet: when, what was in flight there, and whose epochs it ended for good."""

    at: float
    held: frozenset[str]
    epochs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Verdict:
    """One line: ``lost`` jobs never ran to their end, ``unexpected`` runs nobody asked for; ``bound`` is what was in
    flight at the faults, which is how often a run may have been repeated."""

    scenario: str
    seed: int
    tasks: int
    completed: int
    lost: int
    duplicate: int
    unexpected: int
    bound: int
    recovered_p99_s: float
    elapsed: float

    def __str__(self) -> str:
        return (
            f"{self.scenario} seed={self.seed} tasks={self.tasks} completed={self.completed} lost={self.lost} "
            f"duplicate={self.duplicate} unexpected={self.unexpected} bound={self.bound} "
            f"recovered_p99_s={self.recovered_p99_s:.2f} elapsed={self.elapsed:.1f}"
        )

    @property
    def holds(self) -> bool:
        return self.lost + self.unexpected == 0 and self.duplicate <= self.bound and self.completed == self.tasks

    def check(self) -> None:
        """Print the line, and fail where a promise is broken."""
        print(self)
        assert self.holds, self


def judge(
    scenario: str,
    seed: int,
    ids: Collection[str],
    story: Story,
    faults: Iterable[Fault] = (),
    *,
    completed: int,
    elapsed: float = 0.0,
) -> Verdict:
    """Hold what ran against what was asked for.

    Args:
        ids: the jobs that were acknowledged. completed: how many the broker says have ended.

    A run is expected once, and once more for each fault that held its job, or whose worker the fleet itself gave up
    (a starved machine can make it do so): these count into the bound by their number.
    """
    faults = list(faults)
    times = Counter(run.id for run in story.runs)
    by_us = {epoch for fault in faults for epoch in fault.epochs}
    given_up = sum(jobs for epoch, jobs in story.reaped.items() if epoch not in by_us)
    excused = Counter(id for fault in faults for id in fault.held)
    known = set(ids)
    unexcused = sum(max(0, count - 1 - excused[id]) for id, count in times.items() if id in known)
    return Verdict(
        scenario=scenario,
        seed=seed,
        tasks=len(known),
        completed=completed,
        lost=len(known - times.keys()),
        duplicate=sum(count - 1 for id, count in times.items() if id in known),
        unexpected=sum(count for id, count in times.items() if id not in known) + max(0, unexcused - given_up),
        bound=sum(len(fault.held) for fault in faults) + given_up,
        recovered_p99_s=_p99(_recoveries(story.runs, faults)),
        elapsed=elapsed,
    )


def _recoveries(runs: Iterable[Run], faults: Iterable[Fault]) -> list[float]:
    """Return how long after each fault the jobs that it held ran to their end, where they had not before."""
    ends: dict[str, list[float]] = {}
    for run in runs:
        ends.setdefault(run.id, []).append(run.at)
    later = ([at - fault.at for at in ends.get(id, ()) if at >= fault.at] for fault in faults for id in fault.held)
    return [min(waits) for waits in later if waits]


def _p99(values: list[float]) -> float:
    return sorted(values)[len(values) * 99 // 100] if values else 0.0

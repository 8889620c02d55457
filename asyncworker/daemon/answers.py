"""What can be seen of a fleet, as data: what JSON and HTML are both made of.

Dates are seconds since the epoch, lengths of time seconds. Texts that come from users (errors, arguments, results) are
bounded and have their secrets masked, but are not escaped: who puts them into HTML does that.
"""

from __future__ import annotations

from typing import Any

import msgspec

from asyncworker.daemon.explained import Explained, Sized
from asyncworker.daemon.top import TaskTop
from asyncworker.job import JobStatus
from asyncworker.queue.job import State
from asyncworker.tune.bottleneck import Bottleneck
from asyncworker.tune.sensors.profiler import FunctionProfile


class QueueSeen(msgspec.Struct, frozen=True):
    """One queue: what lies in it now, and the broker's counts of all that ever passed.

    ``in_per_s`` and ``out_per_s`` are means of the last ten seconds. ``most``: how many jobs may wait; None: any number.
    ``workers``: how many live workers read it.
    """

    name: str
    queued: int
    scheduled: int
    blocked: int
    oldest_s: float
    paused: bool
    most: int | None
    enqueued: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    retried: int
    redelivered: int
    in_per_s: float
    out_per_s: float
    workers: int


class Queues(msgspec.Struct, frozen=True):
    queues: list[QueueSeen]


class FleetSeen(msgspec.Struct, frozen=True):
    """What the supervisor does: how many workers there are, are wanted, and why.

    ``crash_loops`` are the names of workers that die young again and again.
    """

    min_workers: int
    max_workers: int
    workers: int
    wanted: int
    because: str
    healthy: bool
    crashes: int
    crash_loops: list[str]
    cpu_percent: float | None
    memory_percent: float | None


class Overview(msgspec.Struct, frozen=True):
    """The whole at a glance. Rates are means of the last ten seconds; ``fleet`` is None where nobody supervises.

    ``p50_s`` and ``p95_s``: of the jobs that ended within the last second or so, None where none did.
    """

    at_s: float
    version: str
    broker: str
    namespace: str
    queued: int
    scheduled: int
    blocked: int
    running: int
    workers: int
    oldest_s: float
    in_per_s: float
    out_per_s: float
    failed_per_s: float
    fleet: FleetSeen | None
    tasks: list[TaskTop]
    queues: list[QueueSeen]
    p50_s: float | None = None
    p95_s: float | None = None


class Series(msgspec.Struct, frozen=True):
    """The last minutes, a point a second, as columns of one length; rates are a second's own.

    While the broker cannot be reached there are no points.
    """

    at_s: list[float]
    in_per_s: list[float]
    succeeded_per_s: list[float]
    failed_per_s: list[float]
    retried_per_s: list[float]
    queued: list[int]
    scheduled: list[int]
    blocked: list[int]
    running: list[int]
    workers: list[int]
    oldest_s: list[float]


class JobPage(msgspec.Struct, frozen=True):
    """Jobs, and the cursor of those that follow; "": there are no more. A page may have few and be followed by others."""

    jobs: list[JobStatus]
    cursor: str


class Moment(msgspec.Struct, frozen=True):
    """Something that happened to a job, or (``coming``) will."""

    at_s: float
    what: str
    coming: bool = False


class PartitionSeen(msgspec.Struct, frozen=True):
    """One partition of a map/reduce job; ``seconds`` and ``worker`` of one that is done."""

    id: str
    part: int
    state: State
    items: int
    failed: int
    attempt: int
    deliveries: int
    seconds: float | None
    worker: str | None
    error: str | None


class RunSeen(msgspec.Struct, frozen=True):
    """A map/reduce job. ``ratio`` is 0..1; ``total`` grows until ``sealed``; ``eta_s``: None until it is known.

    ``phase``: ``planning mapping reducing``, "" before it begins and when it is over.
    """

    id: str
    state: State
    function: str
    dataset: str
    created_at: float
    ended_at: float | None
    done: int
    total: int
    failed: int
    items: int
    items_per_s: float
    ratio: float
    sealed: bool
    eta_s: float | None
    error: str | None
    phase: str = ""


class RunPage(msgspec.Struct, frozen=True):
    runs: list[RunSeen]
    cursor: str


class RunDetail(msgspec.Struct, frozen=True):
    """A map/reduce job and some of its partitions, from number ``first`` on; they go when the job is over.

    ``parameters`` and ``result`` (the summary) are JSON texts; None where they are not shown.
    """

    run: RunSeen
    first: int
    partitions: list[PartitionSeen]
    parameters: str | None
    result: str | None


class JobDetail(msgspec.Struct, frozen=True):
    """One job. ``arguments`` and ``result`` are JSON texts; None where they are not shown, or nobody keeps them.

    ``shown`` tells whether the setting ``show_arguments`` lets them be seen. ``run`` is set of a map/reduce job.
    """

    job: JobStatus
    timeline: list[Moment]
    shown: bool
    arguments: str | None
    result: str | None
    run: RunDetail | None


class Result(msgspec.Struct, frozen=True):
    """How a job ended: its value, or ``error``. ``over`` is false while it goes on."""

    id: str
    over: bool
    value: Any = None
    error: str | None = None


class WorkerSeen(msgspec.Struct, frozen=True):
    """A live worker or submitter (``role``). ``name`` and ``stage`` of one that is supervised here.

    What it measures of itself (from ``cpu_ratio`` on) is None where it does not, or has not yet.
    """

    source: str
    name: str | None
    role: str
    stage: str | None
    version: str
    queues: tuple[str, ...]
    concurrency: int
    started_at: float | None
    running: int | None
    jobs: int | None
    rss_bytes: float | None
    cpu_ratio: float | None = None
    loop_ratio: float | None = None
    lag_p50_s: float | None = None
    lag_p99_s: float | None = None
    held: int | None = None
    sizes: dict[str, tuple[int, int]] = {}


class Workers(msgspec.Struct, frozen=True):
    """``held``: lines of code that held an event loop lately, and in which worker."""

    fleet: FleetSeen | None
    workers: list[WorkerSeen]
    held: list[tuple[str, str]]


class ScheduleSeen(msgspec.Struct, frozen=True):
    """``fixed`` ones are in the code of the engine; ``last`` is None where no tick has fired."""

    name: str
    task: str
    when: str
    queue: str
    priority: int
    missed: str
    fixed: bool
    last: float | None
    next: float


class Schedules(msgspec.Struct, frozen=True):
    schedules: list[ScheduleSeen]


class DeadLetter(msgspec.Struct, frozen=True):
    id: str
    task: str
    queue: str
    priority: int
    attempt: int
    deliveries: int
    reason: str
    error: str
    failed_at: float


class DeadPage(msgspec.Struct, frozen=True):
    """Dead letters, youngest jobs first; ``total`` of all queues and tasks."""

    letters: list[DeadLetter]
    total: int
    cursor: str


class DecisionsSeen(msgspec.Struct, frozen=True):
    """Sizes as they are and were, and the decisions, youngest first."""

    sizes: list[Sized]
    decisions: list[Explained]


class ProfileSeen(msgspec.Struct, frozen=True):
    """Where one worker's time went since it was started."""

    source: str
    seconds: float
    functions: list[FunctionProfile]
    bottlenecks: list[Bottleneck]


class Profile(msgspec.Struct, frozen=True):
    """Of each worker that measures itself; it takes a worker some seconds to notice that somebody looks."""

    workers: list[ProfileSeen]


class MemorySeen(msgspec.Struct, frozen=True):
    source: str
    readings: dict[str, float]


class Memory(msgspec.Struct, frozen=True):
    memory_percent: float | None
    workers: list[MemorySeen]


class SettingSeen(msgspec.Struct, frozen=True):
    """``origin``: a flag, a variable, a file, or ``default``. Secrets are shown as stars."""

    name: str
    value: str
    origin: str
    doc: str


class SettingsSeen(msgspec.Struct, frozen=True):
    settings: list[SettingSeen]


class Names(msgspec.Struct, frozen=True):
    """What can be asked for by name."""

    tasks: list[str]
    queues: list[str]
    functions: list[str]
    states: list[str]


class AuditRow(msgspec.Struct, frozen=True):
    """Something that somebody did: who (a token's name), what, to what, and what came of it."""

    at_s: float
    who: str
    action: str
    target: str
    outcome: str


class AuditPage(msgspec.Struct, frozen=True):
    rows: list[AuditRow]

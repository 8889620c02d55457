"""The words of the queue: what travels between who asks and who works. Data only, ids instead of objects.

A *task* is a registered function, a *job* one enqueued call of it. A job whose id is ``<parent>.<part>`` is a
*child* of the job ``<parent>``: it lives while its parent lives, and the settle that ends the last child of a
sealed parent releases the parent.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

ID_LENGTH = 26
PRIORITIES = range(10)
DEFAULT_PRIORITY = 5


MAX_DELIVERIES = 3
APART = 10
"""Workers that may die with a job in hand after its ``max_deliveries``: it runs in a process of its own then, so that it
was hardly the cause."""


class State(StrEnum):
    """Where a job is. The last four are terminal: exactly one of them is reached, once."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    BLOCKED = "blocked"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED})


class Reason(StrEnum):
    """Why a job is ``failed``."""

    ERROR = "error"
    TIMEOUT = "timeout"
    WORKER_LOST = "worker_lost"
    BAD_PAYLOAD = "bad_payload"
    DEPENDENCY = "dependency"
    UNKNOWN_TASK = "unknown_task"


class Job(msgspec.Struct, frozen=True, gc=False):
    """A job on its way into the broker.

    ``payload`` is `codec.pack_call`; ``options`` (task options that this one call overrides, by name) travel
    with it; with ``unique`` among them no other job of that key is taken in until this one is over. ``delay_s`` counts from the broker's clock, ``at_s`` is a date in seconds since the epoch; 0 is
    now. ``after`` names jobs, each once, that must be over before this one is handed out: it is ``blocked`` until then. One
    of them that ends otherwise than by success fails it at once, as ``dependency``, unless its option ``allow_failure``
    is true. With the option ``input`` (1) or ``inputs`` (how many of the first) the broker keeps how they ended for it,
    whatever becomes of their own results: read as ``<id>.<place>``. ``hold`` names an epoch that has joined: the job is
    born running in its hands and sealed by it later (`Op.SEAL`), which is how a map/reduce job takes children while it
    is still being cut. ``durable``: where it must be when enqueueing it returns (`asyncworker.queue.durability`).
    """

    id: str
    queue: str
    payload: bytes
    priority: int = DEFAULT_PRIORITY
    options: dict[str, Any] = {}
    delay_s: float = 0.0
    at_s: float = 0.0
    hold: str = ""
    durable: str = "memory"
    after: tuple[str, ...] = ()


class Receipt(StrEnum):
    """What became of a job handed to `Broker.enqueue`."""

    ACCEPTED = "ok"
    KNOWN = "known"  # this very id is there already (or its result is): nothing was added
    FULL = "full"  # as many jobs wait in its queue as may: nothing was added
    CLOSED = "closed"  # its parent is over, or its holder's lease is: nothing was added


class Twin(msgspec.Struct, frozen=True, gc=False):
    """The other answer of `Broker.enqueue`: a job that is not over has the same ``unique`` key; nothing was added."""

    id: str


class Missing(msgspec.Struct, frozen=True, gc=False):
    """Another answer of `Broker.enqueue`: nobody knows this job, after which the new one is to run; nothing was added."""

    id: str


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """A job handed to a worker, which owns it until it settles it or loses its lease.

    ``attempt`` counts from 1; ``deliveries`` counts workers that died with this job in hand; ``put_back``
    counts how often workers did not know its task. ``enqueued_ms`` is when the broker took it in, by its own clock;
    of a job without ``expires`` and ``deadline`` it need not know (0). ``plain`` jobs need no per-job work there.
    ``checkpoint`` is the text that an attempt before left (`Op.CHECKPOINT`).
    """

    id: str
    queue: str
    payload: bytes
    priority: int = DEFAULT_PRIORITY
    options: dict[str, Any] = {}
    attempt: int = 1
    deliveries: int = 0
    put_back: int = 0
    enqueued_ms: int = 0
    cancel_asked: bool = False
    plain: bool = True
    checkpoint: str = ""


class Op(StrEnum):
    """What becomes of a delivered job; beside each, what ``number`` · ``value`` of `Settled` mean."""

    SUCCEEDED = "s"  # result TTL in s (a child: units of work done) · the record
    FAILED = "f"  # failure TTL in s · the record
    CANCELLED = "c"  # TTL in s · the record
    EXPIRED = "e"  # TTL in s · the record
    RETRY = "r"  # delay in ms, an attempt is spent · the error's text
    SNOOZE = "z"  # delay in ms, no attempt is spent · why
    PUT_BACK = "p"  # delay in ms, no attempt is spent: nobody here knows the task · why
    GATE = "g"  # never started, for its task has limits that it does not name: back to the head with them · options, payload
    RELEASE = "u"  # never started: back to the head of its queue, nothing is spent
    CHUNK = "v"  # a part of a child's result that is too large for one record: its number · the bytes
    CHECKPOINT = "k"  # nothing is settled: what the next attempt is to know · text
    PROGRESS = "h"  # nothing is settled: how far the attempt is, "<done> <total>" · text
    SEAL = "b"  # a held parent has all its children now: from here on it waits for them
    OPEN = "o"  # a released parent takes children again, in the hands of its worker: steps of its reduction, until it is sealed


UNSETTLED = frozenset({Op.CHUNK, Op.CHECKPOINT, Op.PROGRESS, Op.OPEN})
"""What is said of a job that its epoch goes on holding."""


class Settled(msgspec.Struct, frozen=True, gc=False):
    """What became of one delivery."""

    id: str
    op: Op
    queue: str = ""
    number: int = 0
    value: bytes = b""
    plain: bool = False  # Op.SUCCEEDED of a plain delivery: takes the path without per-job work


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """The answer to one step.

    ``now_ms`` is the broker's clock. ``next_due_ms`` is when the next delayed job of these queues is due, -1
    where none is or as many jobs were claimed as wanted. ``held`` is None but after a lost reply: then it lists all that this
    epoch holds, of which ``deliveries`` are those that the caller may never have heard of.
    """

    now_ms: int
    next_due_ms: int
    deliveries: list[Delivery]
    held: frozenset[str] | None = None


class Record(msgspec.Struct, frozen=True, array_like=True):
    """How a job ended, as its worker wrote it. ``value`` is the result; the rest is about failures.

    ``stored`` names the result in a store, where the whole of this record lies (`asyncworker.queue.offload`).
    """

    task: str = ""
    attempt: int = 0
    started_s: float = 0.0
    ended_s: float = 0.0
    value: Any = None
    reason: str = ""
    error_type: str = ""
    error_text: str = ""
    detail: Any = None
    queue: str = ""
    stored: str = ""


class Counted(msgspec.Struct, frozen=True):
    """A result together with how many units of work it stands for; a parent's progress adds them."""

    value: Any
    units: int


class Parted(msgspec.Struct, frozen=True):
    """What a parent's task returns that has opened it again (`Context.reopen`): it waits for its new children, then runs anew."""


class Ended(msgspec.Struct, frozen=True):
    """A finished job: its terminal state, and its `Record` as bytes (empty where nobody wrote one)."""

    state: State
    record: bytes


class Progress(msgspec.Struct, frozen=True):
    """What the broker counts about a parent's children. ``total`` may still grow until ``sealed``."""

    total: int
    done: int
    failed: int
    units: int
    sealed: bool
    over: bool  # all children done, or one failed for good: the parent has been released


class Found(msgspec.Struct, frozen=True):
    """What the broker knows about a job. Times are seconds since the epoch by the broker's clock, 0 = unknown."""

    id: str
    state: State
    queue: str = ""
    priority: int = DEFAULT_PRIORITY
    attempt: int = 0
    deliveries: int = 0
    started_s: float = 0.0
    due_s: float = 0.0
    error: str = ""
    payload: bytes = b""
    record: bytes = b""
    progress: str = ""  # what it says itself, while it is not over: `Op.PROGRESS`
    children: Progress | None = None
    after: Progress | None = None  # the jobs that it was to wait for, as those are counted
    waits_for: tuple[str, ...] = ()  # the first few of them that are not over


class WorkerCard(msgspec.Struct, frozen=True):
    """Who joins: for people to read, never to decide by. ``lease_s`` is how long its silence is forgiven.

    ``concurrency``: jobs at once; 0 where the worker finds that out.
    """

    host: str
    pid: int
    queues: tuple[str, ...]
    concurrency: int
    lease_s: float
    started_s: float
    version: str = ""
    role: str = "worker"  # or "feeder": holds a job that is still being cut, claims nothing


class QueueDepth(msgspec.Struct, frozen=True):
    """How much lies in one queue, and the broker's own counts of all that ever passed."""

    queued: int = 0
    scheduled: int = 0
    oldest_s: float = 0.0  # how long the job at the head of its longest-waiting level has existed
    paused: bool = False
    most: int | None = None  # how many jobs may wait here
    enqueued: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    retried: int = 0
    redelivered: int = 0
    blocked: int = 0  # wait for a limit or a rate


class Depth(msgspec.Struct, frozen=True):
    """A look at the whole broker: queues by name, how many jobs run, live workers by epoch, how many each holds."""

    queues: dict[str, QueueDepth]
    running: int
    workers: dict[str, WorkerCard]
    held: dict[str, int] = {}


def parent_of(job_id: str) -> str | None:
    """Return the parent's id of a child, None for any other job."""
    return job_id[:ID_LENGTH] if len(job_id) > ID_LENGTH else None


COPY = "~2"


def copy_of(child: str) -> str:
    """Return the id of a child's copy: the same part, done a second time; whoever succeeds first counts."""
    return child + COPY


def original_of(child: str) -> str | None:
    """Return of whom this is the copy; None where it is none."""
    return child.removesuffix(COPY) if child.endswith(COPY) else None


def child_id(parent: str, part: int) -> str:
    """Return the id of a parent's child number *part* (0..2^31)."""
    return f"{parent}.{part}"

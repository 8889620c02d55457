"""The words of map/reduce: what travels between who cuts, who maps and who reduces. Data only.

A map/reduce *job* is a parent job of the queue; its *partitions* are its children. All that partitions share lies
once, with the parent (`Plan`); a child carries its `Partition` alone and leaves a `Partial`, and the parent's own
result is the `Summary`.
"""

from __future__ import annotations

from typing import Any, TypedDict, TypeVar

import msgspec

from asyncworker.errors import DecodeError
from asyncworker.mapreduce.digest import Digest
from asyncworker.mapreduce.sources.source import Key
from asyncworker.queue.codec import unpack_call
from asyncworker.queue.job import State

MAP_TASK = "asyncworker.map"
MERGE_TASK = "asyncworker.merge"
REDUCE_TASK = "asyncworker.reduce"

CHUNK_BYTES = 2**20
"""What is too large to travel in one piece is sent in pieces of this size."""
FAILURES_KEPT = 100
"""Failed items told of by key and error, a partition and a job; counts are exact beyond it."""
ERROR_CHARS = 300


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """What all partitions of one job share: the argument of the parent's call.

    ``source``, ``to`` (rows), ``failed_to`` (failed items) and ``results`` (the database of the result row) are URLs
    and may hold secrets; ``dataset_id`` is for people. ``max_failures`` is None, a count of items (int) or a share of them (float, 0..1).
    ``fan_in``: partials a step of the reduction merges; ``reducers``: among how many keys are shared out; 0: as many as it takes.
    ``partition_attempts``: 0, as the workers have it. ``speculate``: workers copy partitions that are late.
    ``cache``: where the result is kept for whoever asks again (a URL), by which key, and for how long in s.
    """

    source: str
    dataset_id: str
    function: str
    params: dict[str, Any] = {}
    partition_size: int = 0
    max_failures: int | float | None = None
    to: str | None = None
    results: str | None = None
    item_attempts: int = 1
    failed_to: str | None = None
    fan_in: int = 0
    reducers: int = 0
    partition_attempts: int = 0
    speculate: bool = False
    cache: tuple[str, str, float] | None = None


class Failure(msgspec.Struct, frozen=True):
    """An item that failed: its key in the source, and why."""

    key: Key
    error_type: str
    error_text: str


class Partial(msgspec.Struct, frozen=True):
    """What one partition came to, or one step of the reduction.

    ``acc`` is the packed accumulator, of ``size`` bytes, or empty where it was sent ahead: in so many ``chunks``; by
    keys in as many ``runs`` of pieces (`asyncworker.mapreduce.pieces`). ``seconds`` is how long the
    partition took, ``worker`` who did it (host:pid), for people. ``rejected``: which partitions sent
    failed items ahead, and in how many chunks. ``at``: under which
    id its chunks lie, where that is its copy's. ``place``: `Partition.place`.
    """

    items: int
    succeeded: int
    failed: int
    seconds: float
    acc: bytes = b""
    chunks: int = 0
    failures: list[Failure] = []
    worker: str = ""
    digest: Digest = Digest()
    rejected: list[tuple[str, int]] = []
    at: str = ""
    place: tuple[int, int, str] = (0, 0, "")
    runs: list[int] = []
    size: int = 0


class Summary(TypedDict):
    """A job's result. Keys as people know them; ``success_rate`` is in percent, ``completed_at`` a date in s."""

    job_id: str
    dataset_id: str
    processing_function: str
    total_processed: int
    total_successful: int
    total_failed: int
    success_rate: float
    final_result: Any
    partitions_processed: int
    partitions_failed: int
    processing_stats: dict[str, Any]
    failures: list[dict[str, Any]]
    completed_at: float


class Progress(msgspec.Struct, frozen=True):
    """How far a job is, as counted by the broker: never guessed, and none of its numbers ever falls but the rate.

    ``done`` of ``total`` partitions are over (``failed`` of them for good), and ``items`` were processed in them.
    ``total`` grows while the source is still being cut, that is until ``sealed``. ``eta_s`` is None until it is known.
    """

    state: State
    done: int = 0
    total: int = 0
    items: int = 0
    items_per_s: float = 0.0
    eta_s: float | None = None
    failed: int = 0
    sealed: bool = False

    @property
    def phase(self) -> str:
        """What is being done: ``planning mapping reducing``; "" of a job that is over, or has not begun."""
        if self.state is not State.RUNNING:
            return ""
        return "planning" if not self.sealed else "mapping" if self.done < self.total else "reducing"

    @property
    def ratio(self) -> float:
        """What part of the job is done, 0..1; 0 until the total is known."""
        if self.state is State.SUCCEEDED:
            return 1.0
        return self.done / self.total if self.sealed and self.total else 0.0


class ProcessingPartition(msgspec.Struct):
    """A partition as people look at it.

    ``data_range`` is the half-open range of items by their position in the source. ``assigned_worker`` (host:pid) is
    None until one has done it; ``estimated_processing_time`` is measured in s: its own time once it is done, before
    that the mean of those that are, by its items; 0 while none is.
    """

    partition_id: str
    data_range: tuple[int, int]
    parameters: dict[str, Any] = {}
    assigned_worker: str | None = None
    estimated_processing_time: float = 0.0


class ProcessingJob(msgspec.Struct):
    """A map/reduce job as people look at it. Times are dates in s, 0 = not yet.

    ``status`` is one of ``pending running completed failed cancelled``; ``state`` is the queue's word for it.
    ``partitions`` is empty unless asked for; ``progress.total`` is how many there are.
    """

    job_id: str
    dataset_id: str
    processing_function: str
    parameters: dict[str, Any]
    partitions: list[ProcessingPartition] = []
    status: str = "pending"
    start_time: float = 0.0
    end_time: float = 0.0
    result: Any = None
    error: str | None = None
    state: State = State.QUEUED
    progress: Progress = Progress(State.QUEUED)


STATUS = {
    State.RUNNING: "running",
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.EXPIRED: "failed",
    State.CANCELLED: "cancelled",
}
"""The words of ``status``; every other state is ``pending``."""

T = TypeVar("T")


def read(kind: type[T], value: Any) -> T:
    """Return an unpacked *value* as one of the words above.

    Raises:
        DecodeError: it is none.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        raise DecodeError(f"this is no {kind.__name__}: {exc}") from exc


def read_call(kind: type[T], payload: bytes) -> T:
    """Return the one argument of a packed call.

    Raises:
        DecodeError: the payload is no call, or has no such argument.
    """
    _, args, _ = unpack_call(payload)
    return read(kind, args[0] if args else None)

"""The catalogue of metrics: what is exported, of which type, with which labels. All that makes or merges some reads it.

Names are told with the prefix ``asyncworker_``; units are seconds and bytes, a ratio is 0..1. Label values come from
what was registered, never from a message: what nobody registered is `OTHER`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from asyncworker.tune.histogram import FINEST_S
from asyncworker.tune.sensors.jobs import BOUNDS_S, OTHER

PREFIX = "asyncworker_"
LABELS = ("queue", "task", "status", "reason", "pool", "limiter", "target", "state")
"""All labels there are."""
DOUBLINGS = range(7, 25)
"""Buckets from 128 microseconds to 17 seconds, each twice as wide as the one before."""
SHORT_S = tuple(float(f"{FINEST_S * 2**n:.6g}") for n in DOUBLINGS)

Kind = Literal["counter", "gauge", "histogram"]
Source = Literal["broker", "worker", "supervisor"]
"""Who knows: the broker counts for all; each worker process for itself, and the fleet's is the sum of them; the supervisor
alone knows of its processes."""


class Entry(msgspec.Struct, frozen=True):
    """One metric.

    Attributes:
        name: without the prefix. doc: what it is, for people.
        largest: several processes' gauges make their largest, else their sum.
        bounds: upper bounds of a histogram's buckets in seconds, without infinity.
    """

    name: str
    kind: Kind
    source: Source
    labels: tuple[str, ...]
    doc: str
    largest: bool = False
    bounds: tuple[float, ...] = ()


_TOLD: tuple[Entry, ...] = (
    Entry("jobs_enqueued_total", "counter", "broker", ("queue",), "Jobs taken in."),
    Entry("jobs_total", "counter", "broker", ("queue", "status"), "Jobs that ended, each once."),
    Entry("job_retries_total", "counter", "broker", ("queue",), "Attempts that will be followed by another."),
    Entry("jobs_redelivered_total", "counter", "broker", ("queue",), "Jobs given back because their worker died."),
    Entry("jobs_running", "gauge", "broker", (), "Jobs in workers' hands."),
    Entry("queue_jobs", "gauge", "broker", ("queue", "state"), "Jobs that wait."),
    Entry("queue_oldest_seconds", "gauge", "broker", ("queue",), "Age of the next job."),
    Entry("queue_paused", "gauge", "broker", ("queue",), "1 while none of its jobs are handed out."),
    Entry("queue_bound_jobs", "gauge", "broker", ("queue",), "How many jobs may wait, where that is bounded."),
    Entry("dead_letters", "gauge", "broker", (), "Jobs that failed for good and are kept, up to 10,000."),
    Entry("schedules", "gauge", "broker", (), "Schedules that enqueue by the calendar."),
    Entry("workers_alive", "gauge", "broker", (), "Workers that the broker hears of, on all machines."),
    Entry("broker_up", "gauge", "broker", (), "1 if the broker answered this scrape, 0 if not."),
    Entry("map_reduce_jobs", "gauge", "broker", (), "Map/reduce jobs under way."),
    Entry("job_progress_ratio", "gauge", "broker", (), "Share of the partitions done, of map/reduce jobs under way."),
    Entry(
        "job_duration_seconds", "histogram", "worker", ("task", "queue"), "How long one attempt ran.", bounds=BOUNDS_S
    ),
    Entry(
        "job_wait_seconds",
        "histogram",
        "worker",
        ("task", "queue"),
        "From when a job could start until it did.",
        bounds=BOUNDS_S,
    ),
    Entry("job_attempts_total", "counter", "worker", ("task", "queue", "status"), "Attempts that ended, by how."),
    Entry("partitions_total", "counter", "worker", ("status",), "Partitions of map/reduce jobs that ended, by how."),
    Entry("broker_disruptions_total", "counter", "worker", (), "Times that a process lost the broker."),
    Entry("concurrency_limit", "gauge", "worker", ("limiter",), "How many at once."),
    Entry("concurrency_inflight", "gauge", "worker", ("limiter",), "How many now."),
    Entry("optimizer_decisions_total", "counter", "worker", ("limiter", "reason"), "Changes of a size, by cause."),
    Entry("batch_size", "gauge", "worker", ("task",), "Items that the next batch takes at most.", largest=True),
    Entry(
        "batch_wait_seconds",
        "histogram",
        "worker",
        ("task",),
        "From adding an item to the start of its batch.",
        bounds=SHORT_S,
    ),
    Entry("pool_connections", "gauge", "worker", ("pool", "state"), "Connections, by what they do."),
    Entry("pool_waiters", "gauge", "worker", ("pool",), "Callers that wait for a connection."),
    Entry(
        "pool_acquire_seconds",
        "histogram",
        "worker",
        ("pool",),
        "How long callers waited for a connection.",
        bounds=SHORT_S,
    ),
    Entry(
        "pool_leaks_total",
        "counter",
        "worker",
        ("pool",),
        "Borrowed connections that seemed not to come back.",
    ),
    Entry(
        "event_loop_lag_seconds",
        "histogram",
        "worker",
        (),
        "How long what is ready waits for its turn on the event loop.",
        bounds=SHORT_S,
    ),
    Entry("event_loop_stalls_total", "counter", "worker", (), "Times that an event loop was held for long."),
    Entry(
        "event_loop_busy_ratio",
        "gauge",
        "worker",
        ("target",),
        "Share of the last second in which the event loop of a process was busy.",
        largest=True,
    ),
    Entry("gc_pause_seconds_total", "counter", "worker", (), "Time in which the garbage collector held its process."),
    Entry("process_resident_memory_bytes", "gauge", "worker", ("target",), "Memory of a process."),
    Entry("process_objects", "gauge", "worker", (), "Objects that the garbage collector knew at the last look."),
    Entry(
        "memory_leaks_suspected",
        "gauge",
        "worker",
        (),
        "Types whose objects became more and more, at the last look.",
    ),
    Entry("profiled_jobs_total", "counter", "worker", ("task",), "Jobs that were measured."),
    Entry("profiled_seconds_total", "counter", "worker", ("task", "state"), "Time of the jobs that were measured."),
    Entry("workers", "gauge", "supervisor", ("state",), "Worker processes of this supervisor."),
    Entry("workers_wanted", "gauge", "supervisor", (), "Worker processes that there should be now."),
    Entry("workers_min", "gauge", "supervisor", (), "Worker processes that are always there."),
    Entry("workers_max", "gauge", "supervisor", (), "Worker processes at most."),
    Entry("worker_info", "gauge", "supervisor", ("target", "state"), "1 for each worker process, by its name."),
    Entry("worker_starts_total", "counter", "supervisor", (), "Worker processes that were started."),
    Entry(
        "worker_crashes_total",
        "counter",
        "supervisor",
        ("reason",),
        "Worker processes that ended without having been told to: by a signal, or else by themselves (exit).",
    ),
    Entry("worker_crash_loops", "gauge", "supervisor", (), "Worker processes that die young again and again."),
    Entry("control_failures_total", "counter", "supervisor", (), "Cycles of the control loop that failed."),
    Entry("fleet_healthy", "gauge", "supervisor", (), "1 while /healthz is green, 0 while it is red."),
    Entry("fleet_ready", "gauge", "supervisor", (), "1 while /readyz is green, 0 while it is red."),
    Entry("host_processors", "gauge", "supervisor", (), "Processors that this fleet may use."),
    Entry("host_cpu_ratio", "gauge", "supervisor", (), "Share of the processors that is in use."),
    Entry("host_memory_bytes", "gauge", "supervisor", (), "Memory that this fleet may use, with what is in use."),
    Entry("host_memory_used_bytes", "gauge", "supervisor", (), "Memory in use."),
)
CATALOGUE = {entry.name: entry for entry in _TOLD}
"""All metrics by name, in the order in which they are told."""

VALUES = {
    "queue": "a queue that this engine serves",
    "task": "a task, or a batch processor",
    "status": "how it ended: `succeeded` `failed` `cancelled` `expired`; of attempts also `retrying` `snoozed` `unknown`",
    "reason": "a decision's cause, numbers as `n`; of a crash `SIGKILL` …, or `exit`",
    "pool": "a pool of connections",
    "limiter": "what is sized: a task, a pool …, and `workers`",
    "target": "a process: `supervisor`, `worker-1` …; `worker` where it has no supervisor",
    "state": "of `queue_jobs`: `queued` `scheduled` `blocked`; of workers: `starting` `working` `leaving` `due`; of"
    " connections: `used` `idle`; of profiled time: `on_loop` `cpu` `await` `ready`",
}


def table() -> str:
    """Return the catalogue as a page of Markdown."""
    lines = [
        "# Metrics",
        "",
        "Written by `asyncworker export metrics`. A daemon serves all of them, for its whole fleet; a worker by itself",
        "those of the broker and of workers. The broker counts exactly, whatever dies; what workers count may lack the last",
        "second of one that was killed, and never goes down. Read what the broker knows from one place, never as a sum.",
        "",
        "| name | type | who knows | labels | what it is |",
        "|---|---|---|---|---|",
    ]
    for entry in _TOLD:
        labels = " ".join(f"`{label}`" for label in entry.labels)
        lines.append(f"| `{PREFIX}{entry.name}` | {entry.kind} | {entry.source} | {labels} | {entry.doc} |")
    lines += ["", "| label | values |", "|---|---|"]
    lines += [f"| `{label}` | {VALUES[label]}; else `{OTHER}` |" for label in LABELS]
    return "\n".join([*lines, ""])

"""Answers made of what several places know of one thing: pure, so that each can be tried alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from asyncworker.daemon.answers import DeadLetter, Moment, WorkerSeen
from asyncworker.daemon.instruments import Look
from asyncworker.daemon.text import shown_error
from asyncworker.job import JobStatus, status_of
from asyncworker.queue.job import TERMINAL, Found, WorkerCard
from asyncworker.queue.search import record_of


def timeline(status: JobStatus) -> list[Moment]:
    over = status.state in TERMINAL
    told = [
        (status.enqueued_at, "enqueued", False),
        (status.due_at, "due", not over),
        (status.started_at, "started", False),
        (status.ended_at, str(status.state), False),
    ]
    return sorted((Moment(at, what, coming) for at, what, coming in told if at), key=lambda of: of.at_s)


def worker_seen(
    source: str, card: WorkerCard | None, own: Mapping[str, Any] | None, look: Look | None, now: float
) -> WorkerSeen:
    """Put together what the broker, the supervisor and the worker itself tell."""
    running = sum(of.running for of in look.snapshot.jobs) if look and look.watched else None
    seen = WorkerSeen(
        source,
        own["name"] if own else None,
        card.role if card else "worker",
        own["stage"] if own else None,
        card.version if card else "",
        card.queues if card else (),
        card.concurrency if card else 0,
        card.started_s if card else now - own["age_s"] if own else None,
        own["running"] if own else running,
        own["jobs"] if own else None,
        own["rss_bytes"] if own and own["rss_bytes"] else None,
    )
    if look is None:
        return seen
    snapshot = look.snapshot
    return msgspec.structs.replace(
        seen,
        rss_bytes=snapshot.memory.get("memory_rss_bytes", seen.rss_bytes),
        cpu_ratio=snapshot.cpu_ratio,
        loop_ratio=snapshot.loop_utilisation,
        lag_p50_s=snapshot.lag_p50_s,
        lag_p99_s=snapshot.lag_p99_s,
        held=snapshot.held,
        sizes=look.sizes,
    )


def letter_of(found: Found) -> DeadLetter:
    status, record = shown_error(status_of(found)), record_of(found)
    return DeadLetter(
        found.id,
        status.task,
        status.queue,
        status.priority,
        status.attempt,
        status.deliveries,
        record.reason,
        status.error or "",
        record.ended_s,
    )

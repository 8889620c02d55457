"""Settings that a supervisor and its workers share."""

from __future__ import annotations

MIB = 2**20
FLAGS = (
    "broker",
    "namespace",
    "queues",
    "concurrency",
    "lease",
    "grace_period",
    "cancel_grace",
    "min_workers",
    "max_workers",
    "cpu_threshold",
    "memory_threshold",
    "queue_threshold",
    "recycle_jobs",
    "recycle_memory",
    "worker_memory_limit",
    "metrics_port",
    "no_profile",
    "database",
    "outbox",
    "result_store",
    "result_offload",
    "keep",
    "log_level",
    "log_format",
)
"""What a supervisor listens to."""

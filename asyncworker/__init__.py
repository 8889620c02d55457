"""Map, reduce and queue coroutines; the engine decides how many at once.

`Engine` carries work; everything public is importable from here, and imported when first used (PEP 562), so
that a plain ``import asyncworker`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "AsyncWorkerError": "errors",
    "BadParameters": "errors",
    "BrokerDown": "errors",
    "BrokerError": "errors",
    "Context": "queue.context",
    "DecodeError": "errors",
    "Discard": "errors",
    "DistributedProcessor": "mapreduce.processor",
    "EmptyDataset": "errors",
    "Engine": "engine",
    "JobCancelled": "errors",
    "JobFailed": "errors",
    "JobHandle": "job",
    "JobNotFound": "errors",
    "JobStatus": "job",
    "JobTooBig": "errors",
    "LeaseLost": "errors",
    "Outcome": "work.stream",
    "ProcessingJob": "mapreduce.job",
    "ProcessingPartition": "mapreduce.job",
    "Progress": "mapreduce.progress",
    "QueueFull": "errors",
    "ResultExpired": "errors",
    "Retry": "errors",
    "SettingsError": "errors",
    "Snooze": "errors",
    "SourceError": "errors",
    "State": "queue.job",
    "Task": "task",
    "TaskCancelled": "errors",
    "TaskExpired": "errors",
    "TaskFailed": "errors",
    "TaskTimeout": "errors",
    "UnknownName": "errors",
}

__all__ = [*sorted(_WHERE), "__version__"]  # noqa: PLE0604 - names from the table above


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{where}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})

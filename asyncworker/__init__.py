"""Map, reduce and queue coroutines; the engine decides how many at once.

`Engine` carries work; everything public is importable from here, and imported when first used (PEP 562), so
that a plain ``import asyncworker`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "AsyncBatchProcessor": "work.batch",
    "AsyncWorkerError": "errors",
    "AsyncWorkerOptimizer": "optimizer",
    "BadParameters": "errors",
    "Balance": "work.balance",
    "BrokerDown": "errors",
    "BrokerError": "errors",
    "ChannelClosed": "errors",
    "ConnectionPoolOptimizer": "tune.actuators.connections",
    "Context": "queue.context",
    "DecodeError": "errors",
    "Discard": "errors",
    "DistributedProcessor": "mapreduce.processor",
    "DynamicWorkerManager": "fleet.manager",
    "EmptyDataset": "errors",
    "Engine": "engine",
    "Flow": "flow",
    "HighPerformanceIPC": "share.channel",
    "JobCancelled": "errors",
    "JobExists": "errors",
    "JobFailed": "errors",
    "JobHandle": "job",
    "JobNotFound": "errors",
    "JobStatus": "job",
    "JobTooBig": "errors",
    "KeepError": "errors",
    "LeaseLost": "errors",
    "Limit": "queue.limit",
    "MemoryOptimizer": "tune.sensors.memory",
    "Message": "share.queue",
    "MessageType": "share.queue",
    "Outcome": "work.stream",
    "PerformanceProfiler": "tune.sensors.profiler",
    "Pipeline": "work.pipeline",
    "PoolClosed": "errors",
    "PoolDown": "errors",
    "PoolError": "errors",
    "PoolTimeout": "errors",
    "ProcessingJob": "mapreduce.job",
    "ProcessingPartition": "mapreduce.job",
    "Progress": "mapreduce.progress",
    "QueueFull": "errors",
    "Rate": "queue.limit",
    "ResourcePool": "tune.actuators.pool",
    "ResultExpired": "errors",
    "Retry": "errors",
    "SettingsError": "errors",
    "SharedMemoryManager": "share.memory",
    "Snooze": "errors",
    "SourceError": "errors",
    "Stage": "work.pipeline",
    "StoreError": "errors",
    "State": "queue.job",
    "Task": "task",
    "TaskCancelled": "errors",
    "TaskExpired": "errors",
    "TaskFailed": "errors",
    "TaskTimeout": "errors",
    "UnknownName": "errors",
    "chain": "flow",
    "depends": "queue.depends",
    "group": "flow",
    "several": "mapreduce.sources.several",
    "trace": "tracing",
}

__all__ = [*sorted(_WHERE), "__version__"]  # noqa: PLE0604 - names from the table above


if TYPE_CHECKING:  # the same names for type checkers, which see no table; a test keeps both equal
    from asyncworker.engine import Engine as Engine
    from asyncworker.errors import AsyncWorkerError as AsyncWorkerError
    from asyncworker.errors import BadParameters as BadParameters
    from asyncworker.errors import BrokerDown as BrokerDown
    from asyncworker.errors import BrokerError as BrokerError
    from asyncworker.errors import ChannelClosed as ChannelClosed
    from asyncworker.errors import DecodeError as DecodeError
    from asyncworker.errors import Discard as Discard
    from asyncworker.errors import EmptyDataset as EmptyDataset
    from asyncworker.errors import JobCancelled as JobCancelled
    from asyncworker.errors import JobExists as JobExists
    from asyncworker.errors import JobFailed as JobFailed
    from asyncworker.errors import JobNotFound as JobNotFound
    from asyncworker.errors import JobTooBig as JobTooBig
    from asyncworker.errors import KeepError as KeepError
    from asyncworker.errors import LeaseLost as LeaseLost
    from asyncworker.errors import PoolClosed as PoolClosed
    from asyncworker.errors import PoolDown as PoolDown
    from asyncworker.errors import PoolError as PoolError
    from asyncworker.errors import PoolTimeout as PoolTimeout
    from asyncworker.errors import QueueFull as QueueFull
    from asyncworker.errors import ResultExpired as ResultExpired
    from asyncworker.errors import Retry as Retry
    from asyncworker.errors import SettingsError as SettingsError
    from asyncworker.errors import Snooze as Snooze
    from asyncworker.errors import SourceError as SourceError
    from asyncworker.errors import StoreError as StoreError
    from asyncworker.errors import TaskCancelled as TaskCancelled
    from asyncworker.errors import TaskExpired as TaskExpired
    from asyncworker.errors import TaskFailed as TaskFailed
    from asyncworker.errors import TaskTimeout as TaskTimeout
    from asyncworker.errors import UnknownName as UnknownName
    from asyncworker.fleet.manager import DynamicWorkerManager as DynamicWorkerManager
    from asyncworker.flow import Flow as Flow
    from asyncworker.flow import chain as chain
    from asyncworker.flow import group as group
    from asyncworker.job import JobHandle as JobHandle
    from asyncworker.job import JobStatus as JobStatus
    from asyncworker.mapreduce.job import ProcessingJob as ProcessingJob
    from asyncworker.mapreduce.job import ProcessingPartition as ProcessingPartition
    from asyncworker.mapreduce.processor import DistributedProcessor as DistributedProcessor
    from asyncworker.mapreduce.progress import Progress as Progress
    from asyncworker.mapreduce.sources.several import several as several
    from asyncworker.optimizer import AsyncWorkerOptimizer as AsyncWorkerOptimizer
    from asyncworker.queue.context import Context as Context
    from asyncworker.queue.depends import depends as depends
    from asyncworker.queue.job import State as State
    from asyncworker.queue.limit import Limit as Limit
    from asyncworker.queue.limit import Rate as Rate
    from asyncworker.share.channel import HighPerformanceIPC as HighPerformanceIPC
    from asyncworker.share.memory import SharedMemoryManager as SharedMemoryManager
    from asyncworker.share.queue import Message as Message
    from asyncworker.share.queue import MessageType as MessageType
    from asyncworker.task import Task as Task
    from asyncworker.tracing import trace as trace
    from asyncworker.tune.actuators.connections import ConnectionPoolOptimizer as ConnectionPoolOptimizer
    from asyncworker.tune.actuators.pool import ResourcePool as ResourcePool
    from asyncworker.tune.sensors.memory import MemoryOptimizer as MemoryOptimizer
    from asyncworker.tune.sensors.profiler import PerformanceProfiler as PerformanceProfiler
    from asyncworker.work.balance import Balance as Balance
    from asyncworker.work.batch import AsyncBatchProcessor as AsyncBatchProcessor
    from asyncworker.work.pipeline import Pipeline as Pipeline
    from asyncworker.work.pipeline import Stage as Stage
    from asyncworker.work.stream import Outcome as Outcome
else:

    def __getattr__(name: str) -> Any:
        where = _WHERE.get(name)
        if where is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{where}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})

"""What "auto" means: what a tuner finds out, and what is a plain rule, a number and its reason.

| what        | rule                                              | why                                                      |
|-------------|---------------------------------------------------|----------------------------------------------------------|
| concurrency | no rule: sought for each task by itself           | `queue/worker/sought.py`; in this process `optimizer.py` |
| partitions  | 2 at once a worker process                        | one is read while the other is computed                  |
| workers     | one process a usable processor                    | a process uses one                                       |
| partition   | no rule: sized as partitions are measured         | `mapreduce/planner.py`; 10,000 items where nobody works  |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from asyncworker.errors import SettingsError
from asyncworker.processors import usable

PARTITION_QUEUE = "cpu_intensive"
EXECUTORS = {"cpu_intensive": "process"}
"""Queue -> where its tasks run that name no executor; else coroutine functions run inline and plain ones in a thread."""
PARTITIONS_AT_ONCE = 2


def workers() -> int:
    """Return how many processors this process may use."""
    return len(usable())


Auto = Literal["auto"]


def slots(queues: Iterable[str] | Mapping[str, int | Auto], concurrency: int | Auto) -> dict[str, int | None]:
    """Return queue -> how many of its jobs may run at once in one worker process; None: that is sought.

    Raises:
        SettingsError: what a queue is given is no such number.
    """
    if isinstance(queues, Mapping):
        for name, most in queues.items():
            if most != "auto" and (type(most) is not int or most < 1):
                raise SettingsError(f"queue {name!r} wants a number of jobs from 1, or 'auto', not {most!r}")
        return {name: None if most == "auto" else most for name, most in queues.items()}
    at_once = None if concurrency == "auto" else concurrency
    return {
        name: min(at_once or PARTITIONS_AT_ONCE, PARTITIONS_AT_ONCE) if name == PARTITION_QUEUE else at_once
        for name in queues
    }

"""When a job that failed runs again. Pure.

Full jitter: the delay is drawn evenly from 0 to ``min(cap, base * 2**(attempt - 1))``, which spreads a storm of
failures best (Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from asyncworker.errors import Retry
from asyncworker.queue.task import TaskOptions

UNKNOWN_TASK_PATIENCE_S = 3600.0
"""How long a job whose task no worker knows is put back before it fails."""


def delay_s(options: TaskOptions, attempt: int, draw: Callable[[], float] = random.random) -> float:
    """Return the seconds until the attempt after number *attempt* (1..)."""
    top = min(options.retry_backoff_max, options.retry_backoff * 2.0 ** min(attempt - 1, 60))
    return top * draw() if options.retry_jitter else top


def again(
    options: TaskOptions, attempt: int, error: BaseException, draw: Callable[[], float] = random.random
) -> float | None:
    """Return the seconds until the next attempt, None when the job has failed for good."""
    if attempt >= options.max_attempts:
        return None
    if isinstance(error, Retry):
        return delay_s(options, attempt, draw) if error.delay is None else error.delay
    if isinstance(error, options.no_retry_on) or not isinstance(error, options.retry_on):
        return None
    if options.retry_when is not None and not options.retry_when(attempt, error):
        return None
    return delay_s(options, attempt, draw)


def put_back_s(put_back: int) -> float | None:
    """Return the seconds until somebody may know the task, after *put_back* earlier tries; None: nobody will."""
    waited = sum(min(60.0, 2.0**k) for k in range(put_back))
    return None if waited >= UNKNOWN_TASK_PATIENCE_S else min(60.0, 2.0**put_back)

"""Thread: plain functions run in threads of their own pool, so that they block no event loop.

A thread cannot be cancelled: a job that is (timeout, cancel, shutdown) ends at once for the queue, while its
function runs to its end, unheard. Context variables of the job are seen by the function.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

THREADS = 100
"""As many as the default concurrency: the worker's own bound decides, not this pool."""

THREAD_NAMES = "task"
"""What their names begin with."""


class ThreadExecutor:
    """Run plain functions in threads, which are made when needed."""

    def __init__(self, threads: int = THREADS) -> None:
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def bind(self, function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=THREAD_NAMES)
            work = partial(contextvars.copy_context().run, function, *args, **kwargs)
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)

        return call

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def open() -> ThreadExecutor:
    """Return the executor of plain functions."""
    return ThreadExecutor()

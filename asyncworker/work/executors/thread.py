"""Thread: plain functions run in threads of their own pool, so that they block no event loop.

A thread cannot be cancelled: a job that is (timeout, cancel, shutdown) ends at once for the queue, while its
function runs to its end, unheard. Where half of the threads are lost to such functions, others take the place of all.
Context variables of the job are seen by the function.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
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
        self._unheard: set[Future[Any]] = set()

    def bind(self, function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=THREAD_NAMES)
            work = partial(contextvars.copy_context().run, function, *args, **kwargs)
            running = self._pool.submit(work)
            try:
                return await asyncio.wrap_future(running)
            except asyncio.CancelledError:
                self._abandon(running)
                raise

        return call

    def _abandon(self, call: Future[Any]) -> None:
        """Hear no more of a call; begin with new threads before those are all taken that hear of nothing else."""
        if call.cancel() or self._pool is None:
            return
        self._unheard.add(call)
        call.add_done_callback(self._unheard.discard)
        if 2 * len(self._unheard) >= self._threads:
            self._pool.shutdown(wait=False)
            self._pool, self._unheard = None, set()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def open() -> ThreadExecutor:
    """Return the executor of plain functions."""
    return ThreadExecutor()

"""What a test may not leave behind: asyncio tasks, threads, child processes, Redis keys that stay for ever."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import redis

from tests.support.servers import LONG_LIVED

T = TypeVar("T")
PATIENCE = 2.0
SHARED_THREADS = ("asyncio_", "asyncworker-child", "ThreadPoolExecutor-")
"""The loop's own pool lives as long as the loop; a child's thread as long as the child, which is looked at itself."""


def processes() -> set[int]:
    """Return the pids of this process's children, but for servers of the session and Python's resource tracker."""
    children = set()
    for pid in _children() - LONG_LIVED:
        try:
            if "resource_tracker" not in " ".join(psutil.Process(pid).cmdline()):
                children.add(pid)
        except psutil.NoSuchProcess:
            continue
        except psutil.ZombieProcess:
            children.add(pid)
    return children


def _children() -> set[int]:
    """Return the pids of this process's children; asked twice a test, and psutil reads all of the machine's processes."""
    try:
        return {
            int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
        }
    except OSError:  # no Linux, or a thread that has just ended
        return {child.pid for child in psutil.Process().children()}


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.name.startswith(SHARED_THREADS)}


def left(look: Callable[[], set[T]], before: set[T]) -> set[T]:
    """Return what is there now and was not before, after it had time to go."""
    deadline = time.monotonic() + PATIENCE
    while (more := look() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    return more


async def tasks_left(before: set[asyncio.Task[object]]) -> set[asyncio.Task[object]]:
    """Return this loop's tasks that were not there before and do not end; they are cancelled."""
    more = asyncio.all_tasks() - before - {asyncio.current_task()}
    if more:
        _, more = await asyncio.wait(more, timeout=PATIENCE)
    for task in more:
        task.cancel()
    return more


def ended(process: psutil.Process, patience: float = 10.0) -> bool:
    """Return whether a process is over, which includes the one that nobody has buried yet."""
    deadline = time.monotonic() + patience
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
    return True


def immortal_keys(url: str, pattern: str = "*") -> Iterator[str]:
    """Yield the Redis keys that match and would stay for ever."""
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(pattern, count=1000):
            if client.ttl(key) == -1:
                yield key.decode(errors="replace")

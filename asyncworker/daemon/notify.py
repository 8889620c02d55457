"""Tell systemd how this process is, where it is a service of ``Type=notify``; else nothing happens.

The watchdog is fed only while the process is alive: one that hangs is started anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

SOCKET, WATCHDOG_US, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
STATUS_S, SOON_S = 5.0, 0.2


def notify(*words: str) -> bool:
    """Send words such as ``READY=1``; returns whether somebody listens."""
    path = os.environ.get(SOCKET, "")
    if path[:1] not in {"/", "@"}:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line, contextlib.suppress(OSError):
        line.setblocking(False)
        line.sendto("\n".join(words).encode(), "\0" + path[1:] if path[0] == "@" else path)
    return True


def reloading() -> None:
    """Say that a reload begins; it is over when `notifying` finds that we are no longer busy."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


@asynccontextmanager
async def notifying(
    status: Callable[[], str], alive: Callable[[], bool] = lambda: True, busy: Callable[[], bool] = lambda: False
) -> AsyncIterator[None]:
    """Be ready as soon as not *busy*, feed the watchdog while *alive*, and tell the *status*; at last, that it stops."""
    telling = asyncio.get_running_loop().create_task(_tell(status, alive, busy), name="notify")
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait([telling])
        notify("STOPPING=1", "STATUS=draining")


async def _tell(status: Callable[[], str], alive: Callable[[], bool], busy: Callable[[], bool]) -> None:
    mine = os.environ.get(WATCHDOG_PID) in {None, str(os.getpid())}
    patience = int(os.environ.get(WATCHDOG_US) or 0) / 1e6 if mine else 0.0
    while True:
        waits = busy()
        words = [f"STATUS={status()}"] + ["READY=1"] * (not waits) + ["WATCHDOG=1"] * bool(patience and alive())
        if not notify(*words):
            return
        await asyncio.sleep(min(patience / 3 or STATUS_S, SOON_S if waits else STATUS_S))

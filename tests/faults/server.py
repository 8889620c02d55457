"""A Redis of a scenario's own, which can be killed, paused, filled and started again at the same place."""

from __future__ import annotations

import resource
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import redis

from asyncworker.lifeline import Child
from asyncworker.queue.server import find_binary

MEMORY = Path("/dev/shm")
"""Where a file system of memory is: what `fsync` costs elsewhere would measure the disk, not us."""
PATIENCE = 30.0


class Server:
    """A server on a unix socket, which keeps its data in a directory of its own through `kill` and `start`."""

    def __init__(self, place: Path, settings: dict[str, str]) -> None:
        self.place = place
        self.url = f"unix://{quote(str(place / 'socket'))}"
        self.client = redis.Redis.from_url(self.url, socket_timeout=PATIENCE)
        self._settings = {
            "port": "0",
            "unixsocket": str(place / "socket"),
            "save": "",
            "dir": str(place),
            "maxmemory-policy": "noeviction",
            "enable-debug-command": "local",
            **settings,
        }
        self._child: Child | None = None

    errors = redis.RedisError

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def start(self) -> None:
        """Start, and return when it answers: with AOF when all is loaded."""
        options = [word for key, value in self._settings.items() for word in (f"--{key}", value)]
        with (self.place / "log").open("ab") as log:
            self._child = Child([find_binary(), *options], cwd=self.place, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.client.ping()
                return
            except (redis.ConnectionError, redis.ResponseError):
                log_ends = (self.place / "log").read_text("utf-8", "replace")[-500:]
                assert self._child.running, log_ends
                assert time.monotonic() < deadline, log_ends
                time.sleep(0.003)

    def kill(self) -> None:
        """End it with SIGKILL: what it has not written is lost."""
        if self._child is not None:
            self._child.stop(signal.SIGKILL)
        self.client.close()

    def limit_files(self, size: int) -> None:
        """Let no file of the server grow beyond *size* bytes: its disk is full. -1: there is room again."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@contextmanager
def server(*, durable: bool = False, **settings: str) -> Iterator[Server]:
    """Run a server; *durable* ones write each change down before they answer, and read it again when they start.

    Args:
        settings: as in its configuration file, with ``_`` for ``-``.
    """
    with tempfile.TemporaryDirectory(prefix="faults-", dir=MEMORY if MEMORY.is_dir() else None) as place:
        given = {name.replace("_", "-"): value for name, value in settings.items()}
        running = Server(Path(place), {"appendonly": "yes" if durable else "no", **given})
        try:
            running.start()
            yield running
        finally:
            running.kill()

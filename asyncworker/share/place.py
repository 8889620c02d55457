"""Place: a folder in shared memory that belongs to one process and ends with it, however it ends.

Its name is random and only this user may enter (0700). Its owner holds a lock on it that the system gives back when the
owner dies, so whoever makes the next place knows which are orphans, and clears them away.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

PREFIX = "asyncworker-"
_BEING_MADE = ".asyncworker-"
_MADE_IN_S = 60.0


def root() -> Path:
    """Return where places are made: in memory where the system has a folder for that, else where temporary files are."""
    memory = Path("/dev/shm")  # noqa: S108 - names in it are random and private
    return memory if os.access(memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


class Place:
    """A new place; orphans of this user are cleared away first.

    Raises:
        OSError: there is no room, or no right to make one.
    """

    def __init__(self) -> None:
        sweep()
        name = secrets.token_hex(8)
        hidden = root() / f"{_BEING_MADE}{name}"  # nobody may take it for an orphan before it is locked
        hidden.mkdir(mode=0o700)
        self._lock = os.open(hidden, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = hidden.rename(root() / f"{PREFIX}{name}")

    def close(self) -> None:
        """Remove it with all that is in it; what others have mapped stays until they let go."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def sweep() -> list[Path]:
    """Remove this user's places whose owners are dead; returns them."""
    return [path for path in _own() if _orphaned(path, remove=True)]


def orphans() -> list[Path]:
    """Return this user's places whose owners are dead."""
    return [path for path in _own() if _orphaned(path, remove=False)]


def _own() -> Iterator[Path]:
    for path in root().iterdir():
        with contextlib.suppress(OSError):
            if path.name.startswith((PREFIX, _BEING_MADE)) and path.is_dir() and path.stat().st_uid == os.getuid():
                yield path


def _orphaned(path: Path, *, remove: bool) -> bool:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        if path.name.startswith(_BEING_MADE) and time.time() - os.fstat(lock).st_mtime < _MADE_IN_S:
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if remove:
            shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True

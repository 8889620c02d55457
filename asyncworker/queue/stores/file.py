"""``file:///some/folder``: a store in one folder, which all workers and clients must see.

A file for each result, readable for its owner alone; its date of change is when it expires. It is written under another
name, brought to disk and then named, so that whoever dies meanwhile leaves nothing that could be taken for a result.
No link is followed.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from asyncworker.errors import SettingsError, StoreError
from asyncworker.queue.stores.store import LARGEST, check_name, checked, name_of

T = TypeVar("T")
DRAFT = "."
"""How names of files begin that are still being written."""
DRAFT_S = 3600.0
"""After so long nobody writes a draft any more."""


class FileStore:
    """Keep results in a folder. Threads wait for the disk."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self._folder, self._now = folder, now

    def __repr__(self) -> str:
        return f"<FileStore {self._folder}>"

    async def put(self, data: bytes, seconds: float) -> str:
        return await self._do(lambda: self._put(data, seconds))

    async def get(self, name: str) -> bytes | None:
        check_name(name)
        data = await self._do(lambda: self._get(name))
        return None if data is None else checked(name, data)

    async def sweep(self) -> int:
        return await self._do(self._sweep)

    async def close(self) -> None:
        """Nothing is open between two calls."""

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as exc:
            raise StoreError(f"the folder {self._folder} cannot be used: {exc.strerror or type(exc).__name__}") from exc

    @contextmanager
    def _locked(self, how: int) -> Iterator[int]:
        """Open the folder; who sweeps is alone in it, so that nothing goes whose time was just prolonged."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, how)
            yield folder
        finally:
            os.close(folder)

    def _put(self, data: bytes, seconds: float) -> str:
        name, draft, until = name_of(data), DRAFT + secrets.token_hex(16), self._now() + seconds
        with self._locked(fcntl.LOCK_SH) as folder:
            with suppress(FileNotFoundError):
                until = max(until, os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(draft, flags, 0o600, dir_fd=folder)
            try:
                with os.fdopen(file, "wb") as opened:
                    opened.write(data)
                    opened.flush()
                    os.utime(file, (until, until))
                    os.fsync(file)
                os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(draft, dir_fd=folder)
                raise
            os.fsync(folder)
        return name

    def _get(self, name: str) -> bytes | None:
        with self._locked(fcntl.LOCK_SH) as folder:
            try:
                file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            except FileNotFoundError:
                return None
            with os.fdopen(file, "rb") as opened:
                about = os.fstat(file)
                if about.st_size > LARGEST:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
                return opened.read() if about.st_mtime > self._now() else None

    def _sweep(self) -> int:
        now, count = self._now(), 0
        with self._locked(fcntl.LOCK_EX) as folder:
            for name in os.listdir(folder):  # noqa: PTH208 - a descriptor, no path
                until = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
                if until + DRAFT_S * name.startswith(DRAFT) <= now:
                    os.unlink(name, dir_fd=folder)
                    count += 1
        return count


def open(url: str) -> FileStore:
    """Return the store in this folder, which is made when it is first used.

    Raises:
        SettingsError: the URL names no folder.
    """
    place = urlsplit(url)
    if place.netloc or not place.path.strip("/"):
        raise SettingsError(f"a store of files is file:///some/folder, not {url!r}")
    return FileStore(Path(unquote(place.path)))

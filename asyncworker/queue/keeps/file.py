"""``file:///some/path``: a keep in one file, which several processes of a machine may share.

It is a SQLite database: appending costs the same however much is there, two writers wait for each other, and a
process that dies while it writes leaves the state before.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from asyncworker.errors import KeepError
from asyncworker.queue.keeps.keep import LOG_S, MOST_VALUES

T = TypeVar("T")
PATIENCE_S = 5.0
"""How long one who writes is waited for."""
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS logs (log TEXT, number INTEGER PRIMARY KEY AUTOINCREMENT, entry BLOB, until REAL)",
    "CREATE INDEX IF NOT EXISTS of_log ON logs (log, number)",
    "CREATE TABLE IF NOT EXISTS tables (name TEXT, key TEXT, value BLOB, until REAL, PRIMARY KEY (name, key))",
)


class FileKeep:
    """Hold logs and tables in the file at *path*; *namespace* keeps fleets apart. Threads wait for the disk."""

    def __init__(self, path: Path, namespace: str, now: Callable[[], float] = time.time) -> None:
        self._path, self._namespace, self._now = path, namespace, now

    def __repr__(self) -> str:
        return f"<FileKeep {self._path}>"

    async def append(self, log: str, entries: Sequence[bytes], most: int) -> None:
        name, now = self._full(log), self._now()

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM logs WHERE until < ?", (now,))
            db.executemany(
                "INSERT INTO logs (log, entry, until) VALUES (?, ?, ?)", [(name, one, now + LOG_S) for one in entries]
            )
            db.execute(
                "DELETE FROM logs WHERE log = ?1 AND number <="
                " (SELECT number FROM logs WHERE log = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
                (name, most),
            )

        await self._do(write)

    async def last(self, log: str, most: int) -> list[bytes]:
        ask = "SELECT entry FROM logs WHERE log = ? AND until >= ? ORDER BY number DESC LIMIT ?"
        rows = await self._do(lambda db: db.execute(ask, (self._full(log), self._now(), most)).fetchall())
        return [entry for (entry,) in reversed(rows)]

    async def put(self, table: str, values: Mapping[str, bytes], ttl: float) -> None:
        name, now = self._full(table), self._now()

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM tables WHERE until <= ?", (now,))
            rows = [(name, key, value, now + ttl) for key, value in values.items()]
            db.executemany("INSERT OR REPLACE INTO tables VALUES (?, ?, ?, ?)", rows)
            db.execute(
                "DELETE FROM tables WHERE name = ?1 AND key NOT IN"
                " (SELECT key FROM tables WHERE name = ?1 ORDER BY until DESC LIMIT ?2)",
                (name, MOST_VALUES),
            )

        await self._do(write)

    async def values(self, table: str) -> dict[str, bytes]:
        ask = "SELECT key, value FROM tables WHERE name = ? AND until > ?"
        return dict(await self._do(lambda db: db.execute(ask, (self._full(table), self._now())).fetchall()))

    async def drop(self, table: str, name: str) -> None:
        row = (self._full(table), name)
        await self._do(lambda db: db.execute("DELETE FROM tables WHERE name = ? AND key = ?", row))

    async def close(self) -> None:
        """Do nothing: the file is open only while it is used."""

    def _full(self, name: str) -> str:
        return f"{self._namespace}:{name}"

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def run() -> T:
            with self._told():
                db = sqlite3.connect(self._path, timeout=PATIENCE_S)
                try:
                    db.execute("PRAGMA synchronous = NORMAL")
                    with db:
                        for statement in SCHEMA:
                            db.execute(statement)
                        return work(db)
                finally:
                    db.close()

        return await asyncio.to_thread(run)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise KeepError(f"{self._path} cannot be used: {exc}") from exc


def open(url: str, *, namespace: str) -> FileKeep:
    """Return the keep in this file; it is made when first used, its folder is not.

    Raises:
        KeepError: the URL names no file.
    """
    path = unquote(url.removeprefix("file://"))
    if not path or path.endswith("/"):
        raise KeepError(f"{url!r} names no file; write file:///some/where/kept.db")
    return FileKeep(Path(path).expanduser(), namespace)

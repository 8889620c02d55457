"""Write a file that is there whole or not at all: written beside its place, moved into it at commit."""

from __future__ import annotations

import asyncio
import glob
import gzip
import io
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from asyncworker.errors import SourceError
from asyncworker.mapreduce.textfile import STDIN, Place


class FileSink:
    """A file that rows go to, as *encode* writes them and *end* ends them; packed where its name ends in ``.gz``.

    What was at the path stays until `commit` and is replaced then. Without rows the file is empty. What an earlier run
    of the job *job_id* left half-written beside it, because it was killed, is removed.
    """

    def __init__(
        self,
        place: Place,
        encode: Callable[[Sequence[Any]], bytes],
        end: Callable[[], bytes] = bytes,
        *,
        job_id: str = "",
    ) -> None:
        if place.path == STDIN:
            raise SourceError("rows cannot be written to -: name a file")
        self.label = place.label
        self._path = Path(place.path).resolve()
        self._job_id = job_id
        self._beside = self._path.with_name(f".{self._path.name}.{job_id}.{secrets.token_hex(4)}")
        self._gzip = place.packed
        self._encode = encode
        self._end = end
        self._file: io.BufferedWriter | None = None
        self._out: io.BufferedIOBase | None = None

    async def write(self, rows: Sequence[Any]) -> None:
        await asyncio.to_thread(self._write, rows)

    async def commit(self) -> None:
        await asyncio.to_thread(self._commit)

    async def abort(self) -> None:
        await asyncio.to_thread(self._abort)

    def _write(self, rows: Sequence[Any]) -> None:
        text = self._encode(rows)
        with self._told():
            self._opened()[1].write(text)

    def _commit(self) -> None:
        last = self._end()
        with self._told():
            file, out = self._opened()
            out.write(last)
            if out is not file:
                out.close()
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self._beside.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # else the new name may be lost with the power
            finally:
                os.close(folder)

    def _abort(self) -> None:
        if self._file and self._out:
            for stream in (self._out, self._file):  # in this order: what packs writes its last bytes when closed
                with suppress(OSError):
                    stream.close()
            self._beside.unlink(missing_ok=True)

    def _opened(self) -> tuple[io.BufferedWriter, io.BufferedIOBase]:
        if self._file is None or self._out is None:
            if self._path.is_dir():
                raise SourceError(f"{self.label} is a directory: name a file in it")
            if self._job_id:
                for left in self._path.parent.glob(glob.escape(f".{self._path.name}.{self._job_id}.") + "*"):
                    left.unlink(missing_ok=True)
            self._file = self._out = self._beside.open("xb")
            if self._gzip:
                self._out = gzip.GzipFile("", "wb", 6, self._file, mtime=0)
        return self._file, self._out

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as exc:
            raise SourceError(f"there is no folder {self._path.parent} to write {self.label} into") from exc
        except OSError as exc:
            raise SourceError(f"{self.label} cannot be written: {exc.strerror or exc}") from exc

"""Parquet, by pyarrow: ``data.parquet``, with ``?columns=a,b`` where not all are wanted.

An item is a row as a dict, its key the row's number from 0. A partition is made of whole row groups, since those are
what a file is read by: as many as have no more rows than asked for, at least one; and who reads holds one batch of
rows at a time. Values are plain: dates, times and durations are ISO 8601, decimals their digits, bytes base64.

Written files take the types of their columns from the first rows, `SAMPLE` at most; a column that is null in all of
those is text. Needs the extra ``parquet``.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from asyncworker.errors import SettingsError, SourceError, UnknownName
from asyncworker.mapreduce.filesink import FileSink
from asyncworker.mapreduce.fileversion import file_version
from asyncworker.mapreduce.sources.source import LIST_ITEMS, Key, Partition, Size, sizes
from asyncworker.mapreduce.textfile import STDIN, Place, place

try:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet
except ImportError as exc:
    raise SettingsError("Parquet is read by pyarrow, which is not here: pip install 'asyncworker[parquet]'") from exc

SAMPLE = 10_000
"""Rows that are looked at before a written file's columns have types."""


def open(url: str) -> ParquetSource:
    """Open a path.

    Raises:
        SourceError: the path is of no such file. UnknownName: an option that is not known.
    """
    where = _place(url, ("columns",))
    columns = [name for names in where.options.get("columns", ()) for name in names.split(",")]
    return ParquetSource(where, columns or None)


def writer(url: str, *, job_id: str = "") -> FileSink:
    """Write rows, which must be dicts whose values have one type a column."""
    encoder = Encoder()
    return FileSink(_place(url, ()), encoder, encoder.end, job_id=job_id)


class ParquetSource:
    """A file of row groups. A partition's span is its first row group, the one after its last, and its first row."""

    portable = True

    def __init__(self, place: Place, columns: list[str] | None) -> None:
        self.columns: tuple[str, ...] | None = None
        self.url = f"{place.path}?{place.query}" if place.query else place.path
        self.label = place.label
        self.left: float | None = None
        self._place = place
        self._path = Path(place.path)
        self._columns = columns

    async def partitions(self, size: Size) -> AsyncIterator[Partition]:
        counts = await asyncio.to_thread(self._counts)
        self.left = sum(counts)
        ask = sizes(size)
        index = first = row = rows = most = 0
        for group, count in enumerate([*counts, 0]):
            most = most or ask()
            if rows and (group == len(counts) or rows + count > most):
                self.left -= rows
                yield Partition(index, rows, (first, group, row))
                index, first, row, rows, most = index + 1, group, row + rows, 0, 0
            rows += count

    async def read(self, partition: Partition) -> AsyncIterator[list[tuple[Key, Any]]]:
        lists = self._lists(partition)
        while (pairs := await asyncio.to_thread(next, lists, None)) is not None:
            yield pairs

    async def version(self) -> str | None:
        return await asyncio.to_thread(file_version, self._place.path, self._place.label)

    async def close(self) -> None:
        """Do nothing: the file is open only while it is read."""

    def _counts(self) -> list[int]:
        """Return how many rows each row group has, and learn the columns."""
        with self._file() as file:
            names = file.schema_arrow.names
            for name in self._columns or ():
                if name not in names:
                    raise UnknownName(f"column of {self.label}:", name, names)
            self.columns = tuple(self._columns or names)
            return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]

    def _lists(self, partition: Partition) -> Iterator[list[tuple[Key, Any]]]:
        first, end, row = partition.span
        with self._file() as file:
            rows = sum(file.metadata.row_group(group).num_rows for group in range(first, min(end, file.num_row_groups)))
            if rows != partition.items:
                raise SourceError(f"{self.label} has changed since it was cut: row {row} and what follows moved")
            for batch in file.iter_batches(LIST_ITEMS, range(first, end), self._columns, use_threads=False):
                items = msgspec.to_builtins(batch.to_pylist())
                yield list(enumerate(items, row))
                row += len(items)

    @contextmanager
    def _file(self) -> Iterator[Any]:
        try:
            with parquet.ParquetFile(self._path) as file:
                yield file
        except FileNotFoundError as exc:
            raise SourceError(f"no file {self._path}: check the path, and that this machine sees it") from exc
        except (pa.ArrowException, OSError, ValueError) as exc:
            raise SourceError(f"{self.label} cannot be read: {_first(exc)}") from exc


class Encoder:
    """Rows to Parquet, a row group for each `SAMPLE` rows."""

    def __init__(self) -> None:
        self._waiting: list[Any] = []
        self._out = _Out()
        self._writer: Any = None

    def __call__(self, rows: Sequence[Any]) -> bytes:
        for row in rows:
            if not isinstance(row, dict):
                raise SourceError(
                    f"a row of Parquet must be a dict, this is a {type(row).__name__}: write .jsonl instead"
                )
        self._waiting.extend(rows)
        while len(self._waiting) >= SAMPLE:
            self._write(self._waiting[:SAMPLE])
            del self._waiting[:SAMPLE]
        return self._out.taken()

    def end(self) -> bytes:
        """Return the last bytes of the file."""
        if self._waiting or self._writer is None:
            self._write(self._waiting)
        self._writer.close()
        return self._out.taken()

    def _write(self, rows: list[Any]) -> None:
        try:
            if self._writer is None:
                self._writer = parquet.ParquetWriter(self._out, _schema(rows))
            schema = self._writer.schema
            if more := {name for row in rows for name in row} - set(schema.names):
                raise SourceError(
                    f"a row has columns that the first ones have not ({min(more)!r}): write .jsonl instead"
                )
            self._writer.write_table(pa.Table.from_pylist(rows, schema))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
            raise SourceError(
                f"a row does not fit the types of its columns ({_first(exc)}): write .jsonl instead"
            ) from exc


def _schema(rows: list[Any]) -> Any:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: pa.array([row.get(name) for row in rows]).type for name in names}
    text = pa.string()
    return pa.schema([(name, text if pa.types.is_null(of) else of) for name, of in columns.items()])


class _Out(io.RawIOBase):
    """A file that keeps what is written to it until it is taken."""

    def __init__(self) -> None:
        self._written = bytearray()
        self._before = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written += data
        return len(data)

    def tell(self) -> int:
        return self._before + len(self._written)

    def taken(self) -> bytes:
        data = bytes(self._written)
        self._before += len(data)
        self._written.clear()
        return data


def _place(url: str, known: Sequence[str]) -> Place:
    where = place(url, "parquet", known)
    if where.path == STDIN or where.packed:
        raise SourceError(f"{url!r}: Parquet is packed by itself and read at any place, so it must be a plain file")
    return where


def _first(exc: BaseException) -> str:
    return str(exc).partition("\n")[0][:200]

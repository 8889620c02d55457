"""CSV with a header, in UTF-8: ``data.csv``, ``data.csv.gz``, or ``-?format=csv`` (standard input).

An item is a dict of text, its key the number of its first line. A field that is missing is ``""``: where it is
empty, and where it is one of the texts that ``?missing=NA,null`` names (also ``?missing=NA&missing=null``). A record
with more or fewer fields than the header is a `BadItem`. Quotes may hold commas, line feeds, and quotes twice. With
``?cut=bytes`` it is cut without being read first (`asyncworker.mapreduce.textfile`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from asyncworker.errors import SourceError
from asyncworker.mapreduce.filesink import FileSink
from asyncworker.mapreduce.sources.source import BadItem
from asyncworker.mapreduce.textfile import RECORD_BYTES, STDIN, Parse, TextSource, place

# The csv module's own limit (131,072 characters a field) is one for the whole process; it is raised, never lowered.
csv.field_size_limit(max(csv.field_size_limit(), 2 * RECORD_BYTES))


def open(url: str = STDIN) -> TextSource:
    """Open a path, or ``-``, with the texts that mean "missing".

    Raises:
        SourceError: the path is of no such file. UnknownName: an option that is not known.
    """
    where = place(url, "csv", known=("missing", "cut"))
    missing = frozenset(text for texts in where.options.get("missing", ()) for text in texts.split(","))
    header = partial(names_in, where.label)
    return TextSource(where, parser=lambda first: parser(header(first), missing), header=header)


def writer(url: str, *, job_id: str = "") -> FileSink:
    """Write rows, which must be dicts with the first one's keys. Text goes as it is, None as ``""``, all else as JSON."""
    return FileSink(place(url, "csv"), Encoder(), job_id=job_id)


def names_in(label: str, header: bytes) -> tuple[str, ...]:
    """Read the names of columns.

    Raises:
        SourceError: the header cannot be read, or has a name twice.
    """
    try:
        names = tuple(next(csv.reader([header.decode()])))
    except (UnicodeDecodeError, csv.Error) as exc:
        raise SourceError(f"the header of {label} cannot be read: {exc}") from exc
    if twice := {name for name in names if names.count(name) > 1}:
        raise SourceError(f"{label} has the column {min(twice)!r} twice: rename one")
    return names


def parser(names: tuple[str, ...], missing: frozenset[str]) -> Parse:
    """Make what parses records of these columns."""
    width = len(names)

    def parse(records: list[bytes]) -> list[Any]:
        try:
            rows = list(csv.reader(map(bytes.decode, records)))
        except (UnicodeDecodeError, csv.Error):
            return list(map(item, records))
        if missing:
            rows = [
                row if missing.isdisjoint(row) else ["" if text in missing else text for text in row] for row in rows
            ]
        if set(map(len, rows)) != {width}:
            return list(map(item, records))
        return [dict(zip(names, row, strict=True)) for row in rows]

    def item(record: bytes) -> Any:
        try:
            (row,) = csv.reader([record.decode()])
        except UnicodeDecodeError as exc:
            return BadItem(f"no UTF-8: {exc}")
        except csv.Error as exc:
            return BadItem(f"no CSV: {exc}")
        if len(row) != width:
            return BadItem(f"{len(row)} fields where the header has {width}")
        return {name: "" if text in missing else text for name, text in zip(names, row, strict=True)}

    return parse


class Encoder:
    """Rows to CSV, below a header that the first row makes."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def __call__(self, rows: Sequence[Any]) -> bytes:
        text = io.StringIO()
        out = csv.writer(text, lineterminator="\n")
        for row in rows:
            if not isinstance(row, dict):
                raise SourceError(f"a row of CSV must be a dict, this is a {type(row).__name__}: write .jsonl instead")
            if not self._names:
                self._names = list(row)
                out.writerow(self._names)
            if row.keys() - self._names:
                more = ", ".join(map(repr, row.keys() - self._names))
                raise SourceError(f"a row has columns that the first one has not ({more}): write .jsonl instead")
            out.writerow([_text(row.get(name)) for name in self._names])
        return text.getvalue().encode()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise SourceError(f"a value cannot be written as text: {exc}") from exc

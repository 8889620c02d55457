"""JSON Lines: a JSON value a line, in UTF-8. ``data.jsonl``, ``data.jsonl.gz``, or ``-`` (standard input).

An item is the line's value, its key the line's number. A line that is no JSON is a `BadItem`; blank lines are none.
With ``?cut=bytes`` it is cut without being read first (`asyncworker.mapreduce.textfile`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from asyncworker.errors import SourceError
from asyncworker.mapreduce.filesink import FileSink
from asyncworker.mapreduce.sources.source import BadItem
from asyncworker.mapreduce.textfile import STDIN, TextSource, place

_decode = msgspec.json.Decoder().decode
_encode_lines = msgspec.json.Encoder().encode_lines


def open(url: str = STDIN) -> TextSource:
    """Open a path, or ``-``.

    Raises:
        SourceError: the path is of no such file. UnknownName: an option that is not known.
    """
    return TextSource(place(url, "jsonl", known=("cut",)), parser=lambda _: parse)


def writer(url: str, *, job_id: str = "") -> FileSink:
    """Write each row as a line of JSON; NaN and infinity, which JSON lacks, become null."""
    return FileSink(place(url, "jsonl"), encode, job_id=job_id)


def parse(records: list[bytes]) -> list[Any]:
    try:
        return list(map(_decode, records))
    except (ValueError, RecursionError):
        return list(map(_value, records))


def encode(rows: Sequence[Any]) -> bytes:
    try:
        return _encode_lines(rows)
    except (TypeError, ValueError, RecursionError) as exc:
        raise SourceError(f"a row cannot be written as JSON: {exc}") from exc


def _value(record: bytes) -> Any:
    try:
        return _decode(record)
    except UnicodeDecodeError as exc:
        return BadItem(f"no UTF-8: {exc}")
    except (ValueError, RecursionError) as exc:
        return BadItem(f"no JSON: {exc}")

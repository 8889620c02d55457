"""A table in a file as a look-up: ``airlines.csv``, ``airports.jsonl`` or any other file that is a source.

It is read whole by whoever asks first, so it is for tables that fit in memory: up to a million rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from asyncworker.errors import BadParameters, SourceError
from asyncworker.mapreduce.conversion import ConversionError, text_of
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.value import missing
from asyncworker.secret import mask_url

MOST_ROWS = 1_000_000
_PARTITION = 10_000


def open(url: str, key: str | None, timeout_s: float) -> FileLookup:  # noqa: ARG001 - a file has no timeout
    """Open a path.

    Raises:
        BadParameters: no key is named, or this is no path. UnknownName, SourceError: it is no file that can be read.
    """
    if "://" in url or url.startswith("-"):
        raise BadParameters(f"{mask_url(url)!r} is no path of a file")
    if key is None:
        raise BadParameters(f"which column of {url!r} is looked up? Name it as key")
    return FileLookup(url, key)


class FileLookup:
    batch = MOST_ROWS

    def __init__(self, url: str, key: str) -> None:
        self.label = open_source(url).label
        self._url, self._key = url, key
        self._turn = asyncio.Lock()
        self._rows: dict[str, Any] | None = None

    async def fetch(self, keys: Sequence[str]) -> Mapping[str, Any]:
        async with self._turn:
            if self._rows is None:
                self._rows = await self._read()
        return {key: self._rows[key] for key in keys if key in self._rows}

    async def close(self) -> None:
        self._rows = None

    async def _read(self) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        source = open_source(self._url)
        try:
            async for partition in source.partitions(_PARTITION):
                async for pairs in source.read(partition):
                    for _, row in pairs:
                        self._add(rows, row)
        finally:
            await source.close()
        return rows

    def _add(self, rows: dict[str, Any], row: Any) -> None:
        key = None
        if isinstance(row, dict) and not missing(row.get(self._key)):
            with suppress(ConversionError):
                key = text_of(row[self._key])
        if key is None:
            raise SourceError(f"{self.label} has a row without a {self._key!r} to look it up by")
        if key in rows:
            raise SourceError(f"{self.label} has two rows of the same {self._key!r}: take a column that is unique")
        if len(rows) >= MOST_ROWS:
            raise SourceError(f"{self.label} has more than {MOST_ROWS:,} rows: put them into a database")
        rows[key] = row

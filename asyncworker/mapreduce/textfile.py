"""Read files of lines in bounded memory: cut them into partitions, and read a partition again.

`sources/jsonl.py` and `sources/csv.py` say what a record is and how one is parsed; all else is here. A plain file is
read by byte range by whoever sees its path. What cannot be sought (``.gz``, standard input) is read once, by who
cuts it: each partition carries its lines, as a little file of its own with the header at its head.

Only a line feed ends a line (CR LF therefore too), so keys are the line numbers of an editor: from 1, the header and
blank lines counted. With ``?cut=bytes`` a plain file is not read through to be cut: partitions are ranges of bytes of
about the size asked for, each line belongs to the range that its first byte is in, and keys are the numbers of those
bytes (``byte 4096``). A quoted field that holds a line feed is an error then, since a range may begin within it. All work is done in threads, a step at a time, and never holds more than a block, a record and
the partition that is being shipped.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import itertools
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs

import msgspec

from asyncworker.errors import SourceError, UnknownName
from asyncworker.mapreduce.fileversion import file_version, stamp
from asyncworker.mapreduce.sources.source import DATA_BYTES, LIST_ITEMS, Exactly, Key, Partition, Size, sizes
from asyncworker.mapreduce.standardinput import StandardInput

BLOCK_BYTES = 2**20
RECORD_BYTES = 8 * 2**20
"""The longest record: with it, a partition that was all but full can still travel."""
STDIN = "-"

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_OPEN = re.compile(
    rb'(?:(?:"[^"]*+(?:""[^"]*+)*+"[^,]*+|[^",][^,]*+|),)*+'  # whole fields: quoted, plain, empty
    rb'"[^"]*+(?:""[^"]*+)*+\Z'  # and one whose quote is not closed
).match

Parse = Callable[[list[bytes]], list[Any]]
"""Records to as many values, a `BadItem` where one cannot be read."""


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Place(msgspec.Struct, frozen=True):
    """Where lines are: an absolute path or `STDIN`, and what the URL's query asks for."""

    path: str
    label: str
    query: str
    options: dict[str, list[str]]

    @property
    def packed(self) -> bool:
        return self.path.lower().endswith(".gz")


def place(url: str, suffix: str, known: Sequence[str] = ()) -> Place:
    """Take a path of a ``.suffix`` or ``.suffix.gz`` file apart, or ``-``, with a query of *known* options.

    Raises:
        SourceError: it is no such path. UnknownName: an option that is not known.
    """
    parts = re.fullmatch(rf"(-|.*\.{suffix}(?:\.gz)?)(?:\?([^?]*))?", url, re.IGNORECASE | re.DOTALL)
    if not parts or "\0" in url:
        raise SourceError(f"{url!r} is no path of a .{suffix} or .{suffix}.gz file")
    path, query = parts[1], parts[2] or ""
    options = parse_qs(query, keep_blank_values=True)
    for name in options:
        if name not in known and not (path == STDIN and name == "format"):
            raise UnknownName(f".{suffix} option", name, known)
    return Place(path if path == STDIN else str(Path.cwd() / path), path, query, options)


CUTS = ("lines", "bytes")
SAMPLE = 1000
"""Records by whose length bytes are reckoned as items."""


class TextSource:
    """A file of lines, or standard input.

    *parser* makes a `Parse` of the header (empty where there is none). Where *header* reads the names of columns from
    a first record, quotes may hold line feeds.
    A partition's span is the number of its first line, its first byte, and the byte after its last; where it was cut by
    bytes, ``bytes``, these two, and the `stamp` of the file.
    """

    def __init__(
        self,
        place: Place,
        *,
        parser: Callable[[bytes], Parse],
        header: Callable[[bytes], tuple[str, ...]] | None = None,
    ) -> None:
        self.columns: tuple[str, ...] | None = None
        self.left: float | None = None
        self.portable = place.path != STDIN and not place.packed
        self.url = f"{place.path}?{place.query}" if place.query else place.path
        self.label = "standard input" if place.path == STDIN else place.label
        self._place = place
        self._header = header
        self._headed = header is not None
        self._parser = parser
        self._over = False
        self._by_bytes = _cut_by(place) == "bytes"

    async def partitions(self, size: Size) -> AsyncIterator[Partition]:
        if self._over and self._place.path == STDIN:
            raise SourceError("standard input can be read only once")
        cuts = self._cut(sizes(size))
        try:
            while (partition := await asyncio.to_thread(next, cuts, None)) is not None:
                yield partition
        finally:
            self._over = True

    async def read(self, partition: Partition) -> AsyncIterator[list[tuple[Key, Any]]]:
        lists = self._lists(partition)
        while (pairs := await asyncio.to_thread(next, lists, None)) is not None:
            yield pairs

    async def version(self) -> str | None:
        return (
            None
            if self._place.path == STDIN
            else await asyncio.to_thread(file_version, self._place.path, self._place.label)
        )

    async def close(self) -> None:
        self._over = True

    def _cut(self, size: Callable[[], int]) -> Iterator[Partition]:
        with self._opened() as file:
            lines = Lines(file, self.label, quotes=self._headed)
            head = self._head(lines)
            if head is None:
                return
            if self._header:  # one that cannot be used is told of before any work
                self.columns = self._header(head)
            index = 0
            if self._by_bytes:
                yield from self._ranges(file, lines, size)
                return
            while True:
                number, start, items = lines.number, lines.offset, 0
                lines.kept = None if self.portable else [head] if self._headed else []
                most = size()
                while items < most and (self.portable or lines.offset - start < DATA_BYTES):
                    _, records = lines.records(most - items)
                    if not records:
                        break
                    items += len(records)
                if not items:
                    return
                if isinstance(file, io.BufferedReader):
                    self.left = items * (stamp(file)[0] - lines.offset) / (lines.offset - start)
                data = None if lines.kept is None else b"\n".join(lines.kept)
                yield Partition(index, items, (number, start, lines.offset), data)
                index += 1

    def _ranges(self, file: Reader, lines: Lines, size: Callable[[], int]) -> Iterator[Partition]:
        assert isinstance(file, io.BufferedReader), "only plain files are cut by bytes"
        version = stamp(file)
        start = lines.offset
        _, records = lines.records(SAMPLE)
        length, first = (lines.offset - start) / max(len(records), 1), start
        for index in itertools.count():
            if not records or first >= version[0]:
                return
            asked = size()
            step = asked if isinstance(asked, Exactly) else max(int(asked * length), 1)
            end = min(first + step, version[0])
            self.left = (version[0] - end) / length
            extent = first - start, end - first, f"{version[0]} {version[1]}"
            yield Partition(index, 0, ("bytes", first, end, *version), extent=extent)
            first = end

    def _ranged(self, partition: Partition) -> Iterator[list[tuple[Key, Any]]]:
        _, start, end, *version = partition.span
        with self._opened() as file:
            assert isinstance(file, io.BufferedReader), "only plain files are cut by bytes"
            if list(stamp(file)) != version:
                raise SourceError(f"{self.label} has changed since it was cut")
            head = Lines(file, self.label, quotes=self._headed)
            parse = self._parser(self._head(head) or b"")
            first, beyond = (self._line_from(file, at) if at > head.offset else at for at in (start, end))
            file.seek(first)
            lines = Lines(_Range(file, beyond), self.label, quotes=False, offset=first)
            while taken := lines.take(LIST_ITEMS):
                at, keys = lines.offset - sum(map(len, taken)) - len(taken), list[Key]()
                for line in taken:
                    if self._headed and b'"' in line and _OPEN(line):
                        raise SourceError(
                            f"{self.label}: the field opened in byte {at} holds a line feed: leave out cut=bytes"
                        )
                    keys.append(f"byte {at}")
                    at += len(line) + 1
                kept = [(key, line) for key, line in zip(keys, taken, strict=True) if line.strip()]
                yield list(zip([key for key, _ in kept], parse([line for _, line in kept]), strict=True))

    def _line_from(self, file: io.BufferedReader, at: int) -> int:
        """Return where the first line begins that does so at byte *at* or later."""
        file.seek(at - 1)
        rest = file.readline(RECORD_BYTES + 1)
        if len(rest) > RECORD_BYTES:
            raise SourceError(f"{self.label}: the line of byte {at} is longer than {RECORD_BYTES:,} bytes")
        return at - 1 + len(rest)

    def _lists(self, partition: Partition) -> Iterator[list[tuple[Key, Any]]]:
        if partition.span[0] == "bytes":
            yield from self._ranged(partition)
            return
        number, start, end = partition.span
        if partition.data is not None:
            lines = Lines(io.BytesIO(partition.data), self.label, quotes=self._headed, offset=start)
            parse = self._parser(self._head(lines) or b"")
            lines.number = number
            yield from _parsed(lines, parse)
            return
        with self._opened() as file:
            assert isinstance(file, io.BufferedReader), "only plain files are read by range"
            parse = self._parser(self._head(Lines(file, self.label, quotes=self._headed)) or b"")
            file.seek(max(start - 1, 0))
            moved = start > len(_BOM) and file.read(1) != b"\n"
            file.seek(start)
            lines = Lines(_Range(file, end), self.label, quotes=self._headed, offset=start)
            lines.number = number
            items = 0
            for pairs in _parsed(lines, parse):
                items += len(pairs)
                yield pairs
            if moved or items != partition.items:
                raise SourceError(f"{self.label} has changed since it was cut: line {number} and what follows moved")

    def _head(self, lines: Lines) -> bytes | None:
        """Take the header; None where there is none but should be one."""
        if not self._headed:
            return b""
        _, records = lines.records(1)
        return records[0] if records else None

    @contextmanager
    def _opened(self) -> Iterator[Reader]:
        if self._place.path == STDIN:
            yield StandardInput(lambda: self._over)
            return
        path, label = Path(self._place.path), self.label
        try:
            if path.exists() and not path.is_file():  # a pipe would hang
                raise SourceError(f"{label} is no plain file: pipe it in, as -")
            with gzip.open(path) if self._place.packed else path.open("rb") as file:
                yield file
        except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
            raise SourceError(f"{label} is damaged or cut off ({exc}): get it anew, `gzip -t` checks it") from exc
        except FileNotFoundError as exc:
            raise SourceError(f"no file {path}: check the path, and that this machine sees it") from exc
        except PermissionError as exc:
            raise SourceError(f"{label} may not be read by this user: see its permissions") from exc
        except OSError as exc:
            raise SourceError(f"{label} cannot be read: {exc.strerror or exc}") from exc


def _cut_by(place: Place) -> str:
    (by,) = place.options.get("cut", CUTS[:1])[:1]
    if by not in CUTS:
        raise UnknownName("cut", by, CUTS)
    if by == "bytes" and (place.packed or place.path == STDIN):
        raise SourceError(f"{place.label} cannot be read at any place, so not be cut by bytes")
    return by


class Lines:
    """The lines of a stream, a block in memory at a time.

    ``number`` is the number of the next line, ``offset`` that of its first byte. What is taken is appended to
    ``kept``, unless that is None.
    """

    def __init__(self, file: Reader, label: str, *, quotes: bool, offset: int = 0) -> None:
        self.number, self.offset = 1, offset
        self.kept: list[bytes] | None = None
        self._file, self._label, self._quotes = file, label, quotes
        self._block: list[bytes] = []
        self._at = 0
        self._tail = b""

    def take(self, most: int) -> list[bytes]:
        """Take 1 to *most* lines, without their line feeds; none at the end."""
        if self._at == len(self._block):
            self._fill()
        taken = self._block[self._at : self._at + most]
        self._at += len(taken)
        self.number += len(taken)
        self.offset += sum(map(len, taken)) + len(taken)
        if self.kept is not None:
            self.kept += taken
        return taken

    def records(self, most: int) -> tuple[Sequence[int], list[bytes]]:
        """Take 1 to *most* records, and the number of each one's first line; blank lines are none. None at the end."""
        while taken := self.take(most):
            numbers: Sequence[int] = range(self.number - len(taken), self.number)
            if self._quotes and b'"' in b"".join(taken):
                numbers, taken = self._joined(numbers[0], taken)
            if not all(map(bytes.strip, taken)):
                numbers = [number for number, line in zip(numbers, taken, strict=True) if line.strip()]
                taken = [line for line in taken if line.strip()]
            if taken:
                return numbers, taken
        return (), []

    def _joined(self, first: int, taken: list[bytes]) -> tuple[list[int], list[bytes]]:
        """Join the lines that quotes hold together, taking more for the last record where need be."""
        numbers, records = [], []
        at = 0
        while at < len(taken):
            start, line, length = at, taken[at], 0
            while b'"' in line and _OPEN(line):
                length += len(taken[at])
                at += 1
                if at == len(taken):
                    taken += self.take(1)
                if at == len(taken) or length > RECORD_BYTES:
                    raise SourceError(f"{self._label}: the quote opened in line {first + start} is not closed")
                line = b'"' + taken[at]
            at += 1
            numbers.append(first + start)
            records.append(b"\n".join(taken[start:at]))
        return numbers, records

    def _fill(self) -> None:
        self._at, self._block = 0, []
        while not self._block:
            block = self._file.read(BLOCK_BYTES)
            if not self.offset and not self._tail:
                block = self._without_bom(block)
            if not block:
                self._block, self._tail = [self._tail] if self._tail else [], b""
                return
            self._block = (self._tail + block).split(b"\n")
            self._tail = self._block.pop()
            if len(self._tail) > RECORD_BYTES:
                line = self.number + len(self._block)
                raise SourceError(
                    f"{self._label}: line {line} is longer than {RECORD_BYTES:,} bytes; each item must be a line of its own"
                )

    def _without_bom(self, block: bytes) -> bytes:
        if block.startswith(_UTF16):
            raise SourceError(f"{self._label} is UTF-16: make it UTF-8 first (iconv -f UTF-16 -t UTF-8)")
        if block.startswith(_BOM):
            self.offset = len(_BOM)
            return block[len(_BOM) :]
        return block


def _parsed(lines: Lines, parse: Parse) -> Iterator[list[tuple[Key, Any]]]:
    while True:
        numbers, records = lines.records(LIST_ITEMS)
        if not records:
            return
        yield list(zip(numbers, parse(records), strict=True))


class _Range:
    """A file as though it ended at a byte."""

    def __init__(self, file: io.BufferedReader, end: int) -> None:
        self._file, self._end = file, end

    def read(self, size: int) -> bytes:
        return self._file.read(max(min(size, self._end - self._file.tell()), 0))

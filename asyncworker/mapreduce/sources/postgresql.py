"""PostgreSQL: a dataset (``?dataset=NAME``) or a table (``?table=schema.name&key=id``), read by all workers at once.

| URL | item | key |
|---|---|---|
| ``?dataset=NAME`` | the ``data`` of a row of ``dataset_items(dataset_id, item_index, data)`` | ``item_index`` |
| ``?table=T&key=K`` | a dict of the row's columns, the key column among them, as PostgreSQL's own JSON has them | ``K`` |
| ``?table=T&key=ctid`` | the same, of a table without such a column | where the row lies |

In a table's item, numbers are numbers, dates ISO text, and what JSON lacks (uuid, bytea, ranges, NaN) is text.

One transaction, so one snapshot, cuts it into ranges from a first to a last key: by walking along the index where a
unique one has just the key's columns, else by sorting. Keys may be negative, start anywhere and
have gaps; they may be neither NULL nor there twice. Rows added after the cut before the first key or behind the last
are not read; those added in between may be. Rows come some hundred kilobytes at a time, as one JSON array, for that costs
server and reader less than rows one by one; each such fetch is a statement of its own, under way while the items
of the one before are mapped. With ``key=ctid`` ranges are
of pages, whose rows are not counted; a row that is changed meanwhile may be read twice or not at all.

To be written to, ``?dataset=NAME`` holds the rows under that id in place of all it held, and ``?table=T`` (made where
it is not there: ``job_id, item_index, data``) those of one job beside those of others. Each can be read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from math import ceil
from typing import Any

import msgspec

from asyncworker.errors import EmptyDataset, SourceError
from asyncworker.mapreduce.cachetable import CacheTable
from asyncworker.mapreduce.database import Address, Connection, Database, Table, address, identifier, lock, qualified
from asyncworker.mapreduce.planner import GRAIN, cut
from asyncworker.mapreduce.results import ResultTable
from asyncworker.mapreduce.selection import CTID, IS_TABLE, Selection, selected
from asyncworker.mapreduce.slim import SlimDecoder
from asyncworker.mapreduce.sources.source import (
    LIST_ITEMS,
    BadItem,
    Batch,
    Exactly,
    Key,
    Partition,
    Size,
    Source,
    sizes,
)

DATASETS = "dataset_items"
CONNECTIONS = 2
"""How many partitions fetch at once in one process: a second one waits for the server while the first one maps."""
FETCH_BYTES, MOST_FETCHED = 3 * 2**17, 10 * LIST_ITEMS
"""How much is fetched at once: what a round trip costs is little beside it. Of more than half a megabyte server and reader
make larger pieces of memory anew each time, and it takes them a third longer."""
FIRST_FETCHED, GROWTH = 100, 16
"""How many rows the first fetch brings, before their size is known, and how much larger the next one may be."""
MOST_CUT = 500
"""How many parts of a table are asked for at once, one and twice as many each time: the first is mapped while others are cut."""
_Part = tuple[Any, Any, int]
"""The first and the last key of some rows, and how many they are."""
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def open(url: str) -> PostgresqlSource:
    """Open a dataset, or a table by its key column.

    Raises:
        SourceError: the URL says neither, or both, or names no table or column.
    """
    place = address(url)
    options = place.options
    if not (options.keys() == {"dataset"} or options.keys() == {"table", "key"}):
        raise SourceError(f"{place.label} must end in ?dataset=NAME or ?table=NAME&key=COLUMN")
    if "table" in options:
        qualified(options["table"])
        identifier(options["key"], "column")
    return PostgresqlSource(url, place)


def writer(url: str, *, job_id: str = "") -> PostgresqlSink:
    """Write rows as JSON.

    Raises:
        SourceError: the URL says neither dataset nor table, or both.
    """
    place = address(url)
    dataset, table = place.options.get("dataset"), place.options.get("table")
    if dataset is not None and table is None:
        return PostgresqlSink(place, DATASETS, "dataset_id", dataset)
    if table is not None and dataset is None:
        qualified(table)
        return PostgresqlSink(place, table, "job_id", job_id)
    raise SourceError(f"{place.label} must end in ?dataset=NAME or ?table=NAME")


def cache(dsn: str) -> CacheTable:
    """Open the table of cached results in a database."""
    return CacheTable(dsn)


def results(dsn: str) -> ResultTable:
    """Open the table of results in a database."""
    return ResultTable(dsn)


class _Span(msgspec.Struct, frozen=True):
    """Rows from a key on (``>=``), or *beyond* it (``>``), to another, that one included; keys as text."""

    beyond: str
    begin: str
    end: str


class _Rows(msgspec.Struct, frozen=True):
    """What a fetch brought: items as one JSON array, or else JSON texts one by one; perhaps there are *more*."""

    span: _Span
    keys: list[Key]
    array: bytes | None
    texts: list[str | bytes | None]
    more: bool


class PostgresqlSource:
    """A dataset or a table. A partition's span is its first and its last key."""

    portable = True
    columns: tuple[str, ...] | None = None

    def __init__(self, url: str, place: Address) -> None:
        self.left: float | None = None
        self.url = url
        self.label = place.label
        self._dataset = place.options.get("dataset")
        self._values = () if self._dataset is None else (self._dataset,)
        self._table = place.options.get("table", DATASETS)
        self._key = place.options.get("key", "item_index")
        self.database = Database(place, CONNECTIONS)
        self._selection: Selection | None = None
        self._rows = FIRST_FETCHED

    def join(self, other: Source) -> bool:
        """Read through the same connections as *other*, if it reads from the same server as the same user."""
        if not (isinstance(other, PostgresqlSource) and other.database.dsn == self.database.dsn):
            return False
        self.database = other.database
        return True

    async def partitions(self, size: Size) -> AsyncIterator[Partition]:
        if self._key == CTID:
            async with self.database.transaction() as connection:
                selection = await self._selected(connection)
                ((pages, rows),) = await connection.fetch(selection.pages(), str(selection.table))
            if selection.key == CTID:  # and not a column of this name
                for partition in self._paged(pages, rows, sizes(size)):
                    yield partition
                return
        parts: asyncio.Queue[_Part | None] = asyncio.Queue()
        cutting = asyncio.create_task(self._cut(GRAIN if callable(size) else size, parts))
        cutting.add_done_callback(lambda _: parts.put_nowait(None))
        index = most = total = shipped = 0
        begin = end = None
        try:
            while part := await parts.get():
                first, end, items = part
                begin, most = (begin, most) if total else (first, size() if callable(size) else size)
                total += items
                if total >= most:
                    shipped += total
                    self.left = cutting.result() - shipped if cutting.done() else None
                    yield Partition(index, total, (begin, end))
                    index, total = index + 1, 0
            self.left = await cutting - shipped - total
            if total:
                yield Partition(index, total, (begin, end))
            elif not index and self._dataset is not None:
                raise EmptyDataset(f"{self.label}: the dataset {self._dataset!r} has no rows in {self._table}")
        finally:
            cutting.cancel()
            await asyncio.gather(cutting, return_exceptions=True)

    async def _cut(self, size: int, parts: asyncio.Queue[_Part | None]) -> int:
        """Put parts of so many rows, as they are found; returns how many rows there are."""
        async with self.database.transaction() as connection:
            selection = await self._selected(connection)
            if selection.indexed:
                return await self._walk(connection, selection, size, parts)
            rows = await connection.fetch(selection.plan(), size, *self._values)
        if any(nulls for _, _, _, nulls, _ in rows):
            raise SourceError(f"{self.label}: the key {self._key!r} is NULL in some rows: take a column that never is")
        if any(again for *_, again in rows):
            raise SourceError(f"{self.label}: the key {self._key!r} has values twice: take a column that is unique")
        for first, last, items, _, _ in rows:
            parts.put_nowait((first, last, items))
        return sum(items for _, _, items, _, _ in rows)

    async def _walk(
        self, connection: Connection, selection: Selection, size: int, parts: asyncio.Queue[_Part | None]
    ) -> int:
        await connection.execute("SET LOCAL enable_sort = off")  # the whole table would be sorted for each part
        await connection.execute(f"DECLARE parts NO SCROLL CURSOR FOR {selection.walk()}", size, *self._values)
        count, most = 0, 1
        while rows := await connection.fetch(f"FETCH {most} FROM parts"):
            for first, last in rows:
                if first is None:
                    break
                items = size
                if last is None:
                    ((last, items),) = await connection.fetch(selection.rest(), str(first), *self._values)
                count += items
                parts.put_nowait((first, last, items))
            most = min(2 * most, MOST_CUT)
        return count

    def _paged(self, pages: int, rows: int, size: Callable[[], int]) -> Iterator[Partition]:
        """Cut a table by its pages."""
        first = index = 0
        self.left = rows
        while first < pages and rows:
            asked = size()
            end = min(pages, first + (asked if isinstance(asked, Exactly) else max(1, asked * pages // rows)))
            self.left = rows * (pages - end) / pages
            extent = first, end - first, f"{pages} pages"
            yield Partition(index, 0, (f"({first},0)", f"({end - 1},65535)"), extent=extent)
            first, index = end, index + 1

    async def read(self, partition: Partition) -> AsyncIterator[list[tuple[Key, Any]]]:
        async with aclosing(self._read(partition, _decode)) as batches:
            async for some in batches:
                yield list(zip(some.keys, some.values, strict=True))

    def read_fields(self, partition: Partition, fields: Mapping[str, Any]) -> AsyncIterator[Batch]:
        return self._read(partition, SlimDecoder(fields))

    async def _read(self, partition: Partition, decode: Callable[[bytes], list[Any]]) -> AsyncGenerator[Batch, None]:
        begin, end = map(str, partition.span)
        count = 0
        fetch = asyncio.create_task(self._fetch(_Span(">=", begin, end), self._most(partition.items)))
        try:
            while (rows := await fetch).keys:
                count += len(rows.keys)
                if rows.more:
                    span = _Span(">", str(rows.keys[-1]), end)
                    fetch = asyncio.create_task(self._fetch(span, self._most(partition.items - count)))
                keys, values = await self._decoded(rows, decode)
                for some in cut(len(keys), LIST_ITEMS):
                    yield Batch(keys[some.start : some.stop], values[some.start : some.stop])
                if not rows.more:
                    break
        finally:
            fetch.cancel()
            await asyncio.gather(fetch, return_exceptions=True)
        if partition.items and not count:
            raise SourceError(
                f"{self.label}: nothing is left of the {partition.items} rows that were planned from {partition.span[0]!r} on"
            )

    def _most(self, left: int) -> int:
        """Return how many rows to fetch of those that are *left* by the plan: as many each time, and none for a few."""
        most = self._rows
        if left > 0:  # else there are more than were planned, or they were not counted
            most = min(most, ceil(left / ceil(left / most)) + 1)  # a last fetch that is not full needs none after it
        return most

    async def _fetch(self, span: _Span, most: int | None, *, whole: bool = True) -> _Rows:
        """Fetch a span's first rows; *whole*: as one array, where that can be."""
        try:
            if (selection := self._selection) is None:
                async with self.database.transaction() as connection:
                    selection = await self._selected(connection)
            whole = whole and selection.whole
            query = selection.read_whole(span.beyond) if whole else selection.read(span.beyond)
            found = await self.database.fetch(query, span.begin, span.end, most, *self._values)
        except SourceError:
            self._selection = None  # perhaps the table is another now
            raise
        keys, array, texts = [row[0] for row in found], None, [row[1] for row in found]
        size = sum(len(text or b"") for text in texts)
        if whole:
            keys, array = _decode(keys[0] or b"[]"), texts[0] or b"[]"
        if keys:
            fit = FETCH_BYTES * len(keys) // max(size, 1)
            self._rows = max(1, min(fit, GROWTH * len(keys), MOST_FETCHED))
        return _Rows(span, keys, array, texts, more=len(keys) == most)

    async def _decoded(self, rows: _Rows, decode: Callable[[bytes], list[Any]]) -> tuple[list[Key], list[Any]]:
        """Return keys and values; where one of these cannot be read, they are fetched once more, each by itself."""
        if rows.array is not None:
            for way in (decode, _decode):  # not all may be objects
                with suppress(ValueError, RecursionError):
                    return rows.keys, way(rows.array)
            span = msgspec.structs.replace(rows.span, end=str(rows.keys[-1]))
            rows = await self._fetch(span, None, whole=False)
        return rows.keys, [_value(text) for text in rows.texts]

    async def version(self) -> str | None:
        """Return how many rows there are, and the latest transaction that wrote one: each INSERT, UPDATE and DELETE changes it.

        None of a view or foreign table, which knows of none. Reads the table through.
        """
        async with self.database.transaction() as connection:
            selection = await self._selected(connection)
            if not await connection.fetchval(IS_TABLE, selection.table.schema, selection.table.name):
                return None
            row = await connection.fetchrow(selection.version(), *self._values)
        return None if row is None else "-".join(map(str, row))

    async def close(self) -> None:
        await self.database.close()

    async def _selected(self, connection: Connection) -> Selection:
        if self._selection is None:
            self._selection = await selected(
                self.database, connection, self._table, self._key, dataset=self._dataset is not None
            )
            if self._dataset is None:
                self.columns = tuple(self._selection.table.types)
        return self._selection


class PostgresqlSink:
    """Rows under one id in a table, all in one transaction.

    Args:
        owner: the column that says whose rows they are. value: what stands in it.
    """

    def __init__(self, place: Address, table: str, owner: str, value: str) -> None:
        self.label = place.label
        self._database = Database(place)
        self._name, self._owner, self._value = table, owner, value
        self._transaction = AsyncExitStack()
        self._connection: Connection | None = None
        self._table: Table | None = None
        self._written = 0

    async def write(self, rows: Sequence[Any]) -> None:
        try:
            texts = [_encode(row) for row in rows]
        except (TypeError, ValueError, RecursionError) as exc:
            raise SourceError(f"a row cannot be written as JSON: {exc}") from exc
        connection, table = await self._begun()
        with self._database.told():
            await connection.copy_records_to_table(
                table.name,
                schema_name=table.schema,
                columns=[self._owner, "item_index", "data"],
                records=[(self._value, index, text) for index, text in enumerate(texts, self._written)],
            )
        self._written += len(texts)

    async def commit(self) -> None:
        await self._begun()
        await self._transaction.aclose()
        await self._database.close()

    async def abort(self) -> None:
        with suppress(_Abort, SourceError):  # a server that is gone has forgotten it already
            await self._transaction.__aexit__(_Abort, _Abort(), None)
        await self._database.close()

    async def _begun(self) -> tuple[Connection, Table]:
        """Open the transaction with the first rows, and take away what was there under this id."""
        if self._connection is None or self._table is None:
            columns = [f"{self._owner} text NOT NULL", "item_index bigint NOT NULL", "data jsonb"]
            table = await self._database.ensure(self._name, [*columns, f"PRIMARY KEY ({self._owner}, item_index)"])
            owner, _ = table.column(self._owner), table.column("item_index")
            table.column("data")
            if table.types["data"] not in ("json", "jsonb"):
                raise SourceError(f"{self.label}: the column data of {self._name} must be jsonb or json")
            self._connection = await self._transaction.enter_async_context(self._database.transaction(write=True))
            with self._database.told():
                await lock(self._connection, f"{table.schema}.{table.name}/{self._value}")
                await self._connection.execute(f"DELETE FROM {table} WHERE {owner} = $1", self._value)  # noqa: S608 - names are quoted
            self._table = table
        return self._connection, self._table


class _Abort(Exception):
    """Ends a transaction without its rows."""


def _value(text: str | bytes | None) -> Any:
    """Return an item of its JSON; NULL is null."""
    try:
        return None if text is None else _decode(text)
    except (ValueError, RecursionError) as exc:
        return BadItem(f"no JSON: {exc}")

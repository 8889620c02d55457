"""PostgreSQL: a dataset (``?dataset=NAME``) or a table (``?table=schema.name&key=id``), read by all workers at once.

| URL | item | key |
|---|---|---|
| ``?dataset=NAME`` | the ``data`` of a row of ``dataset_items(dataset_id, item_index, data)`` | ``item_index`` |
| ``?table=T&key=K`` | a dict of the row's columns, the key column among them, as PostgreSQL's own JSON has them | ``K`` |
| ``?table=T&key=ctid`` | the same, of a table without such a column | where the row lies |

In a table's item, numbers are numbers, dates ISO text, and what JSON lacks (uuid, bytea, ranges, NaN) is text.

One query, so one snapshot, cuts it into ranges from a first to a last key. Keys may be negative, start anywhere and
have gaps; they may be neither NULL nor there twice. Rows added after the cut before the first key or behind the last
are not read; those added in between may be. No transaction is open while items are mapped. With ``key=ctid`` ranges are
of pages, whose rows are not counted; a row that is changed meanwhile may be read twice or not at all.

To be written to, ``?dataset=NAME`` holds the rows under that id in place of all it held, and ``?table=T`` (made where
it is not there: ``job_id, item_index, data``) those of one job beside those of others. Each can be read again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import msgspec

from asyncworker.errors import EmptyDataset, SourceError
from asyncworker.mapreduce.database import Address, Connection, Database, Table, address, identifier, lock, qualified
from asyncworker.mapreduce.planner import GRAIN, cut
from asyncworker.mapreduce.results import ResultTable
from asyncworker.mapreduce.sources.source import LIST_ITEMS, BadItem, Key, Partition, Size, sizes

DATASETS = "dataset_items"
PLAIN_TYPES = ("int2", "int4", "int8", "text", "varchar")
KEY_TYPES = (*PLAIN_TYPES, "uuid", "numeric", "float4", "float8", "date", "timestamp", "timestamptz")
"""Types by which rows are found; values of all but the plain ones travel as text."""
CTID = "ctid"
JSON_TYPES = ("jsonb", "json", "text", "varchar")

FETCH_BYTES, MOST_FETCHED = 2**20, 10 * LIST_ITEMS
"""How much is fetched at once: what a round trip costs is little beside it, and so is what it takes of memory."""
_IS_TABLE = """
    SELECT c.relkind IN ('r', 'm', 'p') FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2
"""
_IS_HEAP = _IS_TABLE.replace("IN ('r', 'm', 'p')", "IN ('r', 'm')")
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


def results(dsn: str) -> ResultTable:
    """Open the table of results in a database."""
    return ResultTable(dsn)


class Selection(msgspec.Struct, frozen=True):
    """The parts of queries over one dataset or table; names in them are quoted, types are of `KEY_TYPES`."""

    table: Table
    key: str
    key_type: str
    item: str
    where: str

    def plan(self) -> str:
        """Return the query that cuts: ``$1`` is the size, ``$2`` the dataset."""
        key = 'place::text COLLATE "C"' if self.key_type == "uuid" else "place"  # which has no min and max of its own
        shown = "" if self.key_type in PLAIN_TYPES else "::text"
        return (
            f"SELECT min({key}){shown}, max({key}){shown}, count(*), count(*) - count(place), bool_or(again) FROM ("  # noqa: S608 - names are quoted
            f"SELECT {self.key} AS place, (row_number() OVER keys - 1) / $1::int8 AS part, "
            f"row_number() OVER keys <> rank() OVER keys AS again "
            f"FROM {self.table} AS item WHERE {self.where.format(2)} WINDOW keys AS (ORDER BY {self.key})"
            ") AS places GROUP BY part ORDER BY part"
        )

    def pages(self) -> str:
        """Return the query that counts a table's pages and rows: ``$1`` is the table."""
        return (
            "SELECT pg_relation_size($1::text::regclass) / current_setting('block_size')::int8, "  # noqa: S608 - names are quoted
            f"(SELECT count(*) FROM {self.table})"
        )

    def version(self) -> str:
        """Return the query that tells whether rows are what they were: ``$1`` is the dataset."""
        return (
            "SELECT count(*), sum(xmin::text::numeric), max(xmin::text::int8) "  # noqa: S608 - names are quoted
            f"FROM {self.table} AS item WHERE {self.where.format(1)}"
        )

    def read(self, beyond: str) -> str:
        """Return the query that reads: keys *beyond* (``>`` or ``>=``) ``$1`` up to ``$2``, at most ``$3``, ``$4`` the dataset."""
        key = self.key if self.key_type in PLAIN_TYPES else f"{self.key}::text"
        return (
            f"SELECT {key}, {self.item} FROM {self.table} AS item WHERE {self.where.format(4)} "  # noqa: S608 - names are quoted
            f"AND {self.key} {beyond} $1::text::{self.key_type} AND {self.key} <= $2::text::{self.key_type} "
            f"ORDER BY item.{self.key} LIMIT $3::int8"
        )


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
        self._database = Database(place)
        self._selection: Selection | None = None

    async def partitions(self, size: Size) -> AsyncIterator[Partition]:
        async with self._database.transaction() as connection:
            selection = await self._selected(connection)
            pages = (
                await connection.fetchrow(selection.pages(), str(selection.table)) if selection.key == CTID else None
            )
        if pages is not None:
            for partition in self._paged(pages[0], pages[1], sizes(size)):
                yield partition
            return
        async with self._database.transaction() as connection:
            parts = await connection.fetch(selection.plan(), GRAIN if callable(size) else size, *self._values)
        if not parts and self._dataset is not None:
            raise EmptyDataset(f"{self.label}: the dataset {self._dataset!r} has no rows in {self._table}")
        if any(nulls for _, _, _, nulls, _ in parts):
            raise SourceError(f"{self.label}: the key {self._key!r} is NULL in some rows: take a column that never is")
        if any(again for *_, again in parts):
            raise SourceError(f"{self.label}: the key {self._key!r} has values twice: take a column that is unique")
        self.left = sum(items for _, _, items, _, _ in parts)
        index = most = total = 0
        begin: Any = None
        for at, (first, last, items, _, _) in enumerate(parts, 1):
            begin, most = (begin, most) if total else (first, size() if callable(size) else size)
            total += items
            if total >= most or at == len(parts):
                self.left -= total
                yield Partition(index, total, (begin, last))
                index, total = index + 1, 0

    def _paged(self, pages: int, rows: int, size: Callable[[], int]) -> Iterator[Partition]:
        """Cut a table by its pages."""
        first = index = 0
        self.left = rows
        while first < pages and rows:
            end = min(pages, first + max(1, size() * pages // rows))
            self.left = rows * (pages - end) / pages
            yield Partition(index, 0, (f"({first},0)", f"({end - 1},65535)"))
            first, index = end, index + 1

    async def read(self, partition: Partition) -> AsyncIterator[list[tuple[Key, Any]]]:
        at, last = partition.span
        beyond, count, most, full = ">=", 0, LIST_ITEMS, True
        while full:
            async with self._database.transaction() as connection:
                selection = await self._selected(connection)
                rows = await connection.fetch(selection.read(beyond), str(at), str(last), most, *self._values)
            for some in cut(len(rows), LIST_ITEMS):
                yield [(row[0], _value(row[1])) for row in rows[some.start : some.stop]]
            count, full = count + len(rows), len(rows) == most
            if rows:
                at, beyond = rows[-1][0], ">"
                size = sum(len(row[1] or b"") for row in rows) / len(rows)
                most = max(LIST_ITEMS, min(int(FETCH_BYTES / max(size, 1)), MOST_FETCHED))
        if partition.items and not count:
            raise SourceError(
                f"{self.label}: nothing is left of the {partition.items} rows that were planned from {partition.span[0]!r} on"
            )

    async def version(self) -> str | None:
        """Return how many rows there are, and the latest transaction that wrote one: each INSERT, UPDATE and DELETE changes it.

        None of a view or foreign table, which knows of none. Reads the table through.
        """
        async with self._database.transaction() as connection:
            selection = await self._selected(connection)
            if not await connection.fetchval(_IS_TABLE, selection.table.schema, selection.table.name):
                return None
            row = await connection.fetchrow(selection.version(), *self._values)
        return None if row is None else "-".join(map(str, row))

    async def close(self) -> None:
        await self._database.close()

    async def _selected(self, connection: Connection) -> Selection:
        if self._selection is None:
            table = await self._database.table(connection, self._table)
            if self._key == CTID and CTID not in table.types:
                if not await connection.fetchval(_IS_HEAP, table.schema, table.name):
                    raise SourceError(f"{self.label}: only a plain table has pages; take a column that is unique")
                key, kind = CTID, "tid"
            else:
                key, kind = table.column(self._key), _simple(table, self._key)
            if self._dataset is None:
                self._selection = Selection(table, key, kind, "row_to_json(item)", "true")
                self.columns = tuple(table.types)
            else:
                data = table.column("data")
                if table.types["data"] not in JSON_TYPES:
                    raise SourceError(f"{self.label}: {self._table}.data must be jsonb, json or text")
                owner = table.column("dataset_id")
                where = f"{owner} = ${{}}::text::{_simple(table, 'dataset_id')}"
                self._selection = Selection(table, key, kind, data, where)
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


def _simple(table: Table, column: str) -> str:
    """Return the type of a column by which rows can be found."""
    kind = table.types[column]
    if kind not in KEY_TYPES:
        raise SourceError(
            f"{table.name}.{column} is of type {kind}: a number, text, date or uuid is needed to find rows by; key=ctid needs none"
        )
    return kind


def _value(text: str | bytes | None) -> Any:
    """Return an item of its JSON; NULL is null."""
    try:
        return None if text is None else _decode(text)
    except (ValueError, RecursionError) as exc:
        return BadItem(f"no JSON: {exc}")

"""Selections: what is to be read of a table of PostgreSQL, checked against the catalogue, and the queries for it."""

from __future__ import annotations

import msgspec

from asyncworker.errors import SourceError
from asyncworker.mapreduce.database import Connection, Database, Table

PLAIN_TYPES = ("int2", "int4", "int8", "text", "varchar")
KEY_TYPES = (*PLAIN_TYPES, "uuid", "numeric", "float4", "float8", "date", "timestamp", "timestamptz")
"""Types by which rows are found; values of all but the plain ones travel as text."""
CTID = "ctid"
JSON_TYPES = ("jsonb", "json", "text", "varchar")

IS_TABLE = """
    SELECT c.relkind IN ('r', 'm', 'p') FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2
"""
_HAS_INDEX = """
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_index AS i ON i.indrelid = c.oid JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
        JOIN pg_catalog.pg_am AS m ON m.oid = x.relam
        WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'm') AND NOT c.relhassubclass
            AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND m.amname = 'btree'
            AND $3::text[] = ARRAY(
                SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
                LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number AND a.attnotnull
                WHERE k.place <= i.indnkeyatts ORDER BY k.place
            )
    )
"""
_READ_ONLY = "(SELECT pg_catalog.set_config('transaction_read_only', 'on', true)) IS NOT NULL"
"""True, and so by the time that the first row is looked for; a statement outside a transaction has no other way to say so."""
_IS_HEAP = IS_TABLE.replace("IN ('r', 'm', 'p')", "IN ('r', 'm')")


class Selection(msgspec.Struct, frozen=True):
    """The parts of queries over one dataset or table; names in them are quoted, types are of `KEY_TYPES`.

    ``indexed``: there is an index by which rows can be walked along in the order of their keys, all of which it knows
    to be unique and not NULL. ``whole``: items are JSON by their type, so that many can be read as one array.
    """

    table: Table
    key: str
    key_type: str
    item: str
    where: str
    indexed: bool
    whole: bool

    @property
    def shown(self) -> str:
        """The key as it travels."""
        return self.key if self.key_type in PLAIN_TYPES else f"{self.key}::pg_catalog.text"

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

    def walk(self) -> str:
        """Return the query that cuts along the index: ``$1`` is the size, ``$2`` the dataset.

        It gives each part's first and last key; the last key of a last part that is smaller is NULL, and of a part that
        would be empty both are.
        """
        rows = f"FROM {self.table} AS item WHERE {self.where.format(2)}"
        beyond = f"{rows} AND {self.key} > parts.last"
        first, last = (f"ORDER BY item.{self.key} {which} LIMIT 1" for which in ("", "OFFSET $1::int8 - 1"))
        shown = "" if self.key_type in PLAIN_TYPES else "::text"
        return (
            f"WITH RECURSIVE parts AS (SELECT (SELECT {self.key} {rows} {first}) AS first, "  # noqa: S608 - names are quoted
            f"(SELECT {self.key} {rows} {last}) AS last UNION ALL SELECT (SELECT {self.key} {beyond} {first}), "
            f"(SELECT {self.key} {beyond} {last}) FROM parts WHERE parts.last IS NOT NULL) "
            f"SELECT first{shown}, last{shown} FROM parts"
        )

    def rest(self) -> str:
        """Return the query that gives the last key, and how many there are from ``$1`` on; ``$2`` is the dataset."""
        rows = f"FROM {self.table} AS item WHERE {self.where.format(2)}"
        return (
            f"SELECT (SELECT {self.shown} {rows} ORDER BY item.{self.key} DESC LIMIT 1), "
            f"(SELECT count(*) {rows} AND {self.key} >= $1::text::{self.key_type})"
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
        """Return the query that reads: keys *beyond* (``>`` or ``>=``) ``$1`` up to ``$2``, at most ``$3``, ``$4`` the dataset.

        It means the same whatever the search path is, as does `read_whole`, and changes nothing, whatever a view calls.
        """
        return (
            f"SELECT {self.shown} AS key, {self.item} AS item FROM {self.table} AS item WHERE {_READ_ONLY} AND {self.where.format(4)} "  # noqa: S608 - names are quoted
            f"AND {self.key} OPERATOR(pg_catalog.{beyond}) $1::pg_catalog.text::pg_catalog.{self.key_type} "
            f"AND {self.key} OPERATOR(pg_catalog.<=) $2::pg_catalog.text::pg_catalog.{self.key_type} "
            f"ORDER BY item.{self.key} LIMIT $3::pg_catalog.int8"
        )

    def read_whole(self, beyond: str) -> str:
        """Return the same query, for all keys and all items as one JSON array each; NULL where there are none."""
        return (
            f"SELECT pg_catalog.json_agg(rows.key), pg_catalog.json_agg(rows.item) FROM ({self.read(beyond)}) AS rows"  # noqa: S608 - as above
        )


async def selected(database: Database, connection: Connection, name: str, by: str, *, dataset: bool) -> Selection:
    """Look up what is to be read, within a transaction: of a table, or of a table of datasets (*dataset*); *by* is the key.

    Raises:
        SourceError: there is no such table or column, or rows cannot be found by it.
    """
    table = await database.table(connection, name)
    if by == CTID and CTID not in table.types:
        if not await connection.fetchval(_IS_HEAP, table.schema, table.name):
            raise SourceError(f"{database.label}: only a plain table has pages; take a column that is unique")
        key, kind = CTID, "tid"
    else:
        key, kind = table.column(by), _simple(table, by)
    item, where, whole, index = "pg_catalog.row_to_json(item)", "true", True, [by]
    if dataset:
        item, of_item = table.column("data"), table.types["data"]
        if of_item not in JSON_TYPES:
            raise SourceError(f"{database.label}: {name}.data must be jsonb, json or text")
        kind_of_id = _simple(table, "dataset_id")
        where = f"{table.column('dataset_id')} OPERATOR(pg_catalog.=) ${{}}::pg_catalog.text::pg_catalog.{kind_of_id}"
        whole, index = of_item.startswith("json"), ["dataset_id", by]
    indexed = await connection.fetchval(_HAS_INDEX, table.schema, table.name, index)
    return Selection(table, key, kind, item, where, indexed, whole)


def _simple(table: Table, column: str) -> str:
    """Return the type of a column by which rows can be found."""
    kind = table.types[column]
    if kind not in KEY_TYPES:
        raise SourceError(
            f"{table.name}.{column} is of type {kind}: a number, text, date or uuid is needed to find rows by; key=ctid needs none"
        )
    return kind

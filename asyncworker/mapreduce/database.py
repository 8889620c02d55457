"""PostgreSQL, as the source, the sink and the result table use it: few connections, checked names, errors of ours.

Whatever is a value travels as ``$n``. A name of a table or column stands in a query only after three doors: it has
the form of an identifier, the catalogue knows it, and it is quoted. Each transaction pins ``search_path`` and
``statement_timeout`` for itself, so a pooler between us and the server does no harm.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from operator import itemgetter
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode

import asyncpg
import msgspec

from asyncworker.errors import SourceError, nearest
from asyncworker.secret import mask_text, mask_url

OURS = ("dataset", "table", "key")
"""Words in a URL's query that are for us; the others are the server's."""
CONNECT_S = 10.0
STATEMENT_S = 300.0
CLOSE_S = 5.0

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_FIND = """
    SELECT n.nspname::text AS schema, c.relname::text AS name, a.attname::text AS column, t.typname::text AS type
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname::text = $1 AND n.nspname::text = ANY ($2::text[])
    ORDER BY array_position($2::text[], n.nspname::text), a.attnum
"""
_NAMES = """
    SELECT c.relname::text FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname::text = ANY ($1::text[]) LIMIT 10000
"""

_READ, _WRITE = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "BEGIN"
_WITHOUT_VERSION = itemgetter(slice(1, None))

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Address(msgspec.Struct, frozen=True):
    """A PostgreSQL URL, taken apart: what the driver gets, what people see, and our words in its query."""

    dsn: str
    label: str
    options: dict[str, str]


class Table(msgspec.Struct, frozen=True):
    """A table, view or foreign table that is there; types by name, in the order of the columns."""

    schema: str
    name: str
    types: dict[str, str]

    def __str__(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    def column(self, name: str) -> str:
        """Return a column's name for a query.

        Raises:
            SourceError: there is none.
        """
        if name not in self.types:
            near = nearest(name, self.types)
            hint = f"; did you mean {near!r}?" if near else ""
            raise SourceError(f"{self.schema}.{self.name} has no column {name!r}{hint}")
        return quoted(name)


def address(url: str) -> Address:
    """Take a URL apart.

    Raises:
        SourceError: one of our words stands in it twice.
    """
    head, _, query = url.partition("?")
    words = parse_qsl(query, keep_blank_values=True)
    ours = [(name, value) for name, value in words if name in OURS]
    rest = [(name, value) for name, value in words if name not in OURS]
    label = mask_url(url).partition("?")[0] + (f"?{urlencode(ours)}" if ours else "")
    if len(ours) > len(dict(ours)):
        raise SourceError(f"{label} says twice what is meant: name one table or dataset")
    return Address(head + (f"?{urlencode(rest)}" if rest else ""), label, dict(ours))


def identifier(name: str, what: str) -> str:
    """Return *name* if it has the form of one: letters, digits and ``_``, at most 63, no digit first.

    Raises:
        SourceError: it has not.
    """
    if not _NAME.fullmatch(name):
        raise SourceError(f"{name!r} is no name of a {what}: letters, digits and _ make one, at most 63")
    return name


def qualified(name: str) -> tuple[str, str]:
    """Split ``schema.table`` or ``table`` into two identifiers, the first empty where it is not said."""
    schema, dot, table = name.rpartition(".")
    return identifier(schema, "schema") if dot else "", identifier(table, "table")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class Database:
    """Up to so many *connections*, opened when first used and again when they broke; more transactions wait for one."""

    def __init__(self, address: Address, connections: int = 1) -> None:
        self.label = address.label
        self.dsn = address.dsn
        self._room = asyncio.Semaphore(connections)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._schemas: list[str] = []

    @asynccontextmanager
    async def transaction(self, *, write: bool = False) -> AsyncIterator[Connection]:
        """Hold a transaction: one snapshot and read-only, unless it is to *write*.

        Raises:
            SourceError: for whatever the server or the way to it raises inside.
        """
        async with self._held() as connection:
            await connection.execute(
                f"{_WRITE if write else _READ}; SET LOCAL search_path = pg_catalog; "
                f"SET LOCAL statement_timeout = {STATEMENT_S * 1000:.0f}"
            )
            yield connection
            await connection.execute("COMMIT")

    async def fetch(self, query: str, *values: Any) -> list[asyncpg.Record]:
        """Ask for rows by one statement outside a transaction, which would take as long again; in it each name is qualified.

        Raises:
            SourceError: as `transaction`.
        """
        async with self._held() as connection:
            return await connection.fetch(query, *values)

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[Connection]:
        """Hold a connection; after an error nobody else gets it."""
        async with self._room:
            with self.told():
                connection = await self._connected()
                try:
                    yield connection
                except BaseException:
                    await self._forget(connection)
                    raise
                self._idle.append(connection)

    async def _forget(self, connection: Connection) -> None:
        """End what failed, and its connection: in whatever state that is, nobody else gets it."""
        self._open.discard(connection)
        try:
            await connection.execute("ROLLBACK")  # after a query that was cancelled, which ends first
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            return
        finally:
            connection.terminate()

    async def find(self, connection: Connection, name: str) -> Table | None:
        """Look a table up in the catalogue, within a transaction; without a schema, along the user's search path."""
        schema, table = qualified(name)
        rows = await connection.fetch(_FIND, table, [schema] if schema else self._schemas)
        if not rows:
            return None
        first = rows[0]["schema"]
        return Table(first, table, {row["column"]: row["type"] for row in rows if row["schema"] == first})

    async def table(self, connection: Connection, name: str) -> Table:
        """Look a table up that should be there.

        Raises:
            SourceError: it is not.
        """
        if (found := await self.find(connection, name)) is not None:
            return found
        schema, table = qualified(name)
        names = [row[0] for row in await connection.fetch(_NAMES, [schema] if schema else self._schemas)]
        near = nearest(table, names)
        hint = f"; did you mean {near!r}?" if near else ""
        raise SourceError(f"{self.label}: there is no table {name!r}{hint}")

    async def ensure(self, name: str, columns: Sequence[str]) -> Table:
        """Look a table up, and make it of these column definitions where it is not there."""
        async with self.transaction(write=True) as connection:
            if (found := await self.find(connection, name)) is not None:
                return found
            schema, table = qualified(name)
            if not (schema or self._schemas):
                raise SourceError(f"{self.label}: there is no schema to make the table {name!r} in")
            await lock(connection, f"{schema}.{table}")
            where = f"{quoted(schema or self._schemas[0])}.{quoted(table)}"
            await connection.execute(f"CREATE TABLE IF NOT EXISTS {where} ({', '.join(columns)})")
            return await self.table(connection, name)

    async def close(self) -> None:
        self._idle.clear()
        while self._open:
            connection = self._open.pop()
            try:
                await connection.close(timeout=CLOSE_S)
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()

    async def _connected(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._open.discard(connection)
        try:
            # No named statements: behind a pooler they belong to somebody else's connection.
            connection = await asyncpg.connect(
                self.dsn, timeout=CONNECT_S, command_timeout=STATEMENT_S + CONNECT_S, statement_cache_size=0
            )
        except ValueError as exc:  # the driver could not read the URL, and may quote a password out of it
            hint = "special characters in its password are to be percent-encoded"
            raise SourceError(f"{self.label} cannot be understood ({type(exc).__name__}): {hint}") from None
        try:
            # JSON passes as it is: no text in between, and whoever decodes can say what is wrong with an item.
            for kind, encoder, decoder in (("json", bytes, bytes), ("jsonb", b"\x01".__add__, _WITHOUT_VERSION)):
                await connection.set_type_codec(
                    kind, schema="pg_catalog", encoder=encoder, decoder=decoder, format="binary"
                )
            self._schemas = await connection.fetchval("SELECT pg_catalog.current_schemas(false)::text[]")
        except BaseException:
            connection.terminate()
            raise
        self._open.add(connection)
        return connection

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn what the server or the way to it raises into `SourceError`."""
        label = self.label
        try:
            yield
        except asyncpg.InvalidAuthorizationSpecificationError as exc:
            raise SourceError(f"{label} refuses this user or password: {_first(exc)}") from exc
        except asyncpg.InsufficientPrivilegeError as exc:
            raise SourceError(f"{label}: {_first(exc)}; grant this user the right") from exc
        except asyncpg.QueryCanceledError as exc:
            raise SourceError(
                f"{label}: {_first(exc)} (after {STATEMENT_S:g} s at most); an index on the key helps"
            ) from exc
        except (asyncpg.PostgresError, asyncpg.InternalClientError) as exc:
            raise SourceError(f"{label}: {_first(exc)}") from exc
        except (OSError, asyncpg.InterfaceError) as exc:
            raise SourceError(
                f"{label} cannot be reached: {_first(exc)}; is it running, is the address right?"
            ) from exc


async def lock(connection: Connection, name: str) -> None:
    """Wait until nobody else in this database holds *name*; it is held until the transaction ends."""
    await connection.execute("SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, 0))", name)


def _first(exc: Any) -> str:
    """Return the first line of an error's text, secrets masked."""
    return mask_text((str(exc) or type(exc).__name__).partition("\n")[0])

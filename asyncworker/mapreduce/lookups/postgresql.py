"""A table of PostgreSQL as a look-up: ``postgresql://host/shop?table=public.customers``, by the column named as key.

Many keys are asked for in one query, by an index where the key has one. Passwords are those of the worker's
environment (``PGPASSWORD``, ``~/.pgpass``): a job carries no secrets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from asyncworker.errors import BadParameters, SourceError
from asyncworker.mapreduce.database import Database, address, identifier, qualified
from asyncworker.mapreduce.value import number
from asyncworker.secret import MASK, mask_url

_BITS = {"int2": 15, "int4": 31, "int8": 63}
_TEXTS = {"text", "varchar"}
_QUERY = """
    SELECT {key}::text, row_to_json(item) FROM {table} AS item WHERE {compared} = ANY ($1::text[]{cast})
"""


def open(url: str, key: str | None, timeout_s: float) -> PostgresqlLookup:  # noqa: ARG001 - statements have their own
    """Open a URL with ``?table=…``.

    Raises:
        BadParameters: no table or key is named, or the URL holds a password. SourceError: that is no name.
    """
    place = address(url)
    if MASK in mask_url(url):
        raise BadParameters(
            f"{place.label} must not hold a password: put it into PGPASSWORD or ~/.pgpass of the workers"
        )
    if set(place.options) != {"table"} or key is None:
        raise BadParameters(f"{place.label} must end in ?table=NAME, and the column that is looked up be named as key")
    qualified(place.options["table"])
    return PostgresqlLookup(Database(place), place.options["table"], identifier(key, "column"))


class PostgresqlLookup:
    batch = 1000

    def __init__(self, database: Database, table: str, key: str) -> None:
        self.label = database.label
        self._database, self._table, self._key = database, table, key

    async def fetch(self, keys: Sequence[str]) -> Mapping[str, Any]:
        keys = [each for each in keys if "\0" not in each]  # which no text of PostgreSQL holds
        async with self._database.transaction() as connection:
            table = await self._database.table(connection, self._table)
            key, kind = table.column(self._key), table.types[self._key]
            compared, cast = (key, "") if kind in _TEXTS else (f"{key}::text", "")
            if bits := _BITS.get(kind):
                compared, cast = key, f"::{kind}[]"
                whole = ((each, number(each)) for each in keys)
                keys = [each for each, of in whole if type(of) is int and -(2**bits) <= of < 2**bits]
            found = await connection.fetch(
                _QUERY.format(key=key, table=table, compared=compared, cast=cast), list(keys)
            )
        rows = {row[0]: msgspec.json.decode(row[1]) for row in found}
        if len(rows) < len(found):
            raise SourceError(f"{self.label}: the key {self._key!r} has values twice: take a column that is unique")
        return {each: rows[each] for each in keys if each in rows}

    async def close(self) -> None:
        await self._database.close()

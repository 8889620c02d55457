"""A table as a look-up: keys of each type, names that are no names, and no passwords."""

from __future__ import annotations

import pytest

from asyncworker.errors import BadParameters, SourceError
from asyncworker.mapreduce.lookups.postgresql import open as open_lookup
from tests.support.datasets import connected, unique


@pytest.mark.parametrize(
    ("kind", "value", "key"),
    [
        ("int", "7", "7"),
        ("smallint", "-7", "-7"),
        ("bigint", "9223372036854775807", "9223372036854775807"),
        ("text", "'x'", "x"),
        ("varchar(9)", "'x'", "x"),
        ("uuid", "'6b0b3a0e-5b0e-4d5e-8d6a-0a5b6f1d2c3d'", "6b0b3a0e-5b0e-4d5e-8d6a-0a5b6f1d2c3d"),
        ("date", "'2013-01-02'", "2013-01-02"),
        ("bool", "true", "true"),
    ],
)
async def test_keys_of_each_type_are_found(postgres_dsn: str, kind: str, value: str, key: str) -> None:
    table = unique("kinds")
    async with connected(postgres_dsn) as connection:
        await connection.execute(
            f"CREATE TABLE {table} (k {kind}, v int); INSERT INTO {table} VALUES ({value}, 1), (NULL, 2)"
        )
    lookup = open_lookup(f"{postgres_dsn}?table=public.{table}", "k", 5.0)
    try:
        found = await lookup.fetch([key, "no such key", "99999999999999999999", "1.5", "'; DROP TABLE x --"])
        assert {each: row["v"] for each, row in found.items()} == {key: 1}
    finally:
        await lookup.close()


async def test_a_key_with_two_rows_is_an_error(postgres_dsn: str) -> None:
    table = unique("twice")
    async with connected(postgres_dsn) as connection:
        await connection.execute(f"CREATE TABLE {table} (k int); INSERT INTO {table} VALUES (1), (1)")
    lookup = open_lookup(f"{postgres_dsn}?table={table}", "k", 5.0)
    with pytest.raises(SourceError, match="the key 'k' has values twice"):
        await lookup.fetch(["1"])
    await lookup.close()


async def test_a_table_or_column_that_is_not_there_is_told(postgres_dsn: str) -> None:
    lookup = open_lookup(f"{postgres_dsn}?table={unique('none')}", "k", 5.0)
    with pytest.raises(SourceError, match="there is no table"):
        await lookup.fetch(["1"])
    await lookup.close()


@pytest.mark.parametrize(
    ("url", "key", "error", "because"),
    [
        ("postgresql://h/db?table=t", None, BadParameters, "be named as key"),
        ("postgresql://h/db", "k", BadParameters, "must end in"),
        ("postgresql://h/db?dataset=d", "k", BadParameters, "must end in"),
        ("postgresql://h/db?table=t;x", "k", SourceError, "is no name of a table"),
        ("postgresql://h/db?table=t", 'k" --', SourceError, "is no name of a column"),
        ("postgresql://me:hush@h/db?table=t", "k", BadParameters, "must not hold a password"),
        ("postgresql://h/db?table=t&password=hush", "k", BadParameters, "must not hold a password"),
    ],
)
def test_s22_odd_names_and_passwords_are_refused(
    url: str, key: str | None, error: type[Exception], because: str
) -> None:
    with pytest.raises(error, match=because) as caught:
        open_lookup(url, key, 5.0)
    assert "hush" not in str(caught.value)

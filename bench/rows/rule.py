"""What every contender does with the rows: the same rules, compiled once, over the same ranges of the same table.

Needs nothing but asyncpg and msgspec, so that each peer's own environment can run it.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import asyncpg
import msgspec

PATTERN = r"[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}"
REQUIRED = ("id", "name", "email", "age", "score", "category")
RULES = {
    "validation_rules": {
        "required_fields": list(REQUIRED),
        "type_validations": {"id": "int", "name": "str", "email": "str", "age": "int", "score": "number"},
        "range_validations": {"age": {"min": 0, "max": 120}, "score": {"min": 0, "max": 100}},
        "pattern_validations": {"email": PATTERN},
    }
}
SELECT = (
    "SELECT data FROM dataset_items WHERE dataset_id = 'rows' AND item_index >= $1 AND item_index < $2 "
    "ORDER BY item_index"
)
QUERY = f"""
SELECT count(*) FROM dataset_items WHERE dataset_id = 'rows'
    AND data ?& ARRAY['id','name','email','age','score','category']
    AND jsonb_typeof(data->'id') = 'number' AND jsonb_typeof(data->'name') = 'string'
    AND jsonb_typeof(data->'email') = 'string' AND jsonb_typeof(data->'age') = 'number'
    AND jsonb_typeof(data->'score') = 'number' AND (data->>'age')::numeric BETWEEN 0 AND 120
    AND (data->>'age')::numeric % 1 = 0 AND (data->>'score')::numeric BETWEEN 0 AND 100
    AND data->>'email' ~ '^{PATTERN}$'
"""
_fields = frozenset(REQUIRED)
_email = re.compile(PATTERN).fullmatch
_decode = msgspec.json.Decoder().decode


def row(number: int) -> dict[str, Any]:
    """Return a row; about one in twenty breaks a rule."""
    email = "no address" if number % 41 == 0 else f"user{number}@example.org"
    age = 150 if number % 43 == 0 else number % 90
    return {
        "id": number,
        "name": f"user {number}",
        "email": email,
        "age": age,
        "score": number % 1000 / 10,
        "category": "abc"[number % 3],
    }


def valid(data: Any) -> bool:
    """Apply the rules."""
    if not _fields <= data.keys():
        return False
    age, score = data["age"], data["score"]
    return (
        type(data["id"]) is int
        and type(data["name"]) is str
        and type(data["email"]) is str
        and type(age) is int
        and 0 <= age <= 120
        and type(score) in (int, float)
        and 0 <= score <= 100
        and _email(data["email"]) is not None
    )


async def connect(dsn: str) -> Any:
    """Connect so that JSON passes as bytes."""
    connection = await asyncpg.connect(dsn)
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=b"\x01".__add__, decoder=lambda data: data[1:], format="binary"
    )
    return connection


async def count(connection: Any, first: int, last: int) -> int:
    """Return how many rows of a range are valid."""
    return sum(valid(_decode(data)) for (data,) in await connection.fetch(SELECT, first, last))


class Here:
    """A connection and a loop that a process keeps, for engines whose tasks are plain functions."""

    def __init__(self) -> None:
        self.loop: Any = None

    def count(self, dsn: str, first: int, last: int) -> int:
        if self.loop is None:
            self.loop = asyncio.new_event_loop()
            self.connection = self.loop.run_until_complete(connect(dsn))
        return int(self.loop.run_until_complete(count(self.connection, first, last)))


HERE = Here()


def part(dsn: str, first: int, last: int) -> int:
    """Return how many rows of a range are valid; plain, for engines that know no coroutines."""
    return HERE.count(dsn, first, last)

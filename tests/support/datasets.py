"""The same items in every form that a source reads: who asks gets what to open, and the keys and values to expect."""

from __future__ import annotations

import csv
import gzip
import io
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import asyncpg
import msgspec
import pyarrow as pa
from pyarrow import parquet

from asyncworker.mapreduce.dataset import open_sink, open_source
from asyncworker.mapreduce.sources.source import Partition, Source

Pairs = list[tuple[Any, Any]]


class Sample(NamedTuple):
    thing: Any
    pairs: Pairs


Make = Callable[[Path, int, str], Awaitable[Sample]]
"""Of a folder, a number of items, and a database's DSN."""


def item(number: int) -> dict[str, str]:
    """Return an item of text, as each source can have it: with commas, quotes, other scripts, and line feeds."""
    return {"name": f"n{number}", "text": ("plain", 'quo"te, and\nfeed', "ünï©ode", "")[number % 4]}


def values(count: int) -> list[dict[str, str]]:
    return [item(number) for number in range(count)]


def jsonl(count: int) -> tuple[bytes, Pairs]:
    rows = values(count)
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows), list(enumerate(rows, 1))


def csv_text(count: int) -> tuple[bytes, Pairs]:
    text, pairs, line = io.StringIO(), [], 2
    out = csv.DictWriter(text, ["name", "text"], lineterminator="\n")
    out.writeheader()
    for row in values(count):
        out.writerow(row)
        pairs.append((line, row))
        line += 1 + row["text"].count("\n")
    return text.getvalue().encode(), pairs


async def all_partitions(source: Source, size: int) -> list[Partition]:
    return [partition async for partition in source.partitions(size)]


async def all_pairs(source: Source, partitions: list[Partition]) -> Pairs:
    return [pair for partition in partitions async for pairs in source.read(partition) for pair in pairs]


async def pairs_of(thing: Any, size: int = 1000, **options: Any) -> Pairs:
    """Cut *thing* and read it again, as another process would: through the source's URL and packed partitions."""
    source = open_source(thing, **options)
    try:
        partitions = msgspec.msgpack.decode(
            msgspec.msgpack.encode(await all_partitions(source, size)), type=list[Partition]
        )
        again = open_source(source.url)
        try:
            return await all_pairs(again, partitions)
        finally:
            await again.close()
    finally:
        await source.close()


async def memory_list(folder: Path, count: int, dsn: str) -> Sample:
    return Sample(values(count), list(enumerate(values(count))))


async def memory_generator(folder: Path, count: int, dsn: str) -> Sample:
    return Sample((item(number) for number in range(count)), list(enumerate(values(count))))


async def memory_async(folder: Path, count: int, dsn: str) -> Sample:
    async def items() -> AsyncIterator[dict[str, str]]:
        for value in values(count):
            yield value

    return Sample(items(), list(enumerate(values(count))))


def file(name: str, text: Callable[[int], tuple[bytes, Pairs]]) -> Make:
    async def make(folder: Path, count: int, dsn: str) -> Sample:
        content, pairs = text(count)
        path = folder / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return Sample(str(path), pairs)

    return make


async def parquet_file(folder: Path, count: int, dsn: str) -> Sample:
    rows = values(count)
    table = pa.Table.from_pylist(rows, pa.schema([("name", pa.string()), ("text", pa.string())]))
    parquet.write_table(table, folder / "data.parquet", row_group_size=1)
    return Sample(str(folder / "data.parquet"), list(enumerate(rows)))


async def several(folder: Path, count: int, dsn: str) -> Sample:
    content, pairs = jsonl(count)
    for name, text in (("a.jsonl", b""), ("b.jsonl", content), ("c.txt", b"no source reads this")):
        (folder / name).write_bytes(text)
    return Sample(str(folder / "*"), [(f"{folder / 'b.jsonl'}:{line}", row) for line, row in pairs])


async def dataset(folder: Path, count: int, dsn: str) -> Sample:
    name = unique("dataset")
    await fill(dsn, name, values(count))
    return Sample(f"{dsn}?dataset={name}", list(enumerate(values(count))))


async def table(folder: Path, count: int, dsn: str) -> Sample:
    name = unique("table")
    rows = [{"id": 3 * number - 50, **item(number)} for number in range(count)]
    async with connected(dsn) as connection:
        await connection.execute(f"CREATE TABLE {name} (id bigint PRIMARY KEY, name text, text text)")
        await connection.copy_records_to_table(name, records=[tuple(row.values()) for row in rows])
    return Sample(f"{dsn}?table=public.{name}&key=id", [(row["id"], row) for row in rows])


async def fill(dsn: str, name: str, rows: Sequence[Any]) -> None:
    """Make these rows the dataset *name*, by COPY."""
    sink = open_sink(f"{dsn}?{urlencode({'dataset': name})}")
    try:
        await sink.write(rows)
        await sink.commit()
    except BaseException:
        await sink.abort()
        raise


def unique(word: str) -> str:
    return f"{word}_{uuid.uuid4().hex[:12]}"


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


KINDS: dict[str, Make] = {
    "memory-list": memory_list,
    "memory-generator": memory_generator,
    "memory-async": memory_async,
    "jsonl-plain": file("data.jsonl", jsonl),
    "jsonl-gz": file("data.jsonl.gz", jsonl),
    "csv-plain": file("data.csv", csv_text),
    "csv-gz": file("data.csv.gz", csv_text),
    "parquet": parquet_file,
    "several": several,
    "postgresql-dataset": dataset,
    "postgresql-table": table,
}

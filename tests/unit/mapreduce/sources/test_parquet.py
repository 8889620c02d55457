"""Parquet: partitions of whole row groups, plain values, and files that are there whole or not at all."""

from __future__ import annotations

import datetime as dt
import decimal
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from asyncworker.errors import SourceError, UnknownName
from asyncworker.mapreduce.dataset import open_sink, open_source
from asyncworker.mapreduce.sources import parquet as ours
from tests.support.datasets import all_pairs, all_partitions, pairs_of


def file_of(folder: Path, groups: list[int]) -> str:
    """Write a file whose row groups have so many rows."""
    path, row = folder / "data.parquet", 0
    schema = pa.schema([("n", pa.int64()), ("x", pa.float64())])
    with parquet.ParquetWriter(path, schema) as out:
        for count in groups:
            rows = [{"n": number, "x": number / 2} for number in range(row, row + count)]
            out.write_table(pa.Table.from_pylist(rows, schema))
            row += count
    return str(path)


@settings(max_examples=25, deadline=None)
@given(groups=st.lists(st.integers(1, 30), max_size=8), size=st.integers(1, 50))
async def test_each_row_is_in_one_partition_of_whole_row_groups(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], size: int
) -> None:
    source = open_source(file_of(tmp_path_factory.mktemp("parquet"), groups))
    partitions = await all_partitions(source, size)
    assert [partition.index for partition in partitions] == list(range(len(partitions)))
    for partition in partitions:
        first, end, _ = partition.span
        assert partition.items == sum(groups[first:end])
        assert partition.items <= size or end == first + 1
    pairs = await all_pairs(source, partitions)
    assert pairs == [(number, {"n": number, "x": number / 2}) for number in range(sum(groups))]


async def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    path = file_of(tmp_path, [2])
    assert await pairs_of(f"{path}?columns=x") == [(0, {"x": 0.0}), (1, {"x": 0.5})]
    source = open_source(f"{path}?columns=x,n")
    await all_partitions(source, 10)
    assert source.columns == ("x", "n")
    with pytest.raises(UnknownName, match="did you mean"):
        await pairs_of(f"{path}?columns=nn")
    with pytest.raises(UnknownName):
        open_source(f"{path}?missing=NA")


async def test_values_are_plain(tmp_path: Path) -> None:
    row = {
        "day": dt.date(2013, 1, 2),
        "at": dt.datetime(2013, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        "price": decimal.Decimal("12.50"),
        "bytes": b"\0\xff",
        "list": [1, None],
        "deep": {"a": dt.date(2013, 1, 3)},
        "nothing": None,
        "yes": True,
    }
    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "data.parquet")
    ((_, value),) = await pairs_of(str(tmp_path / "data.parquet"))
    assert value == {
        "day": "2013-01-02",
        "at": "2013-01-02T03:04:05Z",
        "price": "12.50",
        "bytes": "AP8=",
        "list": [1, None],
        "deep": {"a": "2013-01-03"},
        "nothing": None,
        "yes": True,
    }


async def test_a_file_that_changed_after_it_was_cut_is_told(tmp_path: Path) -> None:
    source = open_source(file_of(tmp_path, [5, 5]))
    partitions = await all_partitions(source, 5)
    file_of(tmp_path, [5, 4])
    assert len(await all_pairs(source, partitions[:1])) == 5
    with pytest.raises(SourceError, match="has changed since it was cut: row 5"):
        await all_pairs(source, partitions[1:])
    file_of(tmp_path, [5])
    with pytest.raises(SourceError, match="has changed since it was cut"):
        await all_pairs(source, partitions[1:])


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all, but long enough to look for its end"])
async def test_what_is_no_parquet_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.parquet").write_bytes(content)
    with pytest.raises(SourceError, match="cannot be read"):
        await pairs_of(str(tmp_path / "data.parquet"))


async def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file"):
        await pairs_of(str(tmp_path / "data.parquet"))


@pytest.mark.parametrize("url", ["data.parquet.gz", "-?format=parquet"])
def test_packed_and_piped_ones_are_refused(url: str) -> None:
    with pytest.raises(SourceError, match="must be a plain file"):
        open_source(url)


async def written(path: Path, *slices: list[Any]) -> pa.Table:
    sink = open_sink(str(path))
    try:
        for rows in slices:
            await sink.write(rows)
        await sink.commit()
    except BaseException:
        await sink.abort()
        raise
    return parquet.read_table(path)


async def test_written_columns_have_the_types_of_their_values(tmp_path: Path) -> None:
    rows = [{"n": 1, "x": 1.5, "t": "a", "null": None, "list": [1]}, {"n": None, "x": 2, "t": "b", "list": []}]
    table = await written(tmp_path / "out.parquet", rows)
    assert [str(of) for of in table.schema.types] == ["int64", "double", "string", "string", "list<element: int64>"]
    assert table.to_pylist()[1] == {"n": None, "x": 2.0, "t": "b", "null": None, "list": []}


async def test_many_rows_make_many_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "SAMPLE", 10)
    rows = [{"n": number} for number in range(35)]
    table = await written(tmp_path / "out.parquet", rows[:7], rows[7:33], rows[33:])
    assert table.column("n").to_pylist() == list(range(35))
    assert parquet.ParquetFile(tmp_path / "out.parquet").num_row_groups == 4


@pytest.mark.parametrize(
    ("rows", "because"),
    [
        ([1], "must be a dict, this is a int"),
        ([{"n": 1}, {"n": "x"}], "does not fit the types"),
        ([{"n": 2**70}], "does not fit the types"),
        ([{"n": 1}] * 3 + [{"n": 1, "more": 2}], "columns that the first ones have not"),
        ([{"n": 1}] * 3 + [{"n": "late"}], "does not fit the types"),
    ],
)
async def test_what_does_not_fit_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Any], because: str
) -> None:
    monkeypatch.setattr(ours, "SAMPLE", 3)
    with pytest.raises(SourceError, match=because):
        await written(tmp_path / "out.parquet", rows)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - within a coroutine


def test_who_has_no_pyarrow_is_told_what_to_install() -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from asyncworker.mapreduce.dataset import open_source\n"
        "from asyncworker.errors import SettingsError\n"
        "try: open_source('data.parquet')\n"
        "except SettingsError as exc: print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'asyncworker[parquet]'" in done.stdout

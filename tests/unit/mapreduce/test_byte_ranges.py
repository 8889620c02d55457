"""Files cut by bytes, without a look at all of them: each line is in one range, and none is lost or doubled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.errors import SourceError, UnknownName
from asyncworker.mapreduce import textfile
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.sources.source import BadItem
from tests.support.datasets import all_pairs, all_partitions, pairs_of

lines = st.sampled_from(["1", "22", "[3,3]", '"ä€😀"', "", "   ", "no json", '{"a": "' + "x" * 50 + '"}', '"a\\nb"'])


@settings(max_examples=40, deadline=None)
@given(
    given_=st.lists(lines, max_size=40),
    size=st.integers(1, 12),
    end=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
    bom=st.booleans(),
)
async def test_the_items_are_those_of_lines_and_the_keys_where_they_begin(
    tmp_path_factory: pytest.TempPathFactory, given_: list[str], size: int, end: str, last: bool, bom: bool
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "data.jsonl"
    text = end.join(given_) + (end if last else "")
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode())
    expected = [value for _, value in await pairs_of(str(path), size)]
    pairs = await pairs_of(f"{path}?cut=bytes", size)
    assert [value for _, value in pairs] == expected
    content = path.read_bytes()
    starts = [int(str(key).removeprefix("byte ")) for key, _ in pairs]
    assert starts == sorted(set(starts))
    for start, (_, value) in zip(starts, pairs, strict=True):
        assert start in (0, 3) or content[start - 1 : start] == b"\n"
        line = content[start:].partition(b"\n")[0].decode().strip()
        assert type(value) is BadItem or line in {text.strip() for text in given_}


@pytest.mark.parametrize("size", [70, 500, 5000])
async def test_csv_has_its_header_in_each_range(tmp_path: Path, size: int) -> None:
    path = tmp_path / "data.csv"
    rows = [{"n": str(number), "text": "NA" if number % 3 else f"t, {number}"} for number in range(2000)]
    path.write_text("n,text\n" + "".join(f'{row["n"]},"{row["text"]}"\n' for row in rows))
    pairs = await pairs_of(f"{path}?cut=bytes&missing=NA", size)
    assert [value for _, value in pairs] == [{**row, "text": row["text"].replace("NA", "")} for row in rows]
    source = open_source(f"{path}?cut=bytes")
    partitions = await all_partitions(source, size)
    assert {partition.items for partition in partitions} == {0}
    assert len(partitions) == pytest.approx(2000 / size, rel=0.2, abs=2)
    assert source.columns == ("n", "text")


async def test_a_field_with_a_line_feed_is_an_error_wherever_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("n,text\n" + "1,x\n" * 20 + '2,"two\nlines"\n' + "3,x\n" * 20)
    for size in (1, 2, 3, 5, 8, 50):
        with pytest.raises(SourceError, match="holds a line feed: leave out cut=bytes"):
            await pairs_of(f"{path}?cut=bytes", size)
    assert len(await pairs_of(str(path))) == 41


async def test_s01_a_file_that_changed_since_it_was_cut_is_told(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("1\n" * 100)
    source = open_source(f"{path}?cut=bytes")
    partitions = await all_partitions(source, 10)
    os.utime(path, ns=(0, 0))
    with pytest.raises(SourceError, match="has changed since it was cut"):
        await all_pairs(source, partitions)


async def test_only_the_beginning_is_read_to_cut_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"n": 1}\n' * 50_000)
    blocks = []
    fill = textfile.Lines._fill

    def counted(self: textfile.Lines) -> None:
        blocks.append(1)
        fill(self)

    monkeypatch.setattr(textfile, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(textfile.Lines, "_fill", counted)
    partitions = await all_partitions(open_source(f"{path}?cut=bytes"), 1000)
    assert len(partitions) == 50
    assert len(blocks) == 1
    await all_partitions(open_source(str(path)), 1000)
    assert len(blocks) > 20


async def test_a_line_longer_than_a_range_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    long = '"' + "x" * 5000 + '"'
    path.write_text("1\n" * 10 + long + "\n" + "2\n" * 10)
    monkey = pytest.MonkeyPatch()
    monkey.setattr(textfile, "SAMPLE", 5)
    try:
        values = [value for _, value in await pairs_of(f"{path}?cut=bytes", 2)]
    finally:
        monkey.undo()
    assert values == [1] * 10 + ["x" * 5000] + [2] * 10


async def test_too_long_a_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("1\n" * 10 + '"' + "x" * 500 + '"\n')
    monkeypatch.setattr(textfile, "SAMPLE", 5)
    monkeypatch.setattr(textfile, "RECORD_BYTES", 100)
    monkeypatch.setattr(textfile, "BLOCK_BYTES", 16)
    with pytest.raises(SourceError, match="is longer than 100 bytes"):
        await pairs_of(f"{path}?cut=bytes", 2)


@pytest.mark.parametrize("header", ["", "n,text\n"])
async def test_an_empty_file_has_no_partitions(tmp_path: Path, header: str) -> None:
    path = tmp_path / ("data.csv" if header else "data.jsonl")
    path.write_text(header)
    assert await pairs_of(f"{path}?cut=bytes") == []


@pytest.mark.parametrize(
    ("thing", "error", "because"),
    [
        ("data.jsonl.gz?cut=bytes", SourceError, "cannot be read at any place"),
        ("-?format=csv&cut=bytes", SourceError, "cannot be read at any place"),
        ("data.csv?cut=byte", UnknownName, "did you mean 'bytes'"),
    ],
)
def test_what_cannot_be_cut_so_is_refused(thing: Any, error: type[Exception], because: str) -> None:
    with pytest.raises(error, match=because):
        open_source(thing)

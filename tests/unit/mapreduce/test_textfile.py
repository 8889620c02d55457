"""What jsonl and csv share: where lines end, what is refused and how it is said, and how much memory it takes."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.errors import SourceError, UnknownName
from asyncworker.mapreduce import textfile
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.textfile import Lines
from tests.support.datasets import all_pairs, all_partitions, pairs_of

NOBODY = 65534


async def refused(thing: Any, match: str) -> None:
    with pytest.raises(SourceError, match=match):
        await pairs_of(thing)


async def test_a_missing_file_is_told_when_it_is_cut_and_not_when_opened(tmp_path: Path):
    source = open_source(tmp_path / "none.jsonl")
    with pytest.raises(SourceError, match=r"no file /.*/none\.jsonl: check the path"):
        await all_partitions(source, 10)


async def test_an_empty_directory_is_told_whatever_its_name(tmp_path: Path):
    (tmp_path / "data.csv").mkdir()
    await refused(tmp_path / "data.csv", "there is no file that some source reads")


async def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "data.jsonl")
    await refused(tmp_path / "data.jsonl", "no plain file: pipe it in, as -")


async def test_an_unreadable_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "data.jsonl"
    path.write_text("1\n")
    path.chmod(0)
    if os.getuid() == 0:  # who may read whatever its permissions

        def denied(*_: Any, **__: Any) -> Any:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", denied)
    await refused(path, "may not be read by this user")


@pytest.mark.parametrize("name", ["data.jsonl.gz", "data.csv.gz"])
async def test_a_damaged_gz_is_told(tmp_path: Path, name: str):
    whole = gzip.compress(b"".join(b'{"a":%d}\n' % number for number in range(5000)))
    path = tmp_path / name
    for broken in (whole[: len(whole) // 2], b"no gzip at all", whole[:200] + b"\xff" * 50 + whole[250:]):
        path.write_bytes(broken)
        await refused(path, "damaged or cut off")


async def test_what_came_before_the_damage_is_cut(tmp_path: Path):
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(os.urandom(2**20).hex().encode().replace(b"0", b"\n"), 1)[:-100_000])
    came = 0
    with pytest.raises(SourceError, match="damaged"):  # noqa: PT012 - it is raised somewhere in the loop
        async for partition in open_source(path).partitions(5000):
            came += partition.items
    assert came > 1000


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz", "data.csv", "data.csv.gz"])
async def test_a_very_long_line_is_refused_by_number(tmp_path: Path, name: str):
    text = b"1\n2\n" + b"9" * (textfile.RECORD_BYTES + textfile.BLOCK_BYTES) + b"\n3\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(text, 1) if name.endswith(".gz") else text)
    await refused(path, r"line 3 is longer than 8,388,608 bytes")


async def test_utf16_is_told(tmp_path: Path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"a": 1}\n', encoding="utf-16")
    await refused(path, "is UTF-16: make it UTF-8 first")


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("feed", [b"\n", b"\r\n"])
@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
async def test_line_ends_byte_order_marks_and_blank_lines(
    tmp_path: Path, start: bytes, feed: bytes, end: bool, name: str
):
    text = start + feed.join([b"", b"1", b"  ", b"2", b"", b"3"]) + (feed if end else b"")
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    for size in (1, 2, 3, 4):
        assert await pairs_of(path, size) == [(2, 1), (4, 2), (6, 3)]


async def test_a_file_that_changed_after_it_was_cut_is_told(tmp_path: Path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f'"{number:04}"\n' for number in range(10)))
    source = open_source(path)
    partitions = await all_partitions(source, 5)
    with path.open("a") as file:
        file.write("10\n")
    assert len(await all_pairs(source, partitions)) == 10, "what is appended is not of this job, and does no harm"
    for changed in ("", "1\n2\n", '"a"\n' * 20, '"x"\n' + '"0000"\n' * 9 + '"y"\n'):
        path.write_text(changed)
        with pytest.raises(SourceError, match="has changed since it was cut"):
            await all_pairs(source, partitions)


def test_unknown_options_are_told():
    with pytest.raises(UnknownName, match=r"unknown \.csv option 'mising'; did you mean 'missing'"):
        open_source("data.csv?mising=NA")
    with pytest.raises(UnknownName, match=r"unknown \.jsonl option 'missing'"):
        open_source("data.jsonl?missing=NA")


async def test_a_question_mark_may_be_part_of_a_name(tmp_path: Path):
    (tmp_path / "what?.jsonl").write_text("1\n")
    assert await pairs_of(tmp_path / "what?.jsonl") == [(1, 1)]


async def test_a_partition_that_carries_its_data_stays_small(tmp_path: Path):
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress((b'"' + b"x" * 100_000 + b'"\n') * 200, 1))
    source = open_source(path)
    partitions = await all_partitions(source, 10_000)
    assert max(len(partition.data or b"") for partition in partitions) < 6 * 2**20
    assert sum(partition.items for partition in partitions) == 200


READING = """
import asyncio, sys, tracemalloc
from asyncworker.mapreduce.dataset import open_source

async def main():
    items, source = 0, open_source(sys.argv[1])
    tracemalloc.start()
    async for partition in source.partitions(10_000):
        async for pairs in source.read(partition):
            items += len(pairs)
    print(items, tracemalloc.get_traced_memory()[1])

asyncio.run(main())
"""


def test_s11_cutting_and_reading_take_memory_by_block_and_not_by_file(tmp_path: Path):
    """In a process of its own, in which nothing else takes any."""
    path = tmp_path / "data.jsonl"
    line = b'{"id": 1234567, "name": "a name of %s length", "score": 12.5}\n' % (b"some " * 30)
    path.write_bytes(line * 100_000)
    done = subprocess.run([sys.executable, "-c", READING, str(path)], capture_output=True, check=True, timeout=50)
    items, peak = map(int, done.stdout.split())
    assert items == 100_000
    assert peak < 6 * 2**20 < 18 * 2**20 < path.stat().st_size


STDIN = """
import asyncio, sys
from asyncworker.mapreduce.dataset import open_source

async def main():
    source = open_source(sys.argv[1])
    partitions = [part async for part in source.partitions(2)]
    again = open_source(source.url)
    print([pair for part in partitions async for pairs in again.read(part) for pair in pairs])

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("url", "text", "expected"),
    [
        ("-", "1\n\n[2]\n3", [(1, 1), (3, [2]), (4, 3)]),
        ("-?format=jsonl", '"a"', [(1, "a")]),
        ("-?format=csv&missing=NA", 'a,b\n1,NA\n"x\ny",2\n', [(2, {"a": "1", "b": ""}), (3, {"a": "x\ny", "b": "2"})]),
        ("-?format=csv", "", []),
    ],
)
def test_standard_input_is_read(url: str, text: str, expected: list[Any]):
    done = subprocess.run(
        [sys.executable, "-c", STDIN, url], input=text, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == str(expected)


async def test_standard_input_is_read_once_and_let_go(monkeypatch: pytest.MonkeyPatch):
    read, write = os.pipe()
    with os.fdopen(read) as stdin, os.fdopen(write, "wb", buffering=0) as pipe:
        monkeypatch.setattr(sys, "stdin", stdin)
        source = open_source("-")
        pipe.write(b"1\n")
        waiting = asyncio.create_task(anext(source.partitions(10)))
        await asyncio.sleep(0)
        await source.close()  # the pipe stays open: a thread that read on would never end
        with pytest.raises((StopAsyncIteration, SourceError)):
            await asyncio.wait_for(waiting, 5)
        with pytest.raises(SourceError, match="read only once"):
            await all_partitions(source, 10)


async def test_a_closed_standard_input_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", None)
    await refused("-", "standard input is closed")


texts = st.lists(st.sampled_from(['"', '""', ",", "\n", "a", "b", "\r\n", ' "', "é"]), max_size=30).map("".join)


@given(texts, st.integers(1, 4))
def test_records_are_the_csv_modules_records(text: str, most: int):
    """Where it reads a text without complaint, we find as many records, and each parses to the same row."""
    rows = [row for row in csv.reader(io.StringIO(text, newline="\n")) if row and "".join(row).strip()]
    lines = Lines(io.BytesIO(text.encode()), "text", quotes=True)
    records: list[bytes] = []
    try:
        while taken := lines.records(most)[1]:
            records += taken
    except SourceError:
        rows_or_open = text.count('"')
        assert rows_or_open
        return
    ours = list(csv.reader([record.decode() for record in records]))
    assert len(ours) == len(records)
    assert [row for row in ours if "".join(row).strip()] == rows


@given(st.binary(max_size=200), st.integers(1, 5), st.sampled_from([1, 2, 7, 64]))
def test_lines_are_the_streams_lines_whatever_the_block(content: bytes, most: int, block: int):
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(block)

    content = content.replace(b"\xff", b"\n").replace(b"\xfe", b"\n").replace(b"\xef", b"\n")
    lines = Lines(Slow(content), "text", quotes=False)
    taken: list[bytes] = []
    while more := lines.take(most):
        taken += more
        assert lines.number == len(taken) + 1
    expected = content.split(b"\n")
    assert taken == (expected if expected[-1] else expected[:-1])
    assert lines.offset in (len(content), len(content) + 1)


async def test_a_reader_that_is_cancelled_lets_its_file_go(tmp_path: Path):
    path = tmp_path / "data.csv"
    path.write_text("a,b\n" + "1,2\n" * 50_000)
    source = open_source(path)
    (partition,) = await all_partitions(source, 100_000)
    first = asyncio.Event()

    async def read() -> None:
        async for _ in source.read(partition):
            first.set()

    reading = asyncio.create_task(read())
    await first.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    async with asyncio.timeout(5):
        while str(path) in {file.path for file in psutil.Process().open_files()}:  # its last step is still under way
            await asyncio.sleep(0)

from __future__ import annotations

import asyncio
import gc
import os
import stat
import sys
from pathlib import Path

import pytest

from asyncworker.errors import SourceError
from asyncworker.mapreduce.dataset import open_sink
from tests.support.datasets import pairs_of


async def test_a_file_has_the_users_usual_permissions(tmp_path: Path):
    (tmp_path / "usual").touch()
    sink = open_sink(tmp_path / "out.jsonl")
    await sink.write([1])
    await sink.commit()
    assert len({stat.S_IMODE(file.stat().st_mode) for file in os.scandir(tmp_path)}) == 1


async def test_the_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path):
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real.jsonl")
    sink = open_sink(tmp_path / "link.jsonl")
    await sink.write([1, 2])
    await sink.commit()
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "real.jsonl").read_text() == "1\n2\n"


WRITER = """
import asyncio, os, sys
from asyncworker.mapreduce.dataset import open_sink

async def main():
    sink = open_sink(sys.argv[1], "job")
    await sink.write([{"n": number} for number in range(20_000)])
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "parquet"])
async def test_of_a_killed_writer_nothing_is_seen_and_the_next_run_tidies_up(tmp_path: Path, kind: str):
    out = tmp_path / f"out[1].{kind}"
    other = tmp_path / f".out[1].{kind}.another-job.1234"
    for name in (out, other):
        name.write_bytes(b"before")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, str(out))
    assert await process.wait() == -9
    assert out.read_bytes() == b"before"
    assert len(os.listdir(tmp_path)) == 3  # noqa: PTH208 - within a coroutine
    sink = open_sink(str(out), "job")
    await sink.write([{"n": 1}])
    await sink.commit()
    assert [value for _, value in await pairs_of(str(out))] == [{"n": "1" if kind == "csv" else 1}]
    assert sorted(os.listdir(tmp_path)) == sorted([out.name, other.name])  # noqa: PTH208 - within a coroutine


async def test_equal_rows_pack_to_equal_bytes(tmp_path: Path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        sink = open_sink(tmp_path / name)
        await sink.write([{"a": 1}] * 1000)
        await sink.commit()
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


@pytest.mark.parametrize(
    ("path", "match"),
    [("none/out.jsonl", "there is no folder"), ("file/out.csv", "cannot be written"), ("folder.csv", "is a directory")],
)
async def test_what_cannot_be_written_is_told(tmp_path: Path, path: str, match: str):
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    sink = open_sink(tmp_path / path)
    with pytest.raises(SourceError, match=match):
        await sink.write([{"a": 1}])
    await sink.abort()


def test_standard_output_is_no_sink():
    with pytest.raises(SourceError, match="name a file"):
        open_sink("-")


async def test_what_is_aborted_is_gone_and_collected_in_silence(tmp_path: Path):
    sink = open_sink(tmp_path / "out.jsonl.gz")
    await sink.write([{"a": 1}])
    await sink.abort()
    assert [file.name for file in os.scandir(tmp_path)] == []
    del sink
    gc.collect()  # a complaint would be an error

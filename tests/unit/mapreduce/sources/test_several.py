"""Several datasets in one job: which they are, in which order, and how their items are told apart."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from asyncworker.errors import SourceError, UnknownName
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.sources.several import several
from tests.support.datasets import all_partitions, fill, pairs_of, unique


def filled(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def numbered(folder: Path) -> Path:
    return filled(
        folder, b_csv="n\n3\n4\n", a_csv="n\n1\n2\n", deep__c_csv="n\n5\n", notes_txt="x", _hidden_csv="n\n9\n"
    )


async def numbers(thing: Any, size: int = 1) -> list[tuple[str, int]]:
    return [(Path(str(key)).name, int(value["n"])) for key, value in await pairs_of(thing, size)]


ALL = [("a.csv:2", 1), ("a.csv:3", 2), ("b.csv:2", 3), ("b.csv:3", 4)]


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize("pattern", ["*.csv", "[ab].csv", "*", "."])
async def test_files_are_read_in_the_order_of_their_names(tmp_path: Path, pattern: str, size: int) -> None:
    assert await numbers(str(numbered(tmp_path) / pattern), size) == ALL


async def test_two_stars_reach_into_folders(tmp_path: Path) -> None:
    assert await numbers(str(numbered(tmp_path) / "**" / "*.csv"), 9) == [*ALL, ("c.csv:2", 5)]


async def test_a_path_object_and_a_relative_pattern_do_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(numbered(tmp_path).parent)
    assert await numbers(tmp_path) == ALL
    source = open_source(f"{tmp_path.name}/*.csv")
    assert (source.label, source.url) == (f"{tmp_path.name}/*.csv", f"{tmp_path}/*.csv")
    pairs = await pairs_of(f"{tmp_path.name}/a*.csv")
    assert [key for key, _ in pairs] == [f"{tmp_path.name}/a.csv:2", f"{tmp_path.name}/a.csv:3"]


async def test_options_go_to_each_file(tmp_path: Path) -> None:
    filled(tmp_path, a_csv="n,x\n1,NA\n", b_csv="n,x\n2,y\n")
    pairs = await pairs_of(f"{tmp_path}/*.csv?missing=NA")
    assert [value for _, value in pairs] == [{"n": "1", "x": ""}, {"n": "2", "x": "y"}]


async def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "data[1].csv").write_text("n\n7\n")
    assert await pairs_of(str(tmp_path / "data[1].csv")) == [(2, {"n": "7"})]


async def test_sources_of_each_kind_go_into_one_job(tmp_path: Path, postgres_dsn: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n')
    with gzip.open(tmp_path / "b.csv.gz", "wt") as file:
        file.write("n\n2\n")
    name = unique("dataset")
    await fill(postgres_dsn, name, [{"n": 3}, {"n": 4}])
    url = several(tmp_path / "a.jsonl", str(tmp_path / "b.csv.gz"), f"{postgres_dsn}?dataset={name}")
    pairs = await pairs_of(url, 1)
    assert [int(value["n"]) for _, value in pairs] == [1, 2, 3, 4]
    assert len({key for key, _ in pairs}) == 4
    source = open_source(url)
    partitions = await all_partitions(source, 10)
    assert ([partition.data is None for partition in partitions], source.portable) == ([True, False, True], False)
    assert source.label == "3 sources"


async def test_dataset_ids_are_those_of_the_database(tmp_path: Path, postgres_dsn: str) -> None:
    first, second = unique("dataset"), unique("data*set")
    await fill(postgres_dsn, first, [{"n": 1}])
    await fill(postgres_dsn, second, [{"n": 2}, {"n": 3}])
    (tmp_path / "a.jsonl").write_text('{"n": 4}\n')
    pairs = await pairs_of(several(first, second, tmp_path / "a.jsonl"), database=postgres_dsn)
    assert [value["n"] for _, value in pairs] == [1, 2, 3, 4]
    with pytest.raises(SourceError, match="name its database"):
        open_source(several(first, second))


async def test_the_url_is_complete_wherever_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(numbered(tmp_path))
    source = open_source(several("a.csv", "b.csv?missing=3"))
    monkeypatch.chdir("/")
    assert [value["n"] for _, value in await pairs_of(source.url)] == ["1", "2", "", "4"]


async def test_files_that_come_later_are_not_read(tmp_path: Path) -> None:
    source = open_source(str(numbered(tmp_path) / "*.csv"))
    partitions = await all_partitions(source, 10)
    (tmp_path / "aa.csv").write_text("n\n8\n")
    again = open_source(source.url)
    assert [len(pairs) for partition in partitions async for pairs in again.read(partition)] == [2, 2]


@pytest.mark.parametrize("pattern", ["*.jsonl", "none/*", "deep/*.txt"])
async def test_what_matches_nothing_is_an_error_and_not_an_empty_dataset(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(SourceError, match="no file that some source reads"):
        await pairs_of(str(numbered(tmp_path) / pattern))


def test_what_names_nothing_is_refused() -> None:
    with pytest.raises(SourceError, match="names no sources"):
        open_source("several://?")
    with pytest.raises(UnknownName):
        open_source("severall://?of=a.csv")

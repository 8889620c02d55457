"""A file as a look-up: read once, and refused where keys are missing or twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncworker.errors import BadParameters, SourceError, UnknownName
from asyncworker.mapreduce.lookups import file


def written(folder: Path, text: str, name: str = "codes.jsonl") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


async def test_it_is_read_once_and_numbers_are_their_digits(tmp_path: Path) -> None:
    lookup = file.open(written(tmp_path, '{"k": 1, "v": 2}\n{"k": "x", "v": 3}\n'), "k", 1.0)
    assert await lookup.fetch(["1", "x", "2"]) == {"1": {"k": 1, "v": 2}, "x": {"k": "x", "v": 3}}
    (tmp_path / "codes.jsonl").unlink()
    assert await lookup.fetch(["1"])
    await lookup.close()
    with pytest.raises(SourceError, match="no file"):
        await lookup.fetch(["1"])


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ('{"k": 1}\n{"k": "1"}\n', "two rows of the same 'k'"),
        ('{"v": 1}\n', "a row without a 'k'"),
        ('{"k": ""}\n', "a row without a 'k'"),
        ('{"k": [1]}\n', "a row without a 'k'"),
        ("7\n", "a row without a 'k'"),
        ("no json\n", "a row without a 'k'"),
    ],
)
async def test_rows_that_cannot_be_looked_up_are_told(tmp_path: Path, text: str, because: str) -> None:
    lookup = file.open(written(tmp_path, text), "k", 1.0)
    with pytest.raises(SourceError, match=because):
        await lookup.fetch(["1"])


async def test_too_many_rows_belong_into_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "MOST_ROWS", 2)
    lookup = file.open(written(tmp_path, "k\n1\n2\n3\n", "codes.csv"), "k", 1.0)
    with pytest.raises(SourceError, match="more than 2 rows"):
        await lookup.fetch(["1"])


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(UnknownName):
        file.open("codes.xyz", "k", 1.0)
    with pytest.raises(BadParameters, match="Name it as key"):
        file.open("codes.csv", None, 1.0)


@pytest.mark.parametrize("url", ["-", "-?format=csv", "postgresql://me:hush@h/db?table=t&key=k", "file:///etc/x.csv"])
def test_s22_a_url_or_standard_input_is_no_file(url: str) -> None:
    with pytest.raises(BadParameters, match="is no path of a file") as caught:
        file.open(url, "k", 1.0)
    assert "hush" not in str(caught.value)

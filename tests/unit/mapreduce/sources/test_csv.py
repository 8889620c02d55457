from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from asyncworker.errors import SourceError
from asyncworker.mapreduce.dataset import open_sink, open_source
from asyncworker.mapreduce.sources.source import BadItem
from tests.support.datasets import all_partitions, pairs_of

FLIGHTS = Path(__file__).parents[4] / "examples" / "data" / "flights-2013-01.csv.gz"


@pytest.fixture(params=["csv", "csv.gz"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    def write(text: str | bytes, query: str = "") -> str:
        content = text.encode() if isinstance(text, str) else text
        path = tmp_path / f"data.{request.param}"
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return f"{path}{query}"

    return write


async def test_keys_are_the_lines_of_an_editor(file: Any):
    text = 'a,b\n1,2\n\n"x\n\ny",3\n\n"p""q","r,s"\n'
    for size in (1, 2, 3):
        assert await pairs_of(file(text), size) == [
            (2, {"a": "1", "b": "2"}),
            (4, {"a": "x\n\ny", "b": "3"}),
            (8, {"a": 'p"q', "b": "r,s"}),
        ]


async def test_carriage_returns_marks_and_a_missing_last_line_feed(file: Any):
    assert await pairs_of(file('\ufeff\r\na,b\r\n1,"x\r\ny"\r\n2,'), 1) == [
        (3, {"a": "1", "b": "x\r\ny"}),
        (5, {"a": "2", "b": ""}),
    ]


async def test_a_quoted_header_may_span_lines(file: Any):
    assert await pairs_of(file('"a\nb",c\n1,2\n3,4\n'), 1) == [
        (3, {"a\nb": "1", "c": "2"}),
        (4, {"a\nb": "3", "c": "4"}),
    ]


async def test_named_texts_mean_missing(file: Any):
    text = "a,b\nNA,1\nnull,-\nNAN,x\n"
    plain = [{"a": "NA", "b": "1"}, {"a": "null", "b": "-"}, {"a": "NAN", "b": "x"}]
    cleared = [{"a": "", "b": "1"}, {"a": "", "b": ""}, {"a": "NAN", "b": "x"}]
    for query, expected in {
        "": plain,
        "?missing=NA,null,-": cleared,
        "?missing=NA&missing=null&missing=-": cleared,
    }.items():
        assert [value for _, value in await pairs_of(file(text, query))] == expected
    (bad, good) = [value for _, value in await pairs_of(file("a,b\nNA\nNA,2\n", "?missing=NA"))]
    assert isinstance(bad, BadItem)
    assert good == {"a": "", "b": "2"}


async def test_records_that_do_not_fit_are_bad_items(file: Any):
    pairs = await pairs_of(file(b"a,b\n1\n1,2\n1,2,3\n\xff,2\n1\r2,3\n3,4\n"))
    assert [key for key, _ in pairs] == [2, 3, 4, 5, 6, 7]
    assert [value for _, value in pairs if isinstance(value, dict)] == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    errors = [value.error for _, value in pairs if isinstance(value, BadItem)]
    assert errors[:2] == ["1 fields where the header has 2", "3 fields where the header has 2"]
    assert errors[2].startswith("no UTF-8")
    assert errors[3].startswith("no CSV")


async def test_a_field_may_be_as_long_as_a_record(file: Any):
    long = "x" * 1_000_000
    assert await pairs_of(file(f'a,b\n1,"{long}"\n')) == [(2, {"a": "1", "b": long})]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('a,b\n1,2\n"x,3\n4,5\n', "the quote opened in line 3 is not closed"),
        ("a,b,a\n1,2,3\n", "has the column 'a' twice: rename one"),
        (b"a,\xff\n1,2\n", "the header of .* cannot be read"),
        ("a,b\r1,2\r", "the header of .* cannot be read"),
    ],
)
async def test_files_that_cannot_be_read_are_told(file: Any, text: Any, match: str):
    with pytest.raises(SourceError, match=match):
        await pairs_of(file(text))


@pytest.mark.parametrize("text", ["", "\n\n", "a,b", "a,b\n", "\ufeffa,b\r\n\r\n"])
async def test_without_records_there_are_no_partitions(file: Any, text: str):
    assert await all_partitions(open_source(file(text)), 10) == []


async def test_the_flights_are_read_whole():
    pairs = await pairs_of(f"{FLIGHTS}?missing=NA", 10_000)
    assert [key for key, _ in pairs] == list(range(2, 27_006))
    assert pairs[0][1]["tailnum"] == "N14228"
    assert sum(int(value["distance"]) for _, value in pairs) == 27_188_805
    assert sum(value["dep_time"] == "" for _, value in pairs) == 521


async def test_values_are_written_as_text(tmp_path: Path):
    sink = open_sink(tmp_path / "out.csv")
    await sink.write([{"a": None, "b": True, "c": [1, {"x": "é"}]}, {"b": 1.5, "a": 'say "hi"\n'}])
    await sink.commit()
    assert (tmp_path / "out.csv").read_text() == 'a,b,c\n,true,"[1,{""x"":""é""}]"\n"say ""hi""\n",1.5,\n'


@pytest.mark.parametrize(
    ("rows", "match"),
    [([1], "must be a dict"), ([{"a": 1}, {"b": 2}], "write .jsonl instead"), ([{"a": object()}], "written as text")],
)
async def test_rows_that_csv_cannot_carry_are_told(tmp_path: Path, rows: list[Any], match: str):
    sink = open_sink(tmp_path / "out.csv")
    with pytest.raises(SourceError, match=match):
        await sink.write(rows)
    await sink.abort()

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import msgspec
import pytest

from asyncworker.tune.layout import FEWEST, suggest
from bench.control.bench_memory_leaks import layouts


class Plain:
    def __init__(self, x: int, tag: object) -> None:
        self.x, self.tag = x, tag


@dataclass(frozen=True)
class Frozen:
    x: int
    y: int


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x: int) -> None:
        self.x = x


class Struct(msgspec.Struct):
    x: int


async def test_what_is_suggested_is_as_light_on_another_scale() -> None:
    figures = await layouts()
    assert figures["dict"][0][2] >= 0.2
    assert figures["class"][0][2] >= 0.2
    assert figures["slots"] == figures["struct"] == []
    assert not tracemalloc.is_tracing()


@pytest.mark.parametrize("make", [lambda at: Plain(at, "a"), lambda at: Frozen(at, at), lambda at: {"x": at, "y": at}])
def test_records_get_the_lightest_form(make: object) -> None:
    found = suggest([make(at) for at in range(FEWEST)])  # type: ignore[operator]
    assert found is not None
    assert found.form == "a msgspec.Struct with gc=False"
    assert found.saved >= 0.2
    assert str(round(found.then_bytes)) in found.advice


def test_without_the_collector_only_where_no_cycle_can_be() -> None:
    found = suggest([Plain(at, [at]) for at in range(FEWEST)])
    assert found is None or found.form == "a class with __slots__"


@pytest.mark.parametrize(
    "records",
    [
        [Plain(1, "a")] * (FEWEST - 1),
        [Slotted(at) for at in range(FEWEST)],
        [Struct(at) for at in range(FEWEST)],
        [{at: 1} for at in range(FEWEST)],
        [{"a b": 1, "class": 2} for _ in range(FEWEST)],
        [{"a": 1} if at % 2 else {"b": 1} for at in range(FEWEST)],
        [Plain(at, "a") if at % 2 else {"x": 1} for at in range(FEWEST)],
        [(at, at) for at in range(FEWEST)],
        list(range(FEWEST)),
        [ValueError(at) for at in range(FEWEST)],
        [{} for _ in range(FEWEST)],
    ],
    ids=["few", "slots", "struct", "keys", "names", "shapes", "types", "tuples", "numbers", "errors", "empty"],
)
def test_what_cannot_be_told_gets_none(records: list[object]) -> None:
    assert suggest(records) is None


def test_an_attribute_that_is_missing_gets_none() -> None:
    records = [Plain(at, "a") for at in range(FEWEST)]
    del records[3].tag
    assert suggest(records) is None


def test_somebody_elses_tracing_stays_on() -> None:
    tracemalloc.start()
    try:
        assert suggest([Plain(at, "a") for at in range(FEWEST)]) is not None
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()

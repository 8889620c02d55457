"""Functions by name: built-ins, and users' own made of a mapper, a reducer, or both."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from asyncworker.errors import BadParameters, SettingsError, UnknownName
from asyncworker.mapreduce.catalogue import Catalogue, find_function, from_callables, function_names
from asyncworker.queue.context import Context
from tests.support.mapreduce import Fleet


async def score(item: Any, params: Any) -> Any:
    """Score one item.

    More of it.
    """
    return item * params["factor"]


def same(item: Any, params: Any) -> Any:
    return item


class Total:
    """Add up."""

    def initial(self, params: Any) -> Any:
        return params.get("start", 0)

    def fold(self, acc: Any, value: Any) -> Any:
        return acc + value

    def merge(self, left: Any, right: Any) -> Any:
        return left + right

    def finish(self, acc: Any, params: Any) -> Any:
        return {"total": acc, "unit": params["unit"]}


@pytest.fixture
def catalogue() -> Catalogue:
    made = Catalogue()
    made.add_mapper("score", score)
    made.add_reducer("Total", Total)
    return made


def test_the_built_ins():
    assert set(function_names()) >= {"data_validation", "data_aggregation", "word_count"}
    assert Catalogue().find("word_count") is find_function("word_count")
    assert Catalogue().name("word_count") == "word_count"


async def test_a_mapper_and_a_reducer_work_together_with_the_parameters(catalogue):
    name = catalogue.name(None, score, Total)
    assert name == catalogue.name(None, "score", "Total") == "score+Total"
    function = catalogue.find(name)
    assert (function.name, function.summary) == (name, "Score one item.")
    work = function.prepare({"factor": 3, "unit": "m"})
    mapped = work.map(2)
    assert inspect.isawaitable(mapped)
    left = work.fold(work.initial(), await mapped)
    right = work.fold(work.initial(), 4)
    assert work.finish(work.merge(left, right), 7) == {"total": 10, "unit": "m"}


async def test_a_mapper_alone_collects_in_order_and_s51_keeps_what_is_falsy(catalogue):
    function = catalogue.find(catalogue.name(mapper="score"))
    assert function.name == "score+"
    work = from_callables(same).prepare({})
    falsy = [0, "", [], None, False, {}]
    accs = [work.fold(work.initial(), work.map(item)) for item in falsy]
    acc = work.initial()
    for one in accs:
        acc = work.merge(acc, one)
    assert work.finish(acc) == falsy
    assert work.initial() == []


def test_a_reducer_alone_is_given_the_items(catalogue):
    function = catalogue.find(catalogue.name(reducer=Total))
    assert (function.name, function.summary) == ("+Total", "Add up.")
    work = function.prepare({"start": 1, "unit": "s"})
    assert work.finish(work.fold(work.initial(), work.map(5))) == {"total": 6, "unit": "s"}


def test_s14_items_that_look_like_outcomes_round_trip():
    items = [{"status": "failed", "error": "x", "original_index": 1}, 5, "text", None, [1]]
    work = from_callables(same).prepare({})
    acc = work.initial()
    for item in items:
        acc = work.fold(acc, work.map(item))
    assert work.finish(acc) == items


def test_s15_unknown_names_are_refused_with_the_nearest(catalogue):
    with pytest.raises(UnknownName, match="unknown mapper 'scor'; did you mean 'score'"):
        catalogue.name(mapper="scor")
    with pytest.raises(UnknownName, match="unknown reducer 'Totals'; did you mean 'Total'"):
        catalogue.name(mapper="score", reducer="Totals")
    for name in ("score+Nothing", "nothing+", "+", "score", "os.system", "asyncworker.mapreduce.catalogue+"):
        with pytest.raises(UnknownName if name != "+" else BadParameters):
            catalogue.find(name)


@pytest.mark.parametrize(
    "given",
    [(None, None, None), ("word_count", score, None), ("word_count", None, Total), (None, same, None)],
)
def test_what_does_not_go_together_is_refused(catalogue, given):
    with pytest.raises((BadParameters, UnknownName)):
        catalogue.name(*given)


def test_an_object_must_be_the_one_that_is_registered(catalogue):
    def other(item: Any, params: Any) -> Any:
        return item

    other.__name__ = "score"
    with pytest.raises(BadParameters, match="mapper 'score' is not the one"):
        catalogue.name(mapper=other)


def test_a_name_is_taken_once(catalogue):
    catalogue.add_mapper("score", score)
    catalogue.add_reducer("Total", Total)
    with pytest.raises(SettingsError, match="mapper 'score' is registered twice"):
        catalogue.add_mapper("score", same)


class NoMerge:
    initial = Total.initial
    fold = Total.fold
    finish = Total.finish


class Awaits(Total):
    async def fold(self, acc: Any, value: Any) -> Any:
        return acc


class OldFinish(Total):
    def finish(self, acc: Any) -> Any:  # type: ignore[override]
        return acc


class OldRow(Total):
    def row(self, key: str, value: Any) -> Any:
        return value


class Wants(Total):
    def __init__(self, size: int) -> None:
        self.size = size


@pytest.mark.parametrize(
    ("mapper", "reducer", "message"),
    [
        (None, None, "there is nothing to do"),
        (lambda item, params: item, None, "no lambda"),
        (5, None, "mapper int cannot be called"),
        (len, None, r"mapper len must take \(item, params\)"),
        (None, NoMerge, r"reducer NoMerge has no merge\(left, right\)"),
        (None, Awaits, "fold of reducer Awaits must be a plain function, not a coroutine"),
        (None, OldFinish, r"finish of reducer OldFinish must take \(acc, params\)"),
        (None, Wants, r"reducer Wants must take \(\)"),
        (None, Total(), "reducer Total must be a class"),
        (None, OldRow, r"row of reducer OldRow must take \(key, value, params\)"),
    ],
)
def test_what_cannot_be_called_as_it_will_be_is_refused_at_once(mapper, reducer, message):
    with pytest.raises(BadParameters, match=message):
        from_callables(mapper, reducer)


async def test_a_mapper_may_see_its_partition() -> None:
    async def tag(item: int, params: Any, ctx: Context) -> str:
        return f"{ctx.id.rpartition('.')[2]}:{item}"

    summary = await Fleet(tag=from_callables(tag)).summary([1, 2, 3], "tag", partition_size=2)
    assert summary["final_result"] == ["0:1", "0:2", "1:3"]


def test_a_third_parameter_that_is_no_context_is_refused() -> None:
    def three(item: int, params: Any, more: int) -> None: ...

    with pytest.raises(BadParameters, match="must take"):
        from_callables(three)

"""The contract of processing functions, over every file of the room and over users' own: any cut, one result."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.errors import BadParameters, UnknownName
from asyncworker.mapreduce.catalogue import find_function, from_callables, function_names
from asyncworker.mapreduce.functions.function import Bulk, Condensing, Function, Keyed, Work
from asyncworker.mapreduce.pieces import deal, share_of
from asyncworker.mapreduce.schema import KEYWORDS
from asyncworker.mapreduce.slim import SlimDecoder
from asyncworker.mapreduce.sources.source import BadItem, Slim


async def shown(item: Any, params: Any) -> str:
    return repr(item)


class Longest:
    def initial(self, params: Any) -> Any:
        return []

    def fold(self, acc: Any, value: Any) -> Any:
        return self.merge(acc, [value])

    def merge(self, left: Any, right: Any) -> Any:
        return max(left, right, key=lambda acc: len(repr(acc)) if acc else 0)

    def finish(self, acc: Any, params: Any) -> Any:
        return [acc, params]


class Letters:
    """Count items by the letters that show them: a reducer by keys."""

    def initial(self, params: Any) -> Any:
        return {}

    def fold(self, acc: Any, value: Any) -> Any:
        for letter in str(value).encode("utf-8", "replace").decode():
            acc[letter] = acc.get(letter, 0) + 1
        return acc

    def merge(self, left: Any, right: Any) -> Any:
        for letter, count in right.items():
            left[letter] = left.get(letter, 0) + count
        return left

    def row(self, key: str, value: Any, params: Any) -> Any:
        return [key, value, params]


PARAMS: Mapping[str, dict[str, Any]] = {
    "data_validation": {
        "validation_rules": {
            "required_fields": ["a", "text"],
            "type_validations": {"a": "int", "b": "number", "text": "str"},
            "range_validations": {"a": {"min": 0, "max": 10}, "b": {"min": -1.5}},
            "pattern_validations": {"text": "[a-z]+"},
        }
    },
    "data_aggregation": {
        "aggregation_config": {
            "group_by": ["text", "b"],
            "aggregate_fields": {"a": ["count", "sum", "avg", "min", "max"], "b": "count"},
        }
    },
    "data_analysis": {
        "analysis_config": {
            "numeric_fields": ["a", "b"],
            "percentiles": [0, 33.3, 50],
            "percentile_of": {"a": [0, 5]},
            "normalization_factors": {"a": 10},
            "categorization_rules": {"x": "text == 'x'", "small": {"a": {"max": 3}}},
            "anomaly_detection": {"z_score": {"threshold": 1}, "iqr": {}, "range": {"a": {"min": -5, "max": 9}}},
        }
    },
    "data_classification": {
        "classification_config": {
            "rules": [{"class": "x", "when": {"text": {"in": ["x", 1]}}}],
            "scores": {
                "high": [{"value": "a", "weight": 0.1}, {"when": "b is None", "weight": 1}],
                "low": [{"value": "-a", "weight": 0.1}],
            },
            "threshold": 0.5,
            "default_class": "other",
            "keep_items": True,
        }
    },
    "data_enrichment": {
        "enrichment_config": {
            "lookups": [
                {"field": "text", "table": {"x": 1, "y z": {"n": 2}}, "into": "found", "default": "?"},
                {"field": "b", "name": "b", "table": {"1": {"n": 2}}, "fields": {"m": "n"}},
            ]
        }
    },
    "data_transformation": {
        "transformations": {
            "filter": "b != 'y z'",
            "normalize_fields": ["text"],
            "calculated_fields": {"double": "a * 2", "length": "len(text) if text else 0"},
            "field_mappings": {"a": "renamed"},
            "type_conversions": {"renamed": "int", "b": "bool"},
        }
    },
    "word_count": {"field": "text", "top": 3},
}
OWN = {
    "shown+": from_callables(shown),
    "+Longest": from_callables(None, Longest),
    "shown+Longest": from_callables(shown, Longest),
    "shown+Letters": from_callables(shown, Letters),
}
FUNCTIONS = [*map(find_function, function_names()), *OWN.values()]

numbers = st.one_of(
    st.integers(-20, 20),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.1, 1e308, -1e308, 5e-324, -0.0, 1, 1.0, "0.1", "1e3", "7", "-7", "18446744073709551616"]),
)
values = st.one_of(
    numbers, st.sampled_from([None, "", True, False, "true", "x", "y z", [], {}, [1], float("nan"), "\ud800"])
)
plain = st.sampled_from([None, "", 1, 1.0, "1", True, "x", "y z"])
objects = st.fixed_dictionaries({}, optional={"a": values, "b": plain, "text": plain, "id": values})
alike = st.fixed_dictionaries(
    {
        "a": st.integers(-3, 12),
        "b": st.integers(-3, 3) | st.floats(-3, 3),
        "text": st.text("ab1", min_size=1, max_size=3),
    },
    optional={"id": st.integers() | st.text("xy")},
)
"""Objects as one finds them in a table: fields are there, and of one type."""
items = st.one_of(
    objects, objects, objects, st.sampled_from([None, 0, "text", [1, 2], {"status": "failed", "error": 1}])
)


def carried(item: Any) -> bool:
    """Return whether JSON and MessagePack can carry an item, as users' own functions need."""
    try:
        return travelled(item) == item == msgspec.json.decode(msgspec.json.encode(item))
    except (OverflowError, UnicodeEncodeError):
        return False


def each(functions: list[Function] = FUNCTIONS) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("function", functions, ids=lambda function: function.name)


def work_of(function: Function) -> Work:
    return function.prepare(PARAMS.get(function.name, {}))


async def folded(work: Work, given: list[Any], acc: Any = None) -> tuple[Any, int]:
    """Fold what can be mapped; returns the accumulator, and how many items failed."""
    acc, failed = work.initial() if acc is None else acc, 0
    for item in given:
        try:
            value = work.map(item)
            if hasattr(value, "__await__"):
                value = await value
        except ValueError:
            failed += 1
        else:
            acc = work.fold(acc, value)
    return acc, failed


def travelled(acc: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(acc))


def text(result: Any) -> str:
    """Show a result to the last bit: 1, 1.0 and true differ, as do 0.0 and -0.0."""
    assert msgspec.json.decode(msgspec.json.encode(result)) == result, "a result is plain JSON"
    travelled(result)
    return repr(result)


@each()
@settings(max_examples=60, deadline=None)
@given(data=st.data())
async def test_any_cut_and_any_order_of_merging_finish_to_the_same_result(
    function: Function, data: st.DataObject
) -> None:
    given_ = [item for item in data.draw(st.lists(items, max_size=60)) if function.name not in OWN or carried(item)]
    work = work_of(function)
    whole, failed = await folded(work, given_)
    expected = text(work.finish(travelled(whole), failed))

    cuts = sorted(data.draw(st.lists(st.integers(0, len(given_)), max_size=8)))
    bounds = [0, *cuts, len(given_)]
    parts = [await folded(work_of(function), given_[start:stop]) for start, stop in pairwise(bounds)]
    assert sum(part_failed for _, part_failed in parts) == failed
    accs = [travelled(acc) for acc, _ in parts]
    while len(accs) > 1:
        at = data.draw(st.integers(0, len(accs) - 2))
        accs[at : at + 2] = [travelled(work.merge(accs[at], accs[at + 1]))]
    assert text(work.finish(accs[0], failed)) == expected


@each([function for function in FUNCTIONS if isinstance(work_of(function), Bulk)])
@settings(max_examples=150, deadline=None)
@given(alike=st.lists(objects, min_size=1, max_size=8), odd=st.lists(items, max_size=3))
async def test_folding_many_at_once_comes_to_the_same(function: Function, alike: list[Any], odd: list[Any]) -> None:
    for some in (alike, alike + odd, [*alike, BadItem("no JSON")]):
        work = work_of(function)
        assert isinstance(work, Bulk)
        acc, left = work.fold_list(work.initial(), some)
        assert list(left) == sorted(set(left))
        assert {place for place, item in enumerate(some) if type(item) is BadItem} <= set(left)
        acc, failed = await folded(work, [some[place] for place in left], acc)
        one_by_one, expected = await folded(work, some)
        assert (text(work.finish(acc)), failed) == (text(work.finish(one_by_one)), expected)


@each([function for function in FUNCTIONS if isinstance(work_of(function), Bulk)])
@settings(max_examples=100, deadline=None)
@given(given_=st.lists(objects.filter(carried), min_size=1, max_size=8) | st.lists(alike, min_size=1, max_size=12))
async def test_folding_what_was_read_of_items_comes_to_the_same(function: Function, given_: list[Any]) -> None:
    data = msgspec.json.encode([{**item, "more": [item]} for item in given_])
    work = work_of(function)
    assert isinstance(work, Bulk)
    some = SlimDecoder(work.reads)(data)
    assert all(isinstance(item, Slim) for item in some)
    acc, left = work.fold_list(work.initial(), some)
    acc, failed = await folded(work, [msgspec.to_builtins(some[place]) for place in left], acc)
    one_by_one, expected = await folded(work, msgspec.json.decode(data))
    assert (text(work.finish(acc)), failed) == (text(work.finish(one_by_one)), expected)


@each([function for function in FUNCTIONS if isinstance(work_of(function), Keyed)])
@settings(max_examples=30, deadline=None)
@given(given_=st.lists(objects.filter(carried), max_size=40), bits=st.integers(0, 4))
async def test_keys_can_be_shared_out(function: Function, given_: list[Any], bits: int) -> None:
    work = work_of(function)
    assert isinstance(work, Keyed)
    half = len(given_) // 2
    accs = [travelled((await folded(work, part))[0]) for part in (given_[:half], given_[half:])]
    rows: list[Any] = []
    condensed: list[Any] = []
    for share, (left, right) in enumerate(zip(*(deal(acc, bits) for acc in accs), strict=True)):
        assert [left, right] == [share_of(acc, bits, share) for acc in accs]
        merged = work.merge(work.merge(work.initial(), travelled(left)), travelled(right))
        rows += [(work.order(key), work.row(key, value)) for key, value in travelled(merged).items()]
        condensed += [travelled(work.condense(merged))] if isinstance(work, Condensing) else []
    rows.sort(key=lambda pair: pair[0])
    expected = work.finish(work.merge(work.merge(work.initial(), accs[0]), accs[1]))
    assert text(work.whole([row for _, row in rows])) == text(expected)
    if isinstance(work, Condensing):
        assert text(work.joined(condensed)) == text(expected)


@each()
@settings(max_examples=30, deadline=None)
@given(given_=st.lists(objects.filter(carried), max_size=20))
async def test_initial_is_the_identity_of_merge(function: Function, given_: list[Any]) -> None:
    work = work_of(function)
    acc, failed = await folded(work, given_)
    expected = text(work.finish(copy.deepcopy(acc), failed))
    assert text(work.finish(work.merge(work.initial(), copy.deepcopy(acc)), failed)) == expected
    assert text(work.finish(work.merge(copy.deepcopy(acc), work.initial()), failed)) == expected
    assert work.initial() == work.initial()


@each()
async def test_one_work_makes_accumulators_that_share_nothing(function: Function) -> None:
    work = work_of(function)
    before = copy.deepcopy(work.initial())
    await folded(work, [{"a": 1, "text": "x"}, {"a": "bad"}])
    assert work.initial() == before


@each([find_function(name) for name in function_names()])
def test_a_function_is_found_by_its_file_and_says_what_it_does(function: Function) -> None:
    assert function.name in PARAMS, "this suite wants parameters for each file of the room"
    assert find_function(function.name) is function
    assert function.summary.endswith(".")
    assert len(function.summary) < 100


@each([find_function(name) for name in function_names()])
def test_the_schema_is_sound_and_travels(function: Function) -> None:
    assert msgspec.json.decode(msgspec.json.encode(function.schema)) == function.schema
    sound(function.schema)
    assert function.schema["type"] == "object"
    assert function.schema["additionalProperties"] is False
    for example in function.schema["examples"]:
        function.prepare(example)


def sound(schema: Any) -> None:
    assert schema.keys() <= KEYWORDS
    for nested in schema.get("properties", {}).values():
        sound(nested)
    for nested in (schema.get("additionalProperties"), schema.get("items"), *schema.get("anyOf", ())):
        if isinstance(nested, dict):
            sound(nested)
    assert set(schema.get("required", ())) <= schema.get("properties", {}).keys()
    if "default" in schema and schema.get("type") == "boolean":
        assert type(schema["default"]) is bool


@each([find_function(name) for name in function_names()])
def test_s15_parameters_are_checked_at_submit(function: Function) -> None:
    params = msgspec.json.decode(msgspec.json.encode(PARAMS[function.name]))
    before = copy.deepcopy(params)
    function.prepare(params)
    assert params == before
    known = next(iter(function.schema["properties"]))
    with pytest.raises(BadParameters, match=f"unknown key '{known}s'; did you mean '{known}'"):
        function.prepare({**params, known + "s": 1})
    with pytest.raises(BadParameters, match="the parameters must be an object, not a list"):
        function.prepare([params])  # type: ignore[arg-type]
    with pytest.raises(BadParameters, match=f"{known} must be .*, not a number"):
        function.prepare({known: 1})


def test_s15_an_unknown_function_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="unknown function 'data_validaton'; did you mean 'data_validation'"):
        find_function("data_validaton")
    for name in ("function", "os.system", "../catalogue", "__init__", "", "data_validation "):
        with pytest.raises(UnknownName):
            find_function(name)


@each()
async def test_s14_an_item_of_any_form_is_mapped_or_fails_alone(function: Function) -> None:
    work = work_of(function)
    odd = [{"status": "failed", "error": "x", "original_index": 7}, None, True, 0, 1.5, "text", [], {}, [[]], {"a": {}}]
    good = {"a": 1, "text": "x"}
    acc, failed = await folded(work, [good, *odd, good])
    alone = sum([(await folded(work, [item]))[1] for item in odd])
    assert failed == alone
    text(work.finish(acc, failed))


@each([find_function(name) for name in function_names()])
def test_s22_the_error_of_an_item_holds_nothing_of_it(function: Function) -> None:
    work = work_of(function)
    secret = "canary-4711"
    errors = []
    for item in (secret, [secret], {"a": secret, "text": [secret]}, {"text": {secret: 1}}, {"a": 1, "text": [secret]}):
        try:
            work.map(item)
        except ValueError as exc:
            errors.append(str(exc))
    assert len(errors) >= 2
    assert all(secret not in error and len(error) < 200 for error in errors)

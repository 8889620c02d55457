"""One grammar for numbers and types, over JSON and text alike."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.mapreduce.value import LARGEST, TYPES, brief, kind, missing, number

INT = {"int", "float", "number"}
REAL = {"float", "number"}
NOTHING: set[str] = set()


@pytest.mark.parametrize(
    ("value", "types"),
    [
        (12, INT),
        (-(2**70), INT),
        (12.0, REAL),
        (1e300, REAL),
        (float("nan"), NOTHING),
        (float("inf"), NOTHING),
        (True, {"bool"}),
        (0, INT),
        ("12", INT | {"str"}),
        ("-12", INT | {"str"}),
        ("+12", INT | {"str"}),
        ("007", INT | {"str"}),
        ("9" * 300, INT | {"str"}),
        ("9" * 301, {"str"}),
        ("12.0", REAL | {"str"}),
        ("12.", REAL | {"str"}),
        (".5", REAL | {"str"}),
        ("-1.5e-3", REAL | {"str"}),
        ("1e3", REAL | {"str"}),
        ("1E+3", REAL | {"str"}),
        ("1e999", {"str"}),
        *((text, {"str"}) for text in [" 12", "12 ", "12\n", "1_000", "1,5", "0x1f", "1e", "e3", ".", "+", "-", "--1"]),
        *((text, {"str"}) for text in ["nan", "inf", "Infinity", "٣", "²", "1" + "٣", "½", "12abc", "\ud800"]),
        *((text, {"bool", "str"}) for text in ["true", "True", "TRUE", "false", "False", "FALSE"]),
        *((text, {"str"}) for text in ["tRUE", "yes", "t", " true", "0 "]),
        ([], {"list"}),
        ([1], {"list"}),
        ({}, {"dict"}),
        ("[1]", {"str"}),
        ("{}", {"str"}),
        ((1,), NOTHING),
        (b"12", NOTHING),
    ],
    ids=repr,
)
def test_s17_types_by_name(value, types):
    assert {name for name, holds in TYPES.items() if holds(value)} == types


@given(st.one_of(st.integers(-(2**200), 2**200), st.floats(allow_nan=False, allow_infinity=False)))
def test_the_text_that_json_writes_for_a_number_is_that_number(given_):
    assert number(json.dumps(given_)) == given_
    assert type(number(json.dumps(given_))) is type(given_)
    assert number(given_) is given_


@given(st.one_of(st.text(max_size=12), st.text("0123456789.+-eE_ ", max_size=8)))
def test_no_text_is_a_number_that_python_would_not_read(text):
    found = number(text)
    if found is not None:
        assert float(text) == found
        assert text.isascii()
        assert text.strip() == text
        assert "_" not in text
        assert -LARGEST <= found <= LARGEST


@pytest.mark.parametrize("value", [0, 0.0, False, [], {}, " ", "0", "NA", "null"])
def test_s51_falsy_is_not_missing(value):
    assert not missing(value)


@pytest.mark.parametrize("value", [None, ""])
def test_missing(value):
    assert missing(value)
    assert number(value) is None


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=100),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(json_like)
def test_an_example_is_short_and_travels(value):
    shown = brief(value)
    assert len(repr(shown)) < 70 * 6
    assert not isinstance(shown, list | dict)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(shown)) == shown
    assert msgspec.json.decode(msgspec.json.encode(shown)) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 60 + "…"),
        ("\ud800", "\\ud800"),
        (2**63, "a number beyond 64 bits"),
        (1 << 20_000, "a number beyond 64 bits"),
        (float("nan"), "nan"),
        ([1, 2], "a list of 2"),
        ({"password": "canary"}, "an object of 1"),
        (b"canary", "a bytes"),
    ],
    ids=kind,
)
def test_what_an_example_shows(value, shown):
    assert brief(value) == shown


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (None, "null"),
        (True, "a bool"),
        (1, "a number"),
        (1.5, "a number"),
        (float("nan"), "nan or infinity"),
        ("", "text"),
        ([], "a list"),
        ({}, "an object"),
        (int, "a type"),
    ],
)
def test_kinds_in_words(value, word):
    assert kind(value) == word

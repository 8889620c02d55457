"""Words of any script, counted exactly."""

from __future__ import annotations

import pytest

from asyncworker.errors import BadParameters
from asyncworker.mapreduce.functions.word_count import FUNCTION


def count(texts, **params):
    work = FUNCTION.prepare(params)
    acc = work.initial()
    for text in texts:
        acc = work.fold(acc, work.map(text))
    return work.finish(acc)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("To be, or not to be!", ["to", "be", "or", "not", "to", "be"]),
        ("don't it’s 'quoted' rock'n'roll", ["don't", "it's", "quoted", "rock'n'roll"]),
        ("snake_case kebab-case 10:30 3.14", ["snake", "case", "kebab", "case", "10", "30", "3", "14"]),
        ("Straße ΣΑΣ İ", ["strasse", "σασ", "i̇"]),
        ("e\u0301t\u00e9", ["été"]),
        ("हिन्दी 日本語 русский", ["हिन्दी", "日本語", "русский"]),
        ("", []),
        (" \n\t…—", []),
        (None, []),
    ],
)
def test_what_a_word_is(text, words):
    assert FUNCTION.prepare({}).map(text) == words


def test_the_most_frequent_come_first_and_of_equals_the_first_in_the_alphabet():
    found = count(["b a", "c a B"], top=3)
    assert found == {
        "total": 5,
        "distinct": 3,
        "words": [{"word": "a", "count": 2}, {"word": "b", "count": 2}, {"word": "c", "count": 1}],
    }
    assert count(["b a c"], top=2)["words"] == [{"word": "a", "count": 1}, {"word": "b", "count": 1}]


def test_case_may_count():
    assert [entry["word"] for entry in count(["a A"], casefold=False)["words"]] == ["A", "a"]


def test_a_field_of_objects():
    found = count([{"text": "a b"}, {"text": None}, {}, {"text": "a"}], field="text")
    assert (found["total"], found["distinct"]) == (3, 2)


@pytest.mark.parametrize(
    ("item", "field", "message"),
    [
        ("text", "text", "the item is text, not an object"),
        ({"text": 5}, "text", "field 'text' is a number, not text"),
        ({"text": ["a"]}, None, "the item is an object, not text"),
        ("\ud800", None, "surrogates not allowed"),
    ],
)
def test_s14_what_is_no_text_fails_its_item(item, field, message):
    work = FUNCTION.prepare({} if field is None else {"field": field})
    with pytest.raises(ValueError, match=message):
        work.map(item)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"top": 0}, "top must be 1 or more"),
        ({"fields": "a"}, "did you mean 'field'"),
        ({"field": 1}, "field must be text"),
    ],
)
def test_s15_parameters_that_do_not_fit_are_refused_at_submit(params, message):
    with pytest.raises(BadParameters, match=message):
        FUNCTION.prepare(params)

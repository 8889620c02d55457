"""Users' patterns: RE2 alone, in full, in time that grows with the text alone, silent."""

from __future__ import annotations

import time

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncworker.errors import BadParameters
from asyncworker.mapreduce.pattern import MAX_PATTERN_BYTES, find_all, full_match, mismatches

EMAIL = r"^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}$"


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (EMAIL, ["a@b.co"], ["a@b.co\n", " a@b.co", "a@b.co x", "a@b", ""]),
        ("a", ["a"], ["ab", "ba", "a\n", "A", ""]),
        ("a|ab", ["a", "ab"], ["abb"]),
        ("^a$", ["a"], ["a\n", "x\na", "a\nb"]),
        ("(?m)^a$", ["a"], ["a\n", "x\na"]),
        ("(?i)é", ["é", "É"], ["e"]),
        (r"\d{3}", ["123"], ["١٢٣", "12", "1234"]),
        (r"\w+", ["ab_1"], ["é", "a b"]),
        (r"\pL+", ["abcé日"], ["a1"]),
        (r"[\w.-]{1,64}@[\w.-]{1,255}", ["a@b"], ["@"]),
        (".", ["é", "日", "😀", "\x00"], ["\n", "ab", ""]),
        (".{0,1000}", ["", "日" * 1000], ["日" * 1001]),
        ("", [""], ["a"]),
        (r"a\\", ["a\\"], ["a"]),
        ("#", ["#"], [""]),
    ],
)
def test_s20_a_pattern_matches_in_full_or_not_at_all(pattern, matching, others):
    matches = full_match(pattern)
    assert [text for text in [*matching, *others] if matches(text)] == matching


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"(a)\1", r"(?P<x>a)(?P=x)", r"\8", "(a)(b)\\2"),
        *("(?=a)b", "(?!a)b", "(?<=a)b", "(?<!a)b", "(?>a)", "(?(1)a|b)", "a++", "(?R)", "(?u)a", "(?x)a b"),
        *("a{1001}", "a{1,2000}", "(a{1000}){1000}", "((a{100}){100}){100}", "(.{0,100}){20}", r"\pL{1,100}"),
        *("(", ")", "[", "a)(b", "a)|(b", "*", "a**", "\\", "[b-a]", r"\Qab", r"\E", "(?i", r"\N{DASH}"),
        *("\ud800", "a" * (MAX_PATTERN_BYTES + 1), "é" * (MAX_PATTERN_BYTES // 2 + 1)),
    ],
    ids=lambda pattern: ascii(pattern[:12]),
)
def test_s20_e5_what_re2_does_not_take_is_refused_at_submit(pattern):
    with pytest.raises(BadParameters, match=r"rules\.x"):
        full_match(pattern, "rules.x")


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a+)+$",
        "(a*)*b",
        "(a|aa)+$",
        "(a|a?)+x",
        "(.*)*x",
        "(.+)+x",
        "([a-zA-Z]+)*1",
        "(x+x+)+y",
        "(.*a){20}",
        ".*.*.*.*=.*",
        "(.*)" * 200,
        "(?:a|b|ab|ba)*" * 60,
        r"(\w+\s?)*!",
        "(.*?a.*?b)+c",
        "((a*)*)*",
        EMAIL,
        r"(?:\w+\W+){0,20}\d",
        "a?" * 200 + "a" * 200,
    ],
    ids=lambda pattern: pattern[:16],
)
def test_s20_e5_hundred_thousand_characters_take_no_time(pattern, capfd):
    matches = full_match(pattern)
    for text in ("a" * 100_000, "a" * 100_000 + "!", "ab " * 33_000 + "é"):
        began = time.process_time()
        matches(text)
        assert time.process_time() - began < 0.05
    assert capfd.readouterr() == ("", "")


def test_s20_the_largest_programs_make_no_noise(capfd):
    for pattern in (".{0,1000}", ".{1,999}x", r"\pL{1,20}", r"[\w.-]{1,500}", "(?:a?){1000}"):
        full_match(pattern)("a" * 5000)
    for pattern in ("(", r"(a)\1", r"\pL{1,500}"):
        with pytest.raises(BadParameters):
            full_match(pattern)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("held", [False, True])
def test_s20_e5_re_is_never_asked_even_where_others_allow_it(held, monkeypatch):
    re2.set_fallback_notification(re2.FALLBACK_QUIETLY)
    try:
        if held:  # as if another thread were always the last to set it
            monkeypatch.setattr(re2, "set_fallback_notification", lambda level: None)
        for compiled in (full_match, find_all):
            with pytest.raises(BadParameters):
                compiled(r"(a)\1")
    finally:
        monkeypatch.undo()
        re2.set_fallback_notification(re2.FALLBACK_EXCEPTION)


def test_s20_too_large_a_pattern_is_refused_though_others_have_compiled_it():
    re2.compile(r"\pL{1,90}", re2.ASCII)
    with pytest.raises(BadParameters, match="too large"):
        full_match(r"\pL{1,90}")


def test_many_texts_are_asked_at_once():
    places = mismatches("[a-z]+")
    assert places(["a", "", "B", "bc", "c1"]) == [1, 2, 4]
    assert places([]) == []
    assert places(["a", "\ud800", "1"]) == [1, 2]


def test_half_a_surrogate_pair_matches_nothing():
    assert not full_match(".*")("\ud800")
    assert not full_match("[^a]")("\udfff")


@settings(max_examples=100)
@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_a_pattern_or_is_refused(pattern, text):
    try:
        matches = full_match(pattern)
    except BadParameters:
        return
    assert matches(text) in (True, False)


def test_a_search_finds_all():
    assert find_all("[a-z]+")("ab 12 cd") == ["ab", "cd"]
    assert find_all("[a-z]+")("12") == []

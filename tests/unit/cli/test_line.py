from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.cli.line import count, date, duration, one_line


@given(st.text())
def test_any_text_stays_on_one_printable_line(text: str) -> None:
    assert one_line(text).isprintable()


def test_control_characters_and_turned_writing_are_escaped() -> None:
    assert one_line("a\nb\r\x1b[31m\u202eé\u200b\udc80") == "a\\nb\\r\\x1b[31m\\u202eé\\u200b\\udc80"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0025, "2.5 ms"),
        (0.25, "0.25 s"),
        (4.04, "4 s"),
        (12.3, "12 s"),
        (59.9, "60 s"),
        (200, "3:20 min"),
        (7500, "2:05 h"),
    ],
)
def test_durations_read_at_a_glance(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_numbers_and_dates() -> None:
    assert count(1234567.8) == "1,234,568"
    assert date(0).startswith(("1970-01-01 ", "1969-12-31 "))

from __future__ import annotations

import io
import os
import pty

import pytest

from asyncworker.cli.command import Call
from asyncworker.cli.table import show_table
from asyncworker.settings import load

ROWS = [("UA\n\x1b[31m", 4637, 8.326167, None), ("redis://u:hunter2@h", 5, 1.0, True)]


def test_in_a_pipe_columns_are_plain_text_in_line() -> None:
    out = io.StringIO()
    show_table(Call(load({}, {}), out, io.StringIO()), ("carrier", "flights", "mean", "x"), ROWS, "Title")
    assert out.getvalue().splitlines() == [
        "Title",
        "carrier          flights     mean  x",
        "UA\\n\\x1b[31m       4,637  8.32617",
        "redis://u:***@h        5        1  true",
    ]


def test_a_table_without_rows_shows_its_columns() -> None:
    out = io.StringIO()
    show_table(Call(load({}, {}), out, io.StringIO()), ("a", "b"), [])
    assert out.getvalue() == "a  b\n"


def test_a_list_of_values_has_no_header() -> None:
    out = io.StringIO()
    show_table(Call(load({}, {}), out, io.StringIO()), ("", ""), [("valid", 5)])
    assert out.getvalue() == "valid  5\n"


def test_on_a_terminal_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w", encoding="utf-8") as stream:
        show_table(Call(load({}, {}), stream, stream), ("carrier", "flights", "mean", "x"), ROWS, "Title")
        shown = os.read(leader, 100_000).decode()
    os.close(leader)
    assert "──" in shown
    assert "4,637" in shown
    assert "hunter2" not in shown
    assert "[31m" in shown
    assert "\x1b[31m" not in shown

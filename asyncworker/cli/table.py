"""Tables: drawn with `rich` on a terminal, columns of plain text in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, TypeAlias

from asyncworker.cli.command import Call
from asyncworker.cli.line import one_line
from asyncworker.secret import mask_text

Rows: TypeAlias = Sequence[Sequence[object]]


def show_table(
    call: Call,
    columns: Sequence[str],
    rows: Rows,
    title: str = "",
    styles: Sequence[str] = (),
) -> None:
    """Print *rows* on standard output. Numbers stand right, texts left; every cell stays on one line.

    Args:
        styles: of each row, as `rich` calls them; only where tables are drawn.
    """
    if call.drawn:
        _console(call).print(_drawn(columns, rows, title, styles))
        return
    cells, right = _cells(columns, rows)
    if title:
        call.show(title)
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for line in (columns, *cells) if any(columns) else cells:
        padded = (
            text.rjust(width) if at_right else text.ljust(width)
            for text, width, at_right in zip(line, widths, right, strict=True)
        )
        call.show("  ".join(padded).rstrip())


@contextmanager
def live_tables(call: Call) -> Iterator[Callable[[Sequence[tuple[Sequence[str], Rows]]], None]]:
    """Give a function that draws tables (columns and rows) on the terminal in place of those it drew before."""
    from rich.console import Group  # noqa: PLC0415 - slow to import, and most calls draw nothing
    from rich.live import Live  # noqa: PLC0415 - as above

    with Live(console=_console(call), auto_refresh=False) as live:
        yield lambda tables: live.update(Group(*(_drawn(*one, "", ()) for one in tables)), refresh=True)


def _cells(columns: Sequence[str], rows: Rows) -> tuple[list[list[str]], list[bool]]:
    """Return the texts of all cells, and which columns stand right."""
    right = [bool(rows) and all(isinstance(row[at], (int, float)) for row in rows) for at in range(len(columns))]
    return [[_cell(value) for value in row] for row in rows], right


def _cell(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.6g}" if isinstance(value, float) else one_line(mask_text(str(value)))


def _console(call: Call) -> Any:
    from rich.console import Console  # noqa: PLC0415 - slow to import, and most calls draw nothing

    return Console(file=call.out, no_color=not call.colour)


def _drawn(columns: Sequence[str], rows: Rows, title: str, styles: Sequence[str]) -> Any:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - slow to import, and most calls draw nothing
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    cells, right = _cells(columns, rows)
    table = Table(
        box=SIMPLE_HEAD,
        show_header=any(columns),
        title=Text(title) if title else None,
        title_justify="left",
        pad_edge=False,
    )
    for name, at_right in zip(columns, right, strict=True):
        table.add_column(name, justify="right" if at_right else "left", overflow="fold")
    for row, style in zip_longest(cells, styles, fillvalue=""):
        table.add_row(*map(Text, row), style=str(style))
    return table

"""What a job was asked for, checked before there is one. Nothing is touched here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from asyncworker.errors import BadParameters, UnknownName
from asyncworker.mapreduce.dataset import is_postgresql, open_results, open_sink
from asyncworker.mapreduce.sources.source import Source


def check_columns(source: Source, fields: Sequence[str]) -> None:
    """Refuse parameters that name a column which no item has."""
    for field in fields:
        if source.columns is not None and field not in source.columns:
            raise UnknownName(f"column of {source.label}:", field, source.columns)


def places(source: str, to: str | None, database: str | None) -> dict[str, str]:
    """Return where rows and the result row go, as a worker elsewhere must name it; forms are checked, nothing is touched.

    A PostgreSQL URL without a table or dataset to hold rows is meant for the result row.
    """
    found = {"results": database or source} if database or is_postgresql(source) else {}
    if to is not None:
        if is_postgresql(to) and not parse_qs(urlsplit(to).query).keys() & {"table", "dataset"}:
            found["results"] = to
        else:
            found["to"] = place(to)
    if "results" in found:
        open_results(found["results"])
    return found


def place(to: str) -> str:
    """Return a sink's URL as another process must name it; its form is checked."""
    url = to if "://" in to else str(Path(to).absolute())
    open_sink(url)
    return url


def check(
    partition_size: Any,
    max_failures: float | None,
    ahead: Any,
    in_flight: int | None,
    item_attempts: int,
    partition_attempts: int | None,
    fan_in: int | None,
    reducers: int | None,
) -> None:
    for name, value in (
        ("partition_size", partition_size),
        ("ahead", ahead),
        ("in_flight", in_flight),
        ("item_attempts", item_attempts),
        ("partition_attempts", partition_attempts),
        ("reducers", reducers),
    ):
        if value is not None and value != "auto" and not callable(value) and (type(value) is not int or value < 1):
            raise BadParameters(f"{name} must be a whole number from 1 on, not {value!r}")
    if fan_in is not None and (type(fan_in) is not int or fan_in < 2):
        raise BadParameters(f"fan_in must be a whole number from 2 on, not {fan_in!r}")
    if max_failures is None:
        return
    count = type(max_failures) is int and max_failures >= 0
    if not count and not (type(max_failures) is float and 0 <= max_failures <= 1):
        raise BadParameters(f"max_failures must be a count (0 or more) or a share (0.0 to 1.0), not {max_failures!r}")

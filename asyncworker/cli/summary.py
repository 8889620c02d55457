"""The summary of a map/reduce job, for people: a few lines, then its result as tables."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from asyncworker.cli.command import Call
from asyncworker.cli.line import count, duration
from asyncworker.cli.table import show_table
from asyncworker.errors import JobFailed
from asyncworker.mapreduce.job import Summary

ROWS = 20
"""Rows of a table that are shown; --json has all."""
CELL_CHARS = 60


class Table(NamedTuple):
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def show_summary(call: Call, summary: Mapping[str, Any]) -> None:
    """Print a summary: the one JSON document with --json, else tables."""
    if call.settings.json:
        call.document(summary)
        return
    stats = summary["processing_stats"]
    show_table(
        call,
        ("job", summary["job_id"]),
        [
            ("function", summary["processing_function"]),
            ("dataset", summary["dataset_id"]),
            ("items", count(summary["total_processed"])),
            ("failed items", count(summary["total_failed"])),
            ("success rate", f"{summary['success_rate']:.2f} %"),
            ("partitions", count(summary["partitions_processed"])),
            ("time", duration(stats["wall_time"])),
            ("items/s", count(stats["average_items_per_second"])),
        ],
    )
    failures = [(item["key"], item["error_type"], item["error_text"]) for item in summary["failures"]]
    found = [*tables("result", summary["final_result"])]
    if failures:
        found.append(Table("failed items", ("key", "error", "text"), failures))
    for table in found:
        call.show("")
        show_table(call, table.columns, table.rows[:ROWS], table.title.replace("_", " "))
        if len(table.rows) > ROWS:
            call.show(f"… and {count(len(table.rows) - ROWS)} more; --json prints all")


async def show_outcome(call: Call, summary: Awaitable[Summary]) -> None:
    """Print a job's summary; of a failed job what did succeed, before its error goes on."""
    try:
        show_summary(call, await summary)
    except JobFailed as exc:
        if isinstance(exc.partial, Mapping):
            show_summary(call, exc.partial)
        raise


def tables(title: str, value: Any) -> Iterator[Table]:
    """Yield plain JSON values as tables: its scalars first, then one for each list or group within."""
    if isinstance(value, Mapping) and value and all(isinstance(of, Mapping) and of for of in value.values()):
        yield _records(title, [{"": name, **_flat(record)} for name, record in _leaves(value)])
    elif isinstance(value, Mapping):
        inner = {name: of for name, of in value.items() if isinstance(of, (Mapping, list)) and of}
        plain = [(name.replace("_", " "), cell(of)) for name, of in value.items() if name not in inner]
        if plain:
            yield Table(title, ("", ""), plain)
        for name, of in inner.items():
            yield from tables(name, of)
    elif isinstance(value, list) and value and all(isinstance(of, Mapping) for of in value):
        yield _records(title, [_flat(record) for record in value])
    elif isinstance(value, list):
        yield Table(title, ("value",), [(cell(of),) for of in value])
    elif value is not None:
        yield Table(title, ("value",), [(cell(value),)])


def cell(value: Any) -> Any:
    """Return what stands in a table for a value: numbers and texts as they are, all else as short JSON."""
    if not isinstance(value, (Mapping, list)):
        return value
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= CELL_CHARS else text[: CELL_CHARS - 1] + "…"


def _records(title: str, records: Sequence[Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(name for record in records for name in record))
    return Table(title, columns, [[cell(record.get(name)) for name in columns] for record in records])


def _leaves(groups: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the innermost groups of nested ones, each under its path."""
    for name, group in groups.items():
        if group and all(isinstance(of, Mapping) and of for of in group.values()):
            for path, leaf in _leaves(group):
                yield f"{name} {path}", leaf
        else:
            yield name, group


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the fields of a ``key`` within it beside the others."""
    key = record.get("key")
    rest = {name: value for name, value in record.items() if name != "key"}
    return {**key, **rest} if isinstance(key, Mapping) else dict(record)

"""What records would weigh in another form: built and weighed, not guessed.

Tables of sizes are out of date with each Python, and `sys.getsizeof` knows neither shared keys nor the collector's
own header. So some records are built again, as they are and in each other form, with their own values.
"""

from __future__ import annotations

import keyword
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from asyncworker.tune.census import type_name

ENOUGH = 0.2
"""Less saved is not worth a change."""
FEWEST = 20
MOST = 500
POINTER = 8
ATOMS = (int, float, complex, str, bytes, bool, type(None))


class Suggestion(msgspec.Struct, frozen=True):
    """``now_bytes`` and ``then_bytes`` are measured for one record, its values not counted; ``records`` were weighed."""

    type: str
    form: str
    now_bytes: float
    then_bytes: float
    records: int
    advice: str

    @property
    def saved(self) -> float:
        """The share saved, 0..1."""
        return 1 - self.then_bytes / self.now_bytes


Build = Callable[[Sequence[Any]], object]


def suggest(records: Sequence[object]) -> Suggestion | None:
    """Return the lightest other form of records of one type, or None when none saves enough, or it cannot be told.

    Args:
        records: dictionaries with the same keys, or instances of one class with the same attributes; at least 20.

    Cost: some milliseconds; tracemalloc is on meanwhile.
    """
    records = records[:MOST]
    if len(records) < FEWEST or len({type(record) for record in records}) > 1:
        return None
    kind = type(records[0])
    names = _names(records[0])
    if not names or (rows := _rows(records, names)) is None:
        return None
    acyclic = all(type(value) in ATOMS for row in rows for value in row)
    now = weigh(rows, _as_dict(names) if kind is dict else _as_instance(kind, names))
    forms: list[tuple[str, Build]] = [("a class with __slots__", _as_slots(names))]
    if acyclic:  # without the collector, a cycle would never go
        made = msgspec.defstruct("Record", names, gc=False)
        forms.append(("a msgspec.Struct with gc=False", lambda row: made(*row)))
    then, form = min((weigh(rows, build), form) for form, build in forms)
    if now <= 0 or then > (1 - ENOUGH) * now:
        return None
    told = f"Weighed over {len(records)} of them: {now:.0f} bytes each as they are, {then:.0f} as {form}."
    if kind is not dict:
        told += " Only if nothing adds attributes to them or refers to them weakly."
    return Suggestion(type_name(kind), form, now, then, len(records), told)


def weigh(rows: Sequence[Sequence[Any]], build: Build) -> float:
    """Return the bytes that one record takes when it is built from a row of values; the lowest of three tries."""
    ours = not tracemalloc.is_tracing()
    if ours:
        tracemalloc.start(1)
    try:
        tries = []
        for _ in range(3):
            before = tracemalloc.get_traced_memory()[0]
            built = [build(row) for row in rows]
            tries.append((tracemalloc.get_traced_memory()[0] - before) / len(built) - POINTER)
            del built
        return min(tries)
    finally:
        if ours:
            tracemalloc.stop()


def _names(record: object) -> list[str]:
    if isinstance(record, dict):
        fit = all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in record)
        return list(record) if type(record) is dict and fit else []
    try:
        object.__new__(type(record))
    except TypeError:  # a builtin's own form, which its attributes do not make
        return []
    return list(getattr(record, "__dict__", ()))


def _rows(records: Iterable[object], names: Sequence[str]) -> list[tuple[Any, ...]] | None:
    rows = []
    for record in records:
        if isinstance(record, dict):
            if record.keys() != set(names):
                return None
            rows.append(tuple(record[name] for name in names))
            continue
        try:
            rows.append(tuple(object.__getattribute__(record, name) for name in names))
        except AttributeError:
            return None
    return rows


def _as_dict(names: Sequence[str]) -> Build:
    return lambda row: dict(zip(names, row, strict=True))


def _as_instance(kind: type, names: Sequence[str]) -> Build:
    def build(row: Sequence[Any]) -> object:
        made: object = object.__new__(kind)
        for name, value in zip(names, row, strict=True):
            object.__setattr__(made, name, value)
        return made

    return build


def _as_slots(names: Sequence[str]) -> Build:
    return _as_instance(type("Record", (), {"__slots__": tuple(names)}), names)

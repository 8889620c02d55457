"""Count, add up and compare numbers, group by group.

Parameters: ``{"aggregation_config": {"group_by": ["carrier"], "aggregate_fields": {"dep_delay": ["avg", "max"]}}}``.

The result has one entry a group, in the order of their keys: ``{"key": {"carrier": "UA"}, "items": 4637,
"dep_delay_avg": 8.3, "dep_delay_max": 385}``. Groups are told apart by value and type, so 1, 1.0, ``"1"``, true,
null and missing are six; a missing field (absent, or ``""``) is absent from the key. They are sorted field by
field: missing, null, false, true, numbers, text. Without ``group_by`` all items are one group.

Missing values (also null) are skipped: ``count`` counts the others, of whatever type; of no value at all, the sum
is 0 and avg, min and max are null. For all but ``count`` a value must be a number (`asyncworker.mapreduce.value`
reads text in full), or the item fails, with all its fields. Sums and averages are exact, and rounded once, at the
end: any cut and any order of merging gives the same result to the last bit. Integers stay integers; beyond 64
bits, which no wire of ours carries, they are given as their digits.

In memory a group takes about 0.5 kB a field, and up to 1 kB more where doubles are added up. Of very many groups each
worker holds a share only (`Keyed`); name with ``to`` where so many rows go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from asyncworker.mapreduce.functions.function import Function, Work
from asyncworker.mapreduce.numeric import add, join, keep, lower, mean_of, total_of, unkept, upper, zero
from asyncworker.mapreduce.schema import check
from asyncworker.mapreduce.value import kind, missing, number

AGGREGATES = ["count", "sum", "avg", "min", "max"]
_AGGREGATE = {"type": "string", "enum": AGGREGATES}
_SCHEMA = {
    "type": "object",
    "examples": [{"aggregation_config": {"group_by": ["carrier"], "aggregate_fields": {"dep_delay": ["avg", "max"]}}}],
    "required": ["aggregation_config"],
    "additionalProperties": False,
    "properties": {
        "aggregation_config": {
            "type": "object",
            "additionalProperties": False,
            "minProperties": 1,
            "properties": {
                "group_by": {
                    "type": "array",
                    "items": {"type": "string"},
                    "default": [],
                    "description": "the fields whose values make a group",
                },
                "aggregate_fields": {
                    "type": "object",
                    "additionalProperties": {
                        "anyOf": [_AGGREGATE, {"type": "array", "items": _AGGREGATE, "minItems": 1}]
                    },
                    "default": {},
                    "description": "for each field, one aggregate or a list of them",
                },
            },
        }
    },
}


class DataAggregation:
    name = "data_aggregation"
    summary = "Count, sum, average, minimum and maximum of fields, by group."
    schema: Mapping[str, Any] = _SCHEMA

    def prepare(self, params: Mapping[str, Any]) -> Work:
        check(self.schema, params)
        config = params["aggregation_config"]
        fields = config.get("aggregate_fields", {})
        wanted = {field: [given] if isinstance(given, str) else list(given) for field, given in fields.items()}
        return _Aggregation(list(dict.fromkeys(config.get("group_by", ()))), wanted)


FUNCTION: Function = DataAggregation()

Mapped = tuple[str, list[int | float | None]]
"""The group's key, and each field's number; None where it is missing, 0 where it is only counted."""

_encode = msgspec.json.Encoder().encode
_ABSENT: list[Any] = []  # stands for a missing field in a key: no group has a list for a value


class _Aggregation:
    """The accumulator: ``{key: [items, [[count, total, low, high] of each field]]}``, keys as lists in JSON."""

    def __init__(self, group_by: list[str], wanted: dict[str, list[str]]) -> None:
        self.fields = (*group_by, *wanted)
        self._group_by = group_by
        self._wanted = wanted
        self._fields = [(field, set(given) != {"count"}) for field, given in wanted.items()]
        self._steps = [
            (bool({"sum", "avg"} & set(given)), bool({"min", "max"} & set(given))) for given in wanted.values()
        ]

    def initial(self) -> dict[str, Any]:
        return {}

    def map(self, item: Any) -> Mapped:
        if not isinstance(item, dict):
            raise ValueError(f"the item is {kind(item)}, not an object")  # noqa: TRY004 - the data is wrong, not the code
        get = item.get
        values: list[int | float | None] = []
        for field, numeric in self._fields:
            value = get(field)
            if not value and missing(value):
                value = None
            elif not numeric:
                value = 0
            elif type(value) is not int and (value := number(value)) is None:
                raise ValueError(f"field {field!r} is {kind(item[field])}, and no number")
            values.append(value)
        return self._key(item), values

    def _key(self, item: dict[str, Any]) -> str:
        parts: list[Any] = []
        for field in self._group_by:
            value = item.get(field, "")
            if type(value) is str:
                parts.append(value or _ABSENT)
            elif value is None or type(value) is bool or type(value) is int:
                parts.append(value)
            elif type(value) is float and number(value) is not None:
                parts.append(value + 0.0)  # -0.0 is 0.0
            else:
                raise ValueError(f"field {field!r} is {kind(value)}, which makes no group")
        return _encode(parts).decode()

    def fold(self, acc: dict[str, Any], value: Mapped) -> dict[str, Any]:
        key, values = value
        group = acc.get(key)
        if group is None:
            group = acc[key] = [0, [[0, zero(), None, None] for _ in values]]
        group[0] += 1
        for found, state, (adds, compares) in zip(values, group[1], self._steps):  # noqa: B905 - strict takes a sixth of it all
            if found is None:
                continue
            state[0] += 1
            if adds:
                add(state[1], found)
            if compares:
                state[2] = lower(state[2], found)
                state[3] = upper(state[3], found)
        return acc

    def merge(self, left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
        for key, group in right.items():
            mine = left.setdefault(key, group)
            if mine is group:
                continue
            mine[0] += group[0]
            for state, other in zip(mine[1], group[1], strict=True):
                state[0] += other[0]
                join(state[1], other[1])
                if (low := unkept(other[2])) is not None:
                    state[2] = lower(state[2], low)
                if (high := unkept(other[3])) is not None:
                    state[3] = upper(state[3], high)
        return left

    def finish(self, acc: dict[str, Any], failed: int = 0) -> dict[str, Any]:
        return self.whole([self.row(key, acc[key]) for key in sorted(acc, key=self.order)])

    def whole(self, rows: list[Any]) -> dict[str, Any]:
        return {"groups": rows}

    def order(self, key: str) -> list[tuple[int, Any]]:
        return [_rank(part) for part in msgspec.json.decode(key)]

    def row(self, key: str, value: list[Any]) -> dict[str, Any]:
        items, states = value
        parts = zip(self._group_by, msgspec.json.decode(key), strict=True)
        known = {field: keep(part) if type(part) is int else part for field, part in parts if part != _ABSENT}
        row: dict[str, Any] = {"key": known, "items": items}
        for (field, given), state in zip(self._wanted.items(), states, strict=True):
            row |= {f"{field}_{aggregate}": _RESULTS[aggregate](*state) for aggregate in given}
        return row


_RESULTS: dict[str, Callable[[int, list[Any], Any, Any], Any]] = {
    "count": lambda count, _total, _low, _high: count,
    "sum": lambda _count, total, _low, _high: total_of(total),
    "avg": lambda count, total, _low, _high: mean_of(total, count) if count else None,
    "min": lambda _count, _total, low, _high: low,
    "max": lambda _count, _total, _low, high: high,
}


def _rank(part: Any) -> tuple[int, Any]:
    """Return what sorts a part of a key among parts of any type."""
    match part:
        case []:
            return 0, 0
        case None:
            return 1, 0
        case bool():
            return 2, part
        case int() | float():
            return 3, (part, type(part) is float)
        case _:
            return 4, part

"""Filter items, clean their fields, calculate new ones, rename and convert.

Parameters: ``{"transformations": {"filter": "dep_delay > 0", "normalize_fields": ["name"], "calculated_fields":
{"speed": "distance / air_time * 60"}, "field_mappings": {"dest": "to"}, "type_conversions": {"distance": "int"},
"keep_fields": ["to", "speed"]}}``, done in this order, each on what the one before left.

Normalising makes text lower case, without space around it. Expressions are those of
`asyncworker.mapreduce.expression`; each sees the fields calculated before it. Fields are renamed all at once, so two
may change names; conversions and what is kept go by the new names. Conversions are those of
`asyncworker.mapreduce.conversion`. A field that cannot be calculated or converted is null and counted as failed, with
the first three examples; with ``"on_error": "fail"`` its item fails. An item that is no object fails.

The result has the rows in order, ``transformed_items``, and ``transformation_summary``: how many items came and
went, and for each step and field how often it was done, the field missing, or failed. Rows are many: name a file
or table for them (``to=``), and they pass through in bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from asyncworker.errors import BadParameters
from asyncworker.mapreduce.condition import CONDITION, compile_condition
from asyncworker.mapreduce.conversion import CONVERSIONS
from asyncworker.mapreduce.expression import MAX_CHARS, Expression, compile_expression
from asyncworker.mapreduce.functions.function import Function, Work
from asyncworker.mapreduce.row import pack_row, unpack_rows
from asyncworker.mapreduce.schema import check
from asyncworker.mapreduce.value import brief, kind, missing

EXAMPLES = 3
_FIELDS = {"type": "array", "items": {"type": "string"}}
_SCHEMA = {
    "type": "object",
    "examples": [
        {
            "transformations": {
                "filter": {"carrier": {"in": ["UA", "AA"]}},
                "normalize_fields": ["tailnum"],
                "calculated_fields": {"speed": "round(distance / air_time * 60, 1)"},
                "field_mappings": {"dest": "destination"},
                "type_conversions": {"distance": "int"},
                "keep_fields": ["carrier", "tailnum", "destination", "distance", "speed"],
            }
        }
    ],
    "required": ["transformations"],
    "additionalProperties": False,
    "properties": {
        "transformations": {
            "type": "object",
            "additionalProperties": False,
            "minProperties": 1,
            "properties": {
                "filter": {
                    **CONDITION,
                    "description": "what items must meet to be kept: an expression, or tests by field",
                },
                "normalize_fields": {**_FIELDS, "description": "fields whose text becomes lower case, trimmed"},
                "calculated_fields": {
                    "type": "object",
                    "additionalProperties": {"type": "string", "minLength": 1, "maxLength": MAX_CHARS},
                    "description": "an expression for each new field",
                },
                "field_mappings": {
                    "type": "object",
                    "additionalProperties": {"type": "string"},
                    "description": "the new name of each field that is renamed",
                },
                "type_conversions": {
                    "type": "object",
                    "additionalProperties": {"type": "string", "enum": list(CONVERSIONS)},
                    "description": "the type that each field becomes",
                },
                "keep_fields": {**_FIELDS, "minItems": 1, "description": "the only fields to keep, in this order"},
                "on_error": {
                    "type": "string",
                    "enum": ["null", "fail"],
                    "default": "null",
                    "description": "what becomes of a field that cannot be calculated or converted: null, or its item fails",
                },
            },
        }
    },
}


class DataTransformation:
    name = "data_transformation"
    summary = "Filter items, clean, calculate, rename and convert their fields."
    schema: Mapping[str, Any] = _SCHEMA

    def prepare(self, params: Mapping[str, Any]) -> Work:
        check(self.schema, params)
        return _Transformation(params["transformations"])


FUNCTION: Function = DataTransformation()


class _Step(NamedTuple):
    """One field of one step: its names in the summary, and what it does to a row, in place."""

    name: str
    field: str
    apply: Callable[[dict[str, Any]], int]
    """Returns `DONE`, `MISSING`, or `ABSENT` where there is nothing to do; raises ValueError where it fails, with a text that tells no value."""


DONE, MISSING, FAILED, ABSENT = range(4)
Mapped = tuple[bytes | None, list[tuple[int, Any]]]
"""A packed row, None where it was filtered out; and what came of each step, with an example where it failed."""


class _Transformation:
    """The accumulator: ``[items, kept, [rows], [[done, missing, failed, examples] of each step]]``."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        where = "transformations"
        self._meets = compile_condition(config["filter"], f"{where}.filter") if "filter" in config else None
        self._fails = config.get("on_error") == "fail"
        self._keep: list[str] | None = config.get("keep_fields")
        self._renamed: dict[str, str] = dict(config.get("field_mappings", {}))
        if twice := {new for new in self._renamed.values() if list(self._renamed.values()).count(new) > 1}:
            raise BadParameters(f"{where}.field_mappings: two fields become {min(twice)!r}")
        normalized = [_normalizing(field) for field in dict.fromkeys(config.get("normalize_fields", ()))]
        asked = [*(self._meets.fields if self._meets else ()), *(step.field for step in normalized)]
        made: list[str] = []
        calculated: list[_Step] = []
        for field, text in config.get("calculated_fields", {}).items():
            expression = compile_expression(text, f"{where}.calculated_fields.{field}")
            asked += [name for name in expression.fields if name not in made]
            made.append(field)
            calculated.append(_calculating(field, expression))
        asked += [field for field in self._renamed if field not in made]
        made += self._renamed.values()
        conversions: Mapping[str, str] = config.get("type_conversions", {})
        asked += [field for field in (*conversions, *(self._keep or ())) if field not in made]
        self.fields = tuple(dict.fromkeys(asked))
        self._before = normalized + calculated
        self._after = [_converting(field, CONVERSIONS[name]) for field, name in conversions.items()]
        self._steps = self._before + self._after

    def initial(self) -> list[Any]:
        return [0, 0, [], [[0, 0, 0, []] for _ in self._steps]]

    def map(self, item: Any) -> Mapped:
        if not isinstance(item, dict):
            raise ValueError(f"the item is {kind(item)}, not an object")  # noqa: TRY004 - the data is wrong, not the code
        if self._meets and not self._meets(item):
            return None, []
        row = dict(item)
        notes = [self._take(step, row) for step in self._before]
        if self._renamed:
            row = self._rename(row)
        notes += [self._take(step, row) for step in self._after]
        if self._keep is not None:
            row = {field: row.get(field) for field in self._keep}
        return pack_row(row), notes

    def _take(self, step: _Step, row: dict[str, Any]) -> tuple[int, Any]:
        try:
            return step.apply(row), None
        except ValueError as exc:
            if self._fails:
                raise ValueError(f"field {step.field!r}: {exc}") from None
            shown = {"item_id": row.get("id"), "value": row.get(step.field)}
            row[step.field] = None
            known = {name: brief(value) for name, value in shown.items() if not missing(value)}
            return FAILED, {**known, "error": str(exc)}

    def _rename(self, row: dict[str, Any]) -> dict[str, Any]:
        """Rename all at once; a new name takes the place of an old field that had it."""
        names = {field: name for field, name in self._renamed.items() if field in row}
        taken = set(names.values())
        return {names.get(field, field): value for field, value in row.items() if field in names or field not in taken}

    def fold(self, acc: list[Any], value: Mapped) -> list[Any]:
        acc[0] += 1
        row, notes = value
        if row is not None:
            acc[1] += 1
            acc[2].append(row)
        for counts, (outcome, example) in zip(acc[3], notes, strict=False):
            if outcome != ABSENT:
                counts[outcome] += 1
                if example is not None and len(counts[3]) < EXAMPLES:
                    counts[3].append(example)
        return acc

    def merge(self, left: list[Any], right: list[Any]) -> list[Any]:
        left[2].extend(right[2])
        for mine, theirs in zip(left[3], right[3], strict=True):
            mine[:] = [one + other for one, other in zip(mine, theirs, strict=True)]
            del mine[3][EXAMPLES:]
        return [left[0] + right[0], left[1] + right[1], *left[2:]]

    def take_rows(self, acc: list[Any]) -> list[Any]:
        rows, acc[2] = acc[2], []
        return unpack_rows(rows)

    def finish(self, acc: list[Any], failed: int = 0) -> dict[str, Any]:
        items, kept, rows, counts = acc
        steps: dict[str, dict[str, Any]] = {}
        for step, (done, absent, wrong, examples) in zip(self._steps, counts, strict=True):
            told = {"done": done, "missing": absent, "failed": wrong}
            steps.setdefault(step.name, {})[step.field] = told | ({"examples": examples} if examples else {})
        summary = {"items": items, "kept": kept, "filtered_out": items - kept, "failed": failed, "steps": steps}
        transformed = {"transformed_items": unpack_rows(rows)} if len(rows) == kept else {}  # else they were taken
        return {**transformed, "transformation_summary": summary}


def _normalizing(field: str) -> _Step:
    def normalize(row: dict[str, Any]) -> int:
        value = row.get(field)
        if missing(value):
            return MISSING
        if type(value) is not str:
            return ABSENT
        row[field] = value.lower().strip()
        return DONE

    return _Step("normalized", field, normalize)


def _calculating(field: str, expression: Expression) -> _Step:
    def calculate(row: dict[str, Any]) -> int:
        value = row[field] = expression(row)
        return MISSING if value is None else DONE

    return _Step("calculated", field, calculate)


def _converting(field: str, convert: Callable[[Any], Any]) -> _Step:
    def converted(row: dict[str, Any]) -> int:
        value = row.get(field)
        if missing(value):
            if field in row:
                row[field] = None
            return MISSING
        row[field] = convert(value)
        return DONE

    return _Step("converted", field, converted)

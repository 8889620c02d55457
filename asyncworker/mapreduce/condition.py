"""Conditions that rules are made of: an expression, or tests of fields that must all hold.

``"dep_delay > 60 and carrier == 'UA'"`` and ``{"dep_delay": {"min": 60}, "carrier": {"in": ["UA", "AA"]}}`` are two.
A test of a field that is missing does not hold, but for ``missing``; ``min`` and ``max`` are included, and what is no
number is in no range; ``equals`` and ``in`` take text that reads as a number for it; patterns match in full. An item
for which an expression has no value fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from asyncworker.errors import BadParameters
from asyncworker.mapreduce.expression import MAX_CHARS, compile_expression, equal
from asyncworker.mapreduce.pattern import MAX_PATTERN_BYTES, value_match
from asyncworker.mapreduce.value import LARGEST, missing, number

TESTS = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {
            "equals": {"description": "the value"},
            "in": {"type": "array", "minItems": 1, "description": "the values of which it is one"},
            "min": {"type": "number", "description": "the least number"},
            "max": {"type": "number", "description": "the greatest number"},
            "pattern": {"type": "string", "maxLength": MAX_PATTERN_BYTES, "description": "a pattern of RE2"},
            "missing": {"type": "boolean", "description": "whether it is missing"},
        },
    },
    "description": "for each field, tests that must all hold",
}
CONDITION = {
    "anyOf": [{"type": "string", "minLength": 1, "maxLength": MAX_CHARS, "description": "an expression"}, TESTS]
}
"""The JSON Schema of a condition."""

Holds = Callable[[Any], bool]


class Condition:
    """A compiled condition; call it with an item's fields. ``fields`` are those it asks for."""

    def __init__(self, fields: tuple[str, ...], holds: Callable[[Mapping[str, Any]], bool]) -> None:
        self.fields = fields
        self._holds = holds

    def __call__(self, item: Mapping[str, Any]) -> bool:
        """Return whether it holds. Raises ExpressionError where an expression has no value."""
        return self._holds(item)


def compile_condition(given: str | Mapping[str, Mapping[str, Any]], where: str) -> Condition:
    """Compile what fits `CONDITION`.

    Raises:
        BadParameters: says what is wrong at *where*.
    """
    if isinstance(given, str):
        expression = compile_expression(given, where)
        return Condition(expression.fields, lambda item: bool(expression(item)))
    tests = [(field, holds) for field, asked in given.items() for holds in _tests(asked, f"{where}.{field}")]
    return Condition(tuple(given), lambda item: all(holds(item.get(field)) for field, holds in tests))


def _tests(asked: Mapping[str, Any], where: str) -> Iterator[Holds]:
    if "missing" in asked:
        wanted = asked["missing"]
        yield lambda value: missing(value) is wanted
    if "equals" in asked:
        same = asked["equals"]
        yield lambda value: not missing(value) and equal(value, same)
    if "in" in asked:
        among = asked["in"]
        yield lambda value: not missing(value) and any(equal(value, one) for one in among)
    if "min" in asked or "max" in asked:
        yield _between(asked.get("min", -LARGEST), asked.get("max", LARGEST), where)
    if "pattern" in asked:
        matches = value_match(asked["pattern"], f"{where}.pattern")
        yield lambda value: not missing(value) and matches(value)


def _between(low: float, high: float, where: str) -> Holds:
    if low > high:
        raise BadParameters(f"{where}: min is greater than max")
    return lambda value: (found := number(value)) is not None and low <= found <= high

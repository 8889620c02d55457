"""Which items keep the rules, and which rule is broken where.

Parameters: ``{"validation_rules": {"required_fields": ["email"], "type_validations": {"age": "int"},
"range_validations": {"age": {"min": 0, "max": 120}}, "pattern_validations": {"email": "[^@]+@[^@]+"}}}``.

A required field is there and not missing (null, ``""``); all other rules skip what is missing. Types and numbers
are those of `asyncworker.mapreduce.value`, which reads text in full; ``"strict_types": true`` takes text for text
alone. Ranges include their ends, and what is no number breaks them. A pattern matches text in full, and a whole
number by its digits; nothing else matches. An item that is no object cannot be judged: it fails.

The result counts items (``valid_count``, ``invalid_count``, ``error_count`` = failed; together all) and, in
``validation_summary``, broken rules by rule and field, with the first three examples of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from math import isfinite
from operator import attrgetter, itemgetter
from typing import Annotated, Any, NamedTuple

from msgspec import UNSET, Meta, UnsetType

from asyncworker.errors import BadParameters
from asyncworker.mapreduce.functions.function import Function, Work
from asyncworker.mapreduce.pattern import MAX_PATTERN_BYTES, mismatches, value_match
from asyncworker.mapreduce.schema import check
from asyncworker.mapreduce.sources.source import Clean, Slim
from asyncworker.mapreduce.value import LARGEST, PLAIN, TYPES, brief, kind, missing, number

EXAMPLES = 3
NUMBERS = PLAIN["number"]
NOTHING = frozenset({type(None), UnsetType})
TEXT = Annotated[str, Meta(min_length=1)]
CLEAN: dict[str, Any] = {
    "int": int,
    "float": int | float,
    "number": int | float,
    "str": TEXT,
    "bool": bool,
    "list": list,
    "dict": dict,
}
"""What nearly all values are, where a rule asks for a type: never missing, and of this type without a further look."""
SOMETHING: Any = TEXT | int | float | bool | list | dict
"""What nearly all values are where no rule asks for a type."""
_SCHEMA = {
    "type": "object",
    "examples": [
        {
            "validation_rules": {
                "required_fields": ["email"],
                "type_validations": {"age": "int"},
                "range_validations": {"age": {"min": 0, "max": 120}},
                "pattern_validations": {"email": "[^@]+@[^@]+"},
            }
        }
    ],
    "required": ["validation_rules"],
    "additionalProperties": False,
    "properties": {
        "validation_rules": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "required_fields": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "fields that must be there and neither null nor empty text",
                },
                "type_validations": {
                    "type": "object",
                    "additionalProperties": {"type": "string", "enum": list(TYPES)},
                    "description": "the type of each field, by name",
                },
                "strict_types": {
                    "type": "boolean",
                    "default": False,
                    "description": "whether text is text alone, even where it reads as a number",
                },
                "range_validations": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "additionalProperties": False,
                        "minProperties": 1,
                        "properties": {"min": {"type": "number"}, "max": {"type": "number"}},
                    },
                    "description": "the least and the greatest number of each field, both included",
                },
                "pattern_validations": {
                    "type": "object",
                    "additionalProperties": {"type": "string", "maxLength": MAX_PATTERN_BYTES},
                    "description": "a pattern of RE2 for each field, which it must match in full",
                },
            },
        }
    },
}


class DataValidation:
    name = "data_validation"
    summary = "Count valid and invalid items, and broken rules by rule and field."
    schema: Mapping[str, Any] = _SCHEMA

    def prepare(self, params: Mapping[str, Any]) -> Work:
        check(self.schema, params)
        return _Validation(_rules(params["validation_rules"]))


FUNCTION: Function = DataValidation()

Outcome = tuple[list[int], dict[str, Any]] | None
"""What an item is mapped to: None when valid, else the numbers of the rules it breaks, and itself."""


Holds = Callable[[Any], bool]
Broken = Callable[[list[Any], AbstractSet[type]], list[int]]


class _Rule(NamedTuple):
    name: str
    field: str
    expected: Any
    holds: Holds | None = None
    """Asked of a value that is not missing; None where only missing matters."""
    broken: Broken | None = None
    """Asked of many such values, of which it is given the types that they may have: the places of those that break the rule."""


class _Column(NamedTuple):
    """A field of many items: how it is read off them, and the rules for it."""

    field: str
    of_slim: Callable[[Slim], Any]
    required: list[int]
    """The rule that says so, if one does."""
    checks: list[tuple[int, Broken]]
    types: frozenset[type] | None
    """Those of clean items, where they are known."""
    left: list[tuple[int, Broken]]
    """The checks that clean items may fail."""


class _Validation:
    """The accumulator: ``[valid, invalid, [count of each rule], [examples of each rule]]``."""

    def __init__(self, rules: list[_Rule]) -> None:
        self._rules = rules
        fields = self.fields = tuple(dict.fromkeys(rule.field for rule in rules))
        self._plan = [
            (
                field,
                [index for index, rule in enumerate(rules) if rule.field == field and rule.holds is None],
                [(index, rule.holds) for index, rule in enumerate(rules) if rule.field == field and rule.holds],
            )
            for field in fields
        ]
        self.reads: dict[str, Any] = {"id": Any, **dict.fromkeys(fields, SOMETHING)}
        types = {rule.field: rule.expected for rule in rules if rule.name == "type"}
        self.reads |= {field: CLEAN[name] for field, name in types.items()}
        self._of_slim = {field: attrgetter(f"f{number}") for number, field in enumerate(self.reads)}
        self._columns = []
        for field, required, _ in self._plan:
            checks = [(at, rule.broken) for at, rule in enumerate(rules) if rule.field == field and rule.broken]
            left = [(at, broken) for at, broken in checks if rules[at].name != "type"]
            plain = PLAIN[types[field]] if field in types else None
            self._columns.append(_Column(field, self._of_slim[field], required, checks, plain, left))

    def initial(self) -> list[Any]:
        return [0, 0, [0 for _ in self._rules], [[] for _ in self._rules]]

    def map(self, item: Any) -> Outcome:
        if not isinstance(item, dict):
            raise ValueError(f"the item is {kind(item)}, not an object")  # noqa: TRY004 - the data is wrong, not the code
        broken = None
        get = item.get
        for field, required, checks in self._plan:
            value = get(field)
            if not value and missing(value):
                if required:
                    broken = [*(broken or ()), *required]
                continue
            for index, holds in checks:
                if not holds(value):
                    broken = [*(broken or ()), index]
        return None if broken is None else (broken, item)

    def fold(self, acc: list[Any], value: Outcome) -> list[Any]:
        if value is None:
            acc[0] += 1
            return acc
        acc[1] += 1
        for index in value[0]:
            self._count(acc, index, [value[1]], [0])
        return acc

    def _count(self, acc: list[Any], index: int, items: list[Any], places: list[int]) -> None:
        """Count that the items at these places, in order, break a rule."""
        acc[2][index] += len(places)
        examples, field = acc[3][index], self._rules[index].field
        for place in places:
            if len(examples) >= EXAMPLES:
                break
            if example := self._example(items[place], field):
                examples.append(example)

    def _example(self, item: Any, field: str) -> dict[str, Any]:
        """Return a field's value in few characters, and the item's ``id``; without what is missing."""
        if not isinstance(item, dict):
            item = {name: self._of_slim[name](item) for name in (field, "id")}
        shown = {"item_id": item.get("id"), "value": item.get(field)}
        return {name: brief(value) for name, value in shown.items() if value is not UNSET and not missing(value)}

    def fold_list(self, acc: list[Any], items: list[Any]) -> tuple[list[Any], Sequence[int]]:
        """Judge a field of all items at a time; leave all where one is no object."""
        kinds = set(map(type, items))
        slim = all(issubclass(kind, Slim) for kind in kinds)
        if not slim and kinds != {dict}:
            return acc, range(len(items))
        clean = all(issubclass(kind, Clean) for kind in kinds)
        invalid: set[int] = set()
        for column in self._columns:
            checks = column.left if clean else column.checks
            if clean and not checks:
                continue
            try:
                values = list(map(column.of_slim if slim else itemgetter(column.field), items))
            except KeyError:
                values = [item.get(column.field) for item in items]
            types: AbstractSet[type] = column.types if clean and column.types else set(map(type, values))
            places = None
            if not clean and (not types.isdisjoint(NOTHING) or (str in types and "" in values)):
                places = [place for place, value in enumerate(values) if value is not UNSET and not missing(value)]
                for index in column.required:
                    without = sorted(set(range(len(items))).difference(places))
                    self._count(acc, index, items, without)
                    invalid.update(without)
                values = [values[place] for place in places]
                types = set(map(type, values))
            for index, broken in checks:
                if found := broken(values, types):
                    found = found if places is None else [places[at] for at in found]
                    self._count(acc, index, items, found)
                    invalid.update(found)
        acc[0] += len(items) - len(invalid)
        acc[1] += len(invalid)
        return acc, ()

    def merge(self, left: list[Any], right: list[Any]) -> list[Any]:
        return [
            left[0] + right[0],
            left[1] + right[1],
            [one + other for one, other in zip(left[2], right[2], strict=True)],
            [(one + other)[:EXAMPLES] for one, other in zip(left[3], right[3], strict=True)],
        ]

    def finish(self, acc: list[Any], failed: int = 0) -> dict[str, Any]:
        summary: dict[str, dict[str, Any]] = {}
        for rule, count, examples in zip(self._rules, acc[2], acc[3], strict=True):
            if count:
                of_rule = summary.setdefault(rule.name, {})
                of_rule[rule.field] = {"count": count, "expected": rule.expected, "examples": examples}
        return {
            "valid_count": acc[0],
            "invalid_count": acc[1],
            "error_count": failed,
            "validation_summary": summary,
        }


def _rules(config: Mapping[str, Any]) -> list[_Rule]:
    strict = config.get("strict_types", False)
    rules = [_Rule("required", field, "a value") for field in dict.fromkeys(config.get("required_fields", ()))]
    for field, type_name in config.get("type_validations", {}).items():
        holds = TYPES[type_name]
        if strict and type_name != "str":
            holds = _strictly(holds)
        rules.append(_Rule("type", field, type_name, holds, _of_type(type_name, holds)))
    for field, span in config.get("range_validations", {}).items():
        where = f"validation_rules.range_validations.{field}"
        low, high = span.get("min", -LARGEST), span.get("max", LARGEST)
        if low > high:
            raise BadParameters(f"{where}: min is greater than max")
        rules.append(_Rule("range", field, dict(span), *_within(low, high)))
    for field, pattern in config.get("pattern_validations", {}).items():
        where = f"validation_rules.pattern_validations.{field}"
        rules.append(_Rule("pattern", field, pattern, *_matching(pattern, where)))
    return rules


def _strictly(holds: Holds) -> Holds:
    return lambda value: type(value) is not str and holds(value)


def _each(holds: Holds) -> Broken:
    return lambda values, _: [place for place, value in enumerate(values) if not holds(value)]


def _of_type(name: str, holds: Holds) -> Broken:
    """Ask no value where the types of all say enough."""
    plain, each = PLAIN[name], _each(holds)

    def broken(values: list[Any], types: AbstractSet[type]) -> list[int]:
        if types <= plain and (float not in types or _are_finite(values)):
            return []
        return each(values, types)

    return broken


def _are_finite(values: list[Any]) -> bool:
    try:
        return all(map(isfinite, values))
    except OverflowError:  # an integer beyond the range of a double
        return False


def _matching(pattern: str, where: str) -> tuple[Holds, Broken]:
    holds = value_match(pattern, where)
    each, of_texts = _each(holds), mismatches(pattern, where)
    return holds, lambda values, types: of_texts(values) if types == {str} else each(values, types)


def _within(low: float, high: float) -> tuple[Holds, Broken]:
    def within(value: Any) -> bool:
        if type(value) is not int and type(value) is not float:
            value = number(value)
        # A NaN is in no range, nor is an infinity: both ends are finite.
        return value is not None and bool(low <= value <= high)

    each = _each(within)

    def broken(values: list[Any], types: AbstractSet[type]) -> list[int]:
        if types <= NUMBERS:
            return [place for place, value in enumerate(values) if not low <= value <= high]
        return each(values, types)

    return within, broken

"""Give each item a class, by rules or by score, and tell how the classes are distributed.

Parameters: ``{"classification_config": {"rules": [{"class": "cancelled", "when": {"dep_time": {"missing": true}}}],
"scores": {"bad": [{"when": "dep_delay > 60", "weight": 2}, {"value": "arr_delay / 60", "weight": 1}]}, "threshold": 1,
"default_class": "fine"}}``.

The class of the first rule that holds is the item's. Else each class of ``scores`` adds up the weights of what holds,
and weight times value of each expression (null counts nothing); the highest score above ``threshold`` wins, the first
named of equals. Else the class is ``default_class``, or none. Rules are those of `asyncworker.mapreduce.condition`. An
item that is no object, or for which an expression has no value, fails.

``classification_summary`` counts items by what decided; ``class_distribution`` has for each class its items, their
share of all, and the mean of the scores that won. With ``"keep_items": true`` there are ``classified_items`` as well:
each item with its class (null: none) as ``class_field``. They are many: name a file or table for them (``to=``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, NamedTuple

from asyncworker.errors import BadParameters
from asyncworker.mapreduce.condition import CONDITION, compile_condition
from asyncworker.mapreduce.expression import MAX_CHARS, ExpressionError, compile_expression
from asyncworker.mapreduce.functions.function import Function, Work
from asyncworker.mapreduce.numeric import add, join, mean_of, zero
from asyncworker.mapreduce.row import pack_row, unpack_rows
from asyncworker.mapreduce.schema import check
from asyncworker.mapreduce.value import kind, missing, number

_CLASS = {"type": "string", "minLength": 1}
_WEIGHT = {"type": "number", "description": "what it adds to the score, or takes from it"}
_SCHEMA = {
    "type": "object",
    "examples": [
        {
            "classification_config": {
                "rules": [{"class": "cancelled", "when": {"dep_time": {"missing": True}}}],
                "scores": {
                    "late": [{"when": "dep_delay > 15", "weight": 1}, {"value": "arr_delay / 60", "weight": 0.5}],
                    "early": [{"when": {"arr_delay": {"max": -10}}, "weight": 1}],
                },
                "default_class": "on time",
            }
        }
    ],
    "required": ["classification_config"],
    "additionalProperties": False,
    "properties": {
        "classification_config": {
            "type": "object",
            "additionalProperties": False,
            "minProperties": 1,
            "properties": {
                "rules": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["class", "when"],
                        "properties": {
                            "class": {**_CLASS, "description": "the class it gives"},
                            "when": {**CONDITION, "description": "what must hold: an expression, or tests by field"},
                        },
                    },
                    "description": "rules in order: the first that holds decides",
                },
                "scores": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["weight"],
                            "minProperties": 2,
                            "properties": {
                                "when": {**CONDITION, "description": "what must hold for the weight to count"},
                                "value": {
                                    "type": "string",
                                    "minLength": 1,
                                    "maxLength": MAX_CHARS,
                                    "description": "an expression whose number is multiplied by the weight",
                                },
                                "weight": _WEIGHT,
                            },
                        },
                    },
                    "description": "for each class, what adds up to its score",
                },
                "threshold": {"type": "number", "default": 0, "description": "a score must be higher than this to win"},
                "default_class": {**_CLASS, "description": "the class of items that nothing else decides"},
                "keep_items": {"type": "boolean", "default": False, "description": "whether to give the items, too"},
                "class_field": {
                    **_CLASS,
                    "default": "class",
                    "description": "the field of such items that has the class",
                },
            },
        }
    },
}


class DataClassification:
    name = "data_classification"
    summary = "Give each item a class, by rules or by score, and count the classes."
    schema: Mapping[str, Any] = _SCHEMA

    def prepare(self, params: Mapping[str, Any]) -> Work:
        check(self.schema, params)
        return _Classification(params["classification_config"])


FUNCTION: Function = DataClassification()

RULE, SCORE, DEFAULT = range(3)
Mapped = tuple[int | None, int, float | None, bytes | None]
"""The class by number (None: none), what decided, the score where that did, and the packed item where it is kept."""


class _Term(NamedTuple):
    fields: tuple[str, ...]
    points: Callable[[Mapping[str, Any]], float]


class _Classification:
    """The accumulator: ``[items, [[by rule, by score, by default, total of scores] of each class], [rows]]``."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        where = "classification_config"
        rules, scores = config.get("rules", []), config.get("scores", {})
        default = config.get("default_class")
        named = chain((rule["class"] for rule in rules), scores, [default] if default else [])
        self._classes = list(dict.fromkeys(named))
        numbers = {name: at for at, name in enumerate(self._classes)}
        self._rules = [
            (numbers[rule["class"]], compile_condition(rule["when"], f"{where}.rules[{at}].when"))
            for at, rule in enumerate(rules)
        ]
        self._scores = [
            (numbers[name], [_term(term, f"{where}.scores.{name}[{at}]") for at, term in enumerate(terms)])
            for name, terms in scores.items()
        ]
        self._threshold = config.get("threshold", 0)
        self._default = numbers[default] if default else None
        self._keep = config.get("keep_items", False)
        self._field = config.get("class_field", "class")
        asked = chain(
            (rule.fields for _, rule in self._rules), (term.fields for _, terms in self._scores for term in terms)
        )
        self.fields = tuple(dict.fromkeys(chain.from_iterable(asked)))

    def initial(self) -> list[Any]:
        return [0, [[0, 0, 0, zero()] for _ in self._classes], []]

    def map(self, item: Any) -> Mapped:
        if not isinstance(item, dict):
            raise ValueError(f"the item is {kind(item)}, not an object")  # noqa: TRY004 - the data is wrong, not the code
        decided, by, score = self._decide(item)
        if not self._keep:
            return decided, by, score, None
        return decided, by, score, pack_row({**item, self._field: None if decided is None else self._classes[decided]})

    def _decide(self, item: dict[str, Any]) -> tuple[int | None, int, float | None]:
        for at, rule in self._rules:
            if rule(item):
                return at, RULE, None
        best, winner = self._threshold, None
        for at, terms in self._scores:
            score = sum(term.points(item) for term in terms)
            if score > best:
                best, winner = score, at
        if winner is None:
            return self._default, DEFAULT, None
        return winner, SCORE, best

    def fold(self, acc: list[Any], value: Mapped) -> list[Any]:
        decided, by, score, row = value
        acc[0] += 1
        if row is not None:
            acc[2].append(row)
        if decided is not None:
            counts = acc[1][decided]
            counts[by] += 1
            if score is not None:
                add(counts[3], score)
        return acc

    def merge(self, left: list[Any], right: list[Any]) -> list[Any]:
        for mine, theirs in zip(left[1], right[1], strict=True):
            mine[:3] = [one + other for one, other in zip(mine[:3], theirs[:3], strict=True)]
            join(mine[3], theirs[3])
        left[2].extend(right[2])
        return [left[0] + right[0], *left[1:]]

    def take_rows(self, acc: list[Any]) -> list[Any] | None:
        if not self._keep:
            return None
        rows, acc[2] = acc[2], []
        return unpack_rows(rows)

    def finish(self, acc: list[Any], failed: int = 0) -> dict[str, Any]:
        items, counts, rows = acc
        by = [sum(of[decider] for of in counts) for decider in (RULE, SCORE, DEFAULT)]
        distribution = [
            {
                "class": name,
                "count": sum(of[:3]),
                "share": sum(of[:3]) / items if items else 0.0,
                "mean_score": mean_of(of[3], of[SCORE]) if of[SCORE] else None,
            }
            for name, of in zip(self._classes, counts, strict=True)
        ]
        summary = {
            "items": items,
            "classified": sum(by),
            "unclassified": items - sum(by),
            **dict(zip(("by_rule", "by_score", "by_default"), by, strict=True)),
            "failed": failed,
        }
        result = {"classification_summary": summary, "class_distribution": distribution}
        if self._keep and len(rows) == items:  # else they were taken
            result["classified_items"] = unpack_rows(rows)
        return result


def _term(term: Mapping[str, Any], where: str) -> _Term:
    weight = term["weight"]
    if ("when" in term) == ("value" in term):
        raise BadParameters(f"{where} must have one of when and value")
    if "when" in term:
        holds = compile_condition(term["when"], f"{where}.when")
        return _Term(holds.fields, lambda item: weight if holds(item) else 0)
    value = compile_expression(term["value"], f"{where}.value")

    def points(item: Mapping[str, Any]) -> float:
        found = value(item)
        if missing(found):
            return 0
        score = number(found)
        if score is None or (score := number(weight * score)) is None:
            raise ExpressionError(f"{kind(found)} makes no score")
        return score

    return _Term(value.fields, points)

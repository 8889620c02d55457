"""How numbers are spread, which items belong to which category, and what is out of the ordinary: in one pass.

Parameters: ``{"analysis_config": {"numeric_fields": ["dep_delay"], "categorization_rules": {"late": "dep_delay > 15"},
"anomaly_detection": {"z_score": {"threshold": 3}, "range": {"air_time": {"min": 20, "max": 720}}}}}``.

``statistics`` has count, sum, mean, standard deviation (of a sample), least, greatest and percentiles of each field;
also those divided by a field's ``normalization_factors``, and what percentage of values is at most each of
``percentile_of``. Missing values and such as are no numbers are counted apart. All is exact, but for percentiles and
counts of anomalies of a field with more than 1,024 different numbers: those are off by 0.4 % of the value, and
``exact`` is false (`asyncworker.mapreduce.sketch`). No result depends on how the items were cut.

An item belongs to each category whose rule holds (`asyncworker.mapreduce.condition`). An anomaly is a number that is
farther from the mean than ``threshold`` deviations, farther from the middle half than ``factor`` times its width
(Tukey's fences), or out of a given range; examples are the five farthest out at either end. An item that is no
object fails.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import chain
from typing import Any

from asyncworker.errors import BadParameters
from asyncworker.mapreduce import sketch
from asyncworker.mapreduce.condition import CONDITION, compile_condition
from asyncworker.mapreduce.functions.function import Function, Work
from asyncworker.mapreduce.schema import check
from asyncworker.mapreduce.sketch import Spread, root, shown
from asyncworker.mapreduce.value import LARGEST, brief, kind, missing, number

EXTREMES = 5
PERCENTILES = [5, 25, 50, 75, 95]
_FIELDS = {"type": "array", "items": {"type": "string"}, "description": "the fields; without it, numeric_fields"}
_SCHEMA = {
    "type": "object",
    "examples": [
        {
            "analysis_config": {
                "numeric_fields": ["dep_delay", "distance"],
                "percentiles": [50, 95, 99.9],
                "categorization_rules": {"late": "dep_delay > 15", "far": {"distance": {"min": 2000}}},
                "anomaly_detection": {"z_score": {"threshold": 3}, "iqr": {"fields": ["dep_delay"]}},
            }
        }
    ],
    "required": ["analysis_config"],
    "additionalProperties": False,
    "properties": {
        "analysis_config": {
            "type": "object",
            "additionalProperties": False,
            "minProperties": 1,
            "properties": {
                "numeric_fields": {**_FIELDS, "description": "the fields whose numbers are analysed"},
                "percentiles": {
                    "type": "array",
                    "items": {"type": "number", "minimum": 0, "maximum": 100},
                    "default": PERCENTILES,
                    "description": "the percentiles to tell of each field",
                },
                "percentile_of": {
                    "type": "object",
                    "additionalProperties": {"type": "array", "items": {"type": "number"}, "minItems": 1},
                    "description": "for a field, numbers of which to tell what percentage of values is at most that",
                },
                "normalization_factors": {
                    "type": "object",
                    "additionalProperties": {"type": "number"},
                    "description": "what a field's numbers are also told divided by",
                },
                "categorization_rules": {
                    "type": "object",
                    "additionalProperties": CONDITION,
                    "description": "the rule of each category: an expression, or tests by field",
                },
                "anomaly_detection": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "enabled": {"type": "boolean", "default": True, "description": "whether to look for anomalies"},
                        "z_score": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "fields": _FIELDS,
                                "threshold": {
                                    "type": "number",
                                    "minimum": 0,
                                    "default": 3,
                                    "description": "how many standard deviations from the mean are ordinary",
                                },
                            },
                        },
                        "iqr": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "fields": _FIELDS,
                                "factor": {
                                    "type": "number",
                                    "minimum": 0,
                                    "default": 1.5,
                                    "description": "how many widths of the middle half beyond it are ordinary",
                                },
                            },
                        },
                        "range": {
                            "type": "object",
                            "additionalProperties": {
                                "type": "object",
                                "additionalProperties": False,
                                "minProperties": 1,
                                "properties": {"min": {"type": "number"}, "max": {"type": "number"}},
                            },
                            "description": "the least and the greatest ordinary number of each field",
                        },
                    },
                },
            },
        }
    },
}


class DataAnalysis:
    name = "data_analysis"
    summary = "Mean, deviation and percentiles of fields; categories; anomalies."
    schema: Mapping[str, Any] = _SCHEMA

    def prepare(self, params: Mapping[str, Any]) -> Work:
        check(self.schema, params)
        return _Analysis(params["analysis_config"])


FUNCTION: Function = DataAnalysis()

Bounds = tuple[Fraction, Fraction] | None
Mapped = tuple[Any, list[int], list[float | str | None]]
"""The item's ``id``; its categories by number; each field's number, None where it is missing, "" where it is none."""


class _Analysis:
    """The accumulator: ``[items, [items of each category], items of none, [state of each field]]``.

    A field's state: ``[sketch, missing, not numbers, below its range, above it, lowest, highest]``, the last two as
    ``[number, id]`` with the farthest out first.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        where = "analysis_config"
        numeric = config.get("numeric_fields", [])
        detection = config.get("anomaly_detection", {})
        if not detection.get("enabled", True):
            detection = {}
        self._z_score = {
            field: Fraction(detection["z_score"].get("threshold", 3))
            for field in detection.get("z_score", {}).get("fields", numeric if "z_score" in detection else ())
        }
        self._iqr = {
            field: Fraction(detection["iqr"].get("factor", 1.5))
            for field in detection.get("iqr", {}).get("fields", numeric if "iqr" in detection else ())
        }
        self._ranges: Mapping[str, Mapping[str, float]] = detection.get("range", {})
        for field, span in self._ranges.items():
            if span.get("min", -LARGEST) > span.get("max", LARGEST):
                raise BadParameters(f"{where}.anomaly_detection.range.{field}: min is greater than max")
        self._factors: Mapping[str, float] = config.get("normalization_factors", {})
        for field, factor in self._factors.items():
            if not factor:
                raise BadParameters(f"{where}.normalization_factors.{field} must not be 0")
        self._percentiles = {f"p{_named(of)}": Fraction(str(of)) / 100 for of in config.get("percentiles", PERCENTILES)}
        self._percentile_of: Mapping[str, list[float]] = config.get("percentile_of", {})
        rules = config.get("categorization_rules", {})
        self._categories = list(rules)
        self._rules = [compile_condition(rule, f"{where}.categorization_rules.{name}") for name, rule in rules.items()]
        watched = {**self._z_score, **self._iqr, **self._ranges}
        self._numeric = list(dict.fromkeys([*numeric, *watched, *self._factors, *self._percentile_of]))
        self._watch = [field in watched for field in self._numeric]
        self._spans = [self._span(field) for field in self._numeric]
        self.fields = tuple(dict.fromkeys(chain(self._numeric, *(rule.fields for rule in self._rules))))

    def _span(self, field: str) -> tuple[float, float]:
        span = self._ranges.get(field, {})
        return span.get("min", -LARGEST), span.get("max", LARGEST)

    def initial(self) -> list[Any]:
        return [0, [0 for _ in self._rules], 0, [[sketch.new(), 0, 0, 0, 0, [], []] for _ in self._numeric]]

    def map(self, item: Any) -> Mapped:
        if not isinstance(item, dict):
            raise ValueError(f"the item is {kind(item)}, not an object")  # noqa: TRY004 - the data is wrong, not the code
        numbers: list[float | str | None] = []
        for field in self._numeric:
            value = item.get(field)
            if not value and missing(value):
                numbers.append(None)
            else:
                numbers.append("" if (found := number(value)) is None else found)
        return item.get("id"), [at for at, rule in enumerate(self._rules) if rule(item)], numbers

    def fold(self, acc: list[Any], value: Mapped) -> list[Any]:
        item_id, categories, numbers = value
        acc[0] += 1
        for at in categories:
            acc[1][at] += 1
        acc[2] += not categories
        for found, state, watch, (low, high) in zip(numbers, acc[3], self._watch, self._spans, strict=True):
            if found is None:
                state[1] += 1
            elif isinstance(found, str):
                state[2] += 1
            else:
                counted = sketch.add(state[0], found)
                if watch:
                    state[3] += counted < low
                    state[4] += counted > high
                    if len(lowest := state[5]) < EXTREMES or counted < lowest[-1][0]:
                        bisect.insort(lowest, [counted, brief(item_id)], key=_itself)
                        del lowest[EXTREMES:]
                    if len(highest := state[6]) < EXTREMES or counted > highest[-1][0]:
                        bisect.insort(highest, [counted, brief(item_id)], key=_negative)
                        del highest[EXTREMES:]
        return acc

    def merge(self, left: list[Any], right: list[Any]) -> list[Any]:
        for mine, theirs in zip(left[3], right[3], strict=True):
            sketch.join(mine[0], theirs[0])
            mine[1:5] = [one + other for one, other in zip(mine[1:5], theirs[1:5], strict=True)]
            mine[5] = sorted(mine[5] + theirs[5], key=_itself)[:EXTREMES]
            mine[6] = sorted(mine[6] + theirs[6], key=_negative)[:EXTREMES]
        counts = [one + other for one, other in zip(left[1], right[1], strict=True)]
        return [left[0] + right[0], counts, left[2] + right[2], left[3]]

    def finish(self, acc: list[Any], failed: int = 0) -> dict[str, Any]:
        items, counts, uncategorized, states = acc
        spreads = [Spread(state[0]) for state in states]
        statistics = {
            field: self._statistics(field, spread, state)
            for field, spread, state in zip(self._numeric, spreads, states, strict=True)
        }
        categories = {
            name: {"count": count, "share": count / items if items else 0.0}
            for name, count in zip(self._categories, counts, strict=True)
        }
        summary: dict[str, Any] = {"failed": failed}
        if self._rules:
            summary |= {"categories": categories, "uncategorized": uncategorized}
        if any(self._watch):
            summary["anomalies"] = self._anomalies(
                dict(zip(self._numeric, zip(spreads, states, strict=True), strict=True))
            )
        return {"total_items": items, "statistics": statistics, "analysis_summary": summary}

    def _statistics(self, field: str, spread: Spread, state: list[Any]) -> dict[str, Any]:
        told = {
            "mean": _double(spread.mean),
            "std": _double(root(spread.variance)),
            "min": spread.low,
            "max": spread.high,
            **{name: shown(spread.quantile(share)) for name, share in self._percentiles.items()},
        }
        found = {"count": spread.count, "missing": state[1], "not_numbers": state[2], "sum": spread.sum, **told}
        if factor := self._factors.get(field):
            scaled = {"mean": spread.mean, "std": root(spread.variance), "min": spread.low, "max": spread.high}
            found |= {
                f"normalized_{name}": None if of is None else _double(Fraction(of) / Fraction(factor))
                for name, of in scaled.items()
            }
        if field in self._percentile_of and spread.count:
            found["percentile_of"] = {
                _named(at): 100 * (spread.count - spread.above(Fraction(at))) / spread.count
                for at in self._percentile_of[field]
            }
        return {**found, "exact": spread.exact}

    def _anomalies(self, found: Mapping[str, tuple[Spread, list[Any]]]) -> dict[str, dict[str, Any]]:
        told: dict[str, dict[str, Any]] = {}
        for method, field, bounds in self._bounds({field: spread for field, (spread, _) in found.items()}):
            spread, (*_, below, above, lowest, highest) = found[field]
            if bounds is None:
                told.setdefault(method, {})[field] = {"count": 0}
                continue
            low, high = bounds
            ranged = method == "range"
            below, above = (below, above) if ranged else (spread.below(low), spread.above(high))
            outside = [pair for pair in highest if pair[0] > high] + [pair for pair in lowest if pair[0] < low]
            told.setdefault(method, {})[field] = {
                "count": below + above,
                "below": below,
                "above": above,
                "low": None if low == -LARGEST else shown(low),
                "high": None if high == LARGEST else shown(high),
                "exact": ranged or spread.exact,
                "examples": [
                    {"value": value} if missing(item_id) else {"item_id": item_id, "value": value}
                    for value, item_id in outside
                ],
            }
        return told

    def _bounds(self, spreads: Mapping[str, Spread]) -> Iterator[tuple[str, str, Bounds]]:
        """Yield what is ordinary by each method and field; None where there is too little to say."""
        for field, threshold in self._z_score.items():
            mean = spreads[field].mean
            yield "z_score", field, _around(mean, mean, root(spreads[field].variance), threshold)
        for field, factor in self._iqr.items():
            first, third = (spreads[field].quantile(Fraction(part, 4)) for part in (1, 3))
            width = None if first is None or third is None else third - first
            yield "iqr", field, _around(first, third, width, factor)
        for field in self._ranges:
            least, most = self._span(field)
            yield "range", field, (Fraction(least), Fraction(most))


def _around(low: Fraction | None, high: Fraction | None, width: Fraction | None, times: Fraction) -> Bounds:
    return None if low is None or high is None or width is None else (low - times * width, high + times * width)


def _double(of: Fraction | None) -> sketch.Shown | None:
    told = shown(of)
    return float(told) if type(told) is int else told


def _named(number: float) -> str:
    """Return a number as the name of a result: 5 and 5.0 are the same."""
    return str(number).removesuffix(".0")


def _itself(pair: list[Any]) -> Any:
    return pair[0]


def _negative(pair: list[Any]) -> Any:
    return -pair[0]

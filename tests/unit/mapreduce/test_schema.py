"""Parameters that do not fit: where, and what is wanted there."""

from __future__ import annotations

import pytest

from asyncworker.errors import BadParameters
from asyncworker.mapreduce.schema import check

SCHEMA = {
    "type": "object",
    "required": ["rules"],
    "additionalProperties": False,
    "properties": {
        "rules": {
            "type": "object",
            "additionalProperties": False,
            "minProperties": 1,
            "properties": {
                "fields": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 5}, "minItems": 1},
                "types": {"type": "object", "additionalProperties": {"type": "string", "enum": ["int", "float"]}},
                "span": {"type": "object", "properties": {"min": {"type": "number"}}, "required": ["min"]},
                "agg": {
                    "anyOf": [
                        {"type": "string", "enum": ["sum", "avg"]},
                        {"type": "array", "items": {"type": "string", "enum": ["sum", "avg"]}},
                    ]
                },
            },
        },
        "top": {"type": "integer", "minimum": 1, "maximum": 9},
        "share": {"type": "number", "minimum": 0},
        "strict": {"type": "boolean"},
        "nothing": {"type": "null"},
        "any": {},
    },
}
RULES = {"rules": {"fields": ["a"]}}


@pytest.mark.parametrize(
    "fitting",
    [
        RULES,
        {"rules": {"fields": ("a", "b")}},
        {"rules": {"types": {"x": "int", "": "float"}, "span": {"min": 1, "more": 2}}},
        {"rules": {"agg": "sum"}},
        {"rules": {"agg": ["sum", "avg"]}},
        {**RULES, "top": 1, "share": 0.5, "strict": False, "nothing": None, "any": object()},
    ],
)
def test_what_fits_passes(fitting):
    check(SCHEMA, fitting)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "the parameters must be an object, not a list"),
        (None, "the parameters must be an object, not null"),
        ({}, "rules is missing; it must be an object"),
        ({**RULES, "tpo": 1}, "the parameters: unknown key 'tpo'; did you mean 'top'?"),
        ({**RULES, "zzz": 1}, "the parameters: unknown key 'zzz'; it takes rules, top, share, strict, nothing, any"),
        ({**RULES, 7: 1}, "the parameters: its keys must be text, not a number"),
        ({"rules": {}}, "rules must have 1 or more of fields, types, span, agg"),
        ({"rules": {"feilds": []}}, "rules: unknown key 'feilds'; did you mean 'fields'?"),
        ({"rules": {"fields": "a"}}, "rules.fields must be a list of entries, each text, not text"),
        ({"rules": {"fields": []}}, "rules.fields must have 1 or more entries"),
        ({"rules": {"fields": ["a", 1]}}, "rules.fields[1] must be text, not a number"),
        ({"rules": {"fields": [""]}}, "rules.fields[0] must have 1 to 5 characters"),
        ({"rules": {"fields": ["abcdef"]}}, "rules.fields[0] must have 1 to 5 characters"),
        ({"rules": {"types": {"id": int}}}, "rules.types.id must be one of int, float, not a type"),
        ({"rules": {"types": {"id": "flaot"}}}, "rules.types.id must be one of int, float; did you mean 'float'?"),
        ({"rules": {"types": {"id": "zzz"}}}, "rules.types.id must be one of int, float"),
        ({"rules": {"span": {}}}, "rules.span.min is missing; it must be a number"),
        ({"rules": {"span": {"min": "1"}}}, "rules.span.min must be a number, not text"),
        ({"rules": {"span": {"min": float("nan")}}}, "rules.span.min must be a number, not nan or infinity"),
        (
            {"rules": {"agg": 1}},
            "rules.agg must be one of sum, avg or a list of entries, each one of sum, avg, not a number",
        ),
        ({"rules": {"agg": "sun"}}, "rules.agg must be one of sum, avg; did you mean 'sum'?"),
        ({"rules": {"agg": ["sum", "vag"]}}, "rules.agg[1] must be one of sum, avg; did you mean 'avg'?"),
        ({**RULES, "top": True}, "top must be a whole number, not a bool"),
        ({**RULES, "top": 1.0}, "top must be a whole number, not a number"),
        ({**RULES, "top": 10}, "top must be 1 to 9"),
        ({**RULES, "share": -1}, "share must be 0 or more"),
        ({**RULES, "strict": 1}, "strict must be true or false, not a number"),
        ({**RULES, "nothing": 0}, "nothing must be null, not a number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_s15_what_does_not_fit_is_refused_with_its_place(given, message):
    with pytest.raises(BadParameters) as caught:
        check(SCHEMA, given)
    assert str(caught.value) == message


def test_s22_a_refusal_shows_no_value():
    for given in ({"rules": "canary"}, {"rules": {"types": {"x": "canary"}}}, {"rules": {"fields": ["canary" * 9]}}):
        with pytest.raises(BadParameters) as caught:
            check(SCHEMA, given)
        assert "canary" not in str(caught.value)

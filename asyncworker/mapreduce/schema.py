"""Check parameters against a JSON Schema, and say in plain words what does not fit.

Schemas are data that people and tools read (`asyncworker functions`, the HTTP API), so they are plain JSON Schema
(draft 2020-12), of which this page knows what our functions need: `KEYWORDS`. An unknown key is refused with the
nearest known one, wherever a schema lists its properties. Messages name the place and what is wanted there, never
the value, which may be anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from asyncworker.errors import BadParameters, nearest
from asyncworker.mapreduce.value import kind

Schema = Mapping[str, Any]

KEYWORDS = frozenset(
    {"type", "enum", "anyOf", "properties", "required", "additionalProperties", "items", "minItems", "minProperties"}
    | {"minLength", "maxLength", "minimum", "maximum", "default", "title", "description", "examples"}
)
_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "object": ("an object", lambda value: isinstance(value, Mapping)),
    "array": ("a list", lambda value: isinstance(value, list | tuple)),
    "string": ("text", lambda value: type(value) is str),
    "integer": ("a whole number", lambda value: type(value) is int),
    "number": ("a number", lambda value: type(value) is int or (type(value) is float and abs(value) < float("inf"))),
    "boolean": ("true or false", lambda value: type(value) is bool),
    "null": ("null", lambda value: value is None),
}


def check(schema: Schema, value: Any, where: str = "the parameters") -> None:
    """Check *value*, with all that lies in it; lists may also be tuples.

    Raises:
        BadParameters: names the first place that does not fit, and what is wanted there.
    """
    if "anyOf" in schema and not any(_fits(choice, value) for choice in schema["anyOf"]):
        _check_nearest(schema["anyOf"], value, where)
    if "type" in schema and not _TYPES[schema["type"]][1](value):
        raise BadParameters(f"{where} must be {_wanted(schema)}, not {kind(value)}")
    if "enum" in schema and value not in schema["enum"]:
        near = nearest(value, schema["enum"]) if type(value) is str else None
        raise BadParameters(f"{where} must be {_wanted(schema)}" + (f"; did you mean {near!r}?" if near else ""))
    if isinstance(value, Mapping):
        _check_object(schema, value, where)
    elif isinstance(value, list | tuple):
        if len(value) < schema.get("minItems", 0):
            raise BadParameters(f"{where} must have {schema['minItems']} or more entries")
        for index, entry in enumerate(value):
            check(schema.get("items", {}), entry, f"{where}[{index}]")
    elif type(value) is str:
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            raise BadParameters(f"{where} must have {_span(schema, 'minLength', 'maxLength')} characters")
    elif type(value) in (int, float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        raise BadParameters(f"{where} must be {_span(schema, 'minimum', 'maximum')}")


def _check_object(schema: Schema, value: Mapping[Any, Any], where: str) -> None:
    known: Mapping[str, Schema] = schema.get("properties", {})
    others: Schema | bool = schema.get("additionalProperties", True)
    for key, entry in value.items():
        if type(key) is not str:
            raise BadParameters(f"{where}: its keys must be text, not {kind(key)}")
        if key in known:
            check(known[key], entry, _at(where, key))
        elif isinstance(others, Mapping):
            check(others, entry, _at(where, key))
        elif not others:
            near = nearest(key, known)
            hint = f"did you mean {near!r}?" if near else f"it takes {_listed(known)}"
            raise BadParameters(f"{where}: unknown key {key!r}; {hint}")
    for key in schema.get("required", ()):
        if key not in value:
            raise BadParameters(f"{_at(where, key)} is missing; it must be {_wanted(known.get(key, {}))}")
    if len(value) < schema.get("minProperties", 0):
        raise BadParameters(f"{where} must have {schema['minProperties']} or more of {_listed(known)}")


def _check_nearest(choices: list[Schema], value: Any, where: str) -> None:
    """Complain about the choice whose type fits, else name them all."""
    for choice in choices:
        if "type" not in choice or _TYPES[choice["type"]][1](value):
            check(choice, value, where)
    raise BadParameters(f"{where} must be {' or '.join(map(_wanted, choices))}, not {kind(value)}")


def _fits(schema: Schema, value: Any) -> bool:
    try:
        check(schema, value)
    except BadParameters:
        return False
    return True


def _wanted(schema: Schema) -> str:
    """Say in words what a schema asks for."""
    if "enum" in schema:
        return f"one of {_listed(schema['enum'])}"
    if "anyOf" in schema:
        return " or ".join(map(_wanted, schema["anyOf"]))
    if schema.get("type") == "array" and "items" in schema:
        return f"a list of entries, each {_wanted(schema['items'])}"
    return _TYPES[schema["type"]][0] if "type" in schema else "there"


def _span(schema: Schema, least: str, most: str) -> str:
    if least not in schema:
        return f"at most {schema[most]}"
    return f"{schema[least]} to {schema[most]}" if most in schema else f"{schema[least]} or more"


def _listed(names: Any) -> str:
    return ", ".join(map(str, names)) or "none"


def _at(where: str, key: str) -> str:
    """Return the path of a key, in which the whole has no name."""
    return key if where == "the parameters" else f"{where}.{key}"

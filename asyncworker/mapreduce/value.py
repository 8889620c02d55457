"""What a value is: missing, a number, one of the types that rules name.

CSV has only text and JSON has types, and a rule must mean the same over both. So nothing guesses: where a rule
asks for a number, text is read in full by one small grammar, and what is left over makes it no number.

| value                     | int | float, number | bool | str | list | dict |
|---------------------------|-----|---------------|------|-----|------|------|
| JSON ``12``               | yes | yes           |      |     |      |      |
| JSON ``12.0``, ``1e3``    |     | yes           |      |     |      |      |
| JSON ``true``             |     |               | yes  |     |      |      |
| text ``12 -12 +12 007``   | yes | yes           |      | yes |      |      |
| text ``12.5 12. .5 1e3``  |     | yes           |      | yes |      |      |
| text ``true True TRUE``   |     |               | yes  | yes |      |      |
| other text                |     |               |      | yes |      |      |
| list, object              |     |               |      |     | list | dict |

No number: ``" 12"``, ``1_000``, ``1,5``, ``0x1f``, ``nan``, ``inf``, digits outside ASCII, anything beyond the
range of a double (1.8e308), and text of more than 300 characters. ``float`` takes integers too, since JSON
writers drop ``.0``. Text is read as the nearest double. Missing are ``null`` and ``""``, like an absent field.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

LARGEST = sys.float_info.max
_LONGEST = 300  # characters of a number; so all integers in text are within the range
_BRIEF = 60  # characters of an example
_NUMBER = re.compile(r"[+-]?(?:\d+(\.\d*)?|(\.\d+))([eE][+-]?\d+)?", re.ASCII).fullmatch  # no group: an integer
_BOOLS = frozenset({"true", "True", "TRUE", "false", "False", "FALSE"})  # as in YAML 1.2's core schema


def missing(value: Any) -> bool:
    """Return whether this stands for no value: null or empty text."""
    return value is None or (type(value) is str and not value)


def number(value: Any) -> int | float | None:
    """Return the number that *value* is, or that its text is in full; None where it is none."""
    kind = type(value)
    if kind is str:
        if len(value) > _LONGEST:
            return None
        if value.isdigit() and value.isascii():  # what most numbers are
            return int(value)
        form = _NUMBER(value)
        if form is None:
            return None
        if form.lastindex is None:
            return int(value)
        value = float(value)
    elif kind is not int and kind is not float:
        return None
    return value if -LARGEST <= value <= LARGEST else None


def _is_int(value: Any) -> bool:
    return type(value) is int or (type(value) is str and type(number(value)) is int)


def _is_number(value: Any) -> bool:
    return type(value) is int or number(value) is not None


def _is_bool(value: Any) -> bool:
    return type(value) is bool or (type(value) is str and value in _BOOLS)


def _is_str(value: Any) -> bool:
    return type(value) is str


def _is_list(value: Any) -> bool:
    return type(value) is list


def _is_dict(value: Any) -> bool:
    return type(value) is dict


TYPES: dict[str, Callable[[Any], bool]] = {
    "int": _is_int,
    "float": _is_number,
    "number": _is_number,
    "str": _is_str,
    "bool": _is_bool,
    "list": _is_list,
    "dict": _is_dict,
}
"""Whether a value that is not missing has the type of this name."""

PLAIN: dict[str, frozenset[type]] = {
    "int": frozenset({int}),
    "float": frozenset({int, float}),
    "number": frozenset({int, float}),
    "str": frozenset({str}),
    "bool": frozenset({bool}),
    "list": frozenset({list}),
    "dict": frozenset({dict}),
}
"""The types of which each value has the type of this name, floats only if they are finite."""


def kind(value: Any) -> str:
    """Return what *value* is, in a word for people; it shows nothing of the value."""
    match value:
        case None:
            return "null"
        case bool():
            return "a bool"
        case float() if not -LARGEST <= value <= LARGEST:
            return "nan or infinity"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"


def brief(value: Any) -> Any:
    """Return *value* short enough for an example, and fit for any wire: at most 60 characters or one scalar."""
    match value:
        case None | bool():
            return value
        case int():
            return value if -(2**63) <= value < 2**63 else "a number beyond 64 bits"
        case float():
            return value if -LARGEST <= value <= LARGEST else str(value)
        case str():
            shown = value[:_BRIEF].encode("utf-8", "backslashreplace").decode()
            return shown + "…" if len(value) > _BRIEF else shown
        case list() | dict():
            return f"{kind(value)} of {len(value)}"
    return kind(value)

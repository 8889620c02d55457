"""What a value becomes where another type is asked for, by the readings of `asyncworker.mapreduce.value`.

| from                       | int   | float, number | bool  | str      |
|----------------------------|-------|---------------|-------|----------|
| ``12``, text ``12``        | 12    | 12.0, 12      | no    | ``12``   |
| ``12.0``, text ``12.0``    | 12    | 12.0          | no    | as it is |
| ``12.5``, text ``12.5``    | no    | 12.5          | no    | as it is |
| ``1``, ``0``, as text, too | 1, 0  | 1.0, 0.0      | yes   | as it is |
| true, text ``true TRUE``   | no    | no            | yes   | ``true`` |
| other text                 | no    | no            | no    | as it is |
| list, object               | no    | no            | no    | no       |

``number`` leaves integers integers. Integers are within 64 bits, doubles finite. What is missing stays so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncworker.mapreduce.value import TYPES, kind, number

_LIMIT = 2**63


class ConversionError(ValueError):
    """A value that cannot become what is asked for. Its text holds nothing of it."""


def whole(value: Any) -> int:
    """Return a whole number. Raises ConversionError."""
    found = _number(value)
    if found != found // 1:
        raise ConversionError("this number is not whole")
    if not -_LIMIT <= found < _LIMIT:
        raise ConversionError("a number beyond 64 bits")
    return int(found)


def text_of(value: Any) -> str:
    """Return text as it is; a number or a bool as JSON writes it. Raises ConversionError."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
    raise ConversionError(f"{kind(value)} cannot become text")


def _number(value: Any) -> int | float:
    found = number(value)
    if found is None:
        raise ConversionError(f"{kind(value)} where a number is needed")
    return found


def _bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    if TYPES["bool"](value):
        return bool(value.lower() == "true")
    if (found := number(value)) in (0, 1):
        return bool(found)
    raise ConversionError(f"{kind(value)} that is neither true nor false")


CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "int": whole,
    "float": lambda value: float(_number(value)),
    "number": _number,
    "bool": _bool,
    "str": text_of,
}
"""What converts a value that is not missing, by the name of the type; raises `ConversionError`."""

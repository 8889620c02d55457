"""Forms: what people send from pages, read strictly."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from asyncworker.errors import BadParameters
from asyncworker.kind import seconds
from asyncworker.queue.schedule import Missed

KIND = "application/x-www-form-urlencoded"
MOST_FIELDS = 1_100
LONGEST_S = 10**8
_duration = seconds(0, LONGEST_S).parse


class Fields:
    """The fields of one form, in their order."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self.pairs = pairs

    def one(self, name: str) -> str:
        """Return the first value of this name, "" where there is none; without blanks around it."""
        return next((value.strip() for known, value in self.pairs if known == name), "")

    def all(self, name: str) -> list[str]:
        return [value.strip() for known, value in self.pairs if known == name]


async def read(request: web.Request) -> Fields:
    """Return what was sent; its size is bounded by the application.

    Raises:
        web.HTTPUnsupportedMediaType: no form. BadParameters: one that cannot be read.
    """
    if request.content_type != KIND:
        raise web.HTTPUnsupportedMediaType(text=f"send {KIND}\n")
    try:
        text = (await request.read()).decode()
        return Fields(parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict"))
    except ValueError as exc:  # no UTF-8, or too many fields
        raise BadParameters("that form cannot be read") from exc


def moment(text: str, now_s: float) -> float:
    """Return the date that ``1h`` (ago) or ``2026-01-31 12:00`` (this machine's time) means; 0.0 of "".

    Raises:
        BadParameters: neither.
    """
    if not text:
        return 0.0
    try:
        return now_s - float(_duration(text))
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError) as exc:
        raise BadParameters(f"{text[:100]!r} is neither how long ago, as 1h, nor a date, as 2026-01-31 12:00") from exc


def interval(text: str) -> float:
    """Return the seconds that ``30s`` or ``10m`` means; 0.0 of "".

    Raises:
        BadParameters: it means none.
    """
    try:
        return float(_duration(text)) if text else 0.0
    except ValueError as exc:
        raise BadParameters(f"{text[:100]!r} is no interval; write 30s, 10m or 1h") from exc


def whole(name: str, text: str) -> int:
    """Return a number that is 0 or more, and has nine digits at most.

    Raises:
        BadParameters: it is none.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadParameters(f"{name} must be a whole number, not {text[:100]!r}")
    return int(text)


def arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments that a JSON array, or an object of them by name, says; none of "".

    Raises:
        BadParameters: it is neither.
    """
    try:
        read: object = msgspec.json.decode(text or "[]")
    except (msgspec.DecodeError, RecursionError) as exc:
        raise BadParameters(f"the arguments are no JSON: {exc}") from exc
    match read:
        case list():
            return read, {}
        case dict():
            return [], read
        case _:
            raise BadParameters("arguments are a JSON array, or an object with their names")


def missed(text: str) -> Missed:
    """Return which missed ticks fire; the last one where nothing is said. What is no such word is refused later."""
    return cast("Missed", text or "last")


def unknown(do: str) -> BadParameters:
    return BadParameters(f"nothing here does {do[:100]!r}")


def nothing_chosen() -> BadParameters:
    return BadParameters("Nothing was chosen: tick the jobs first.")

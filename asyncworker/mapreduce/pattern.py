r"""Users' patterns, in time that grows with the text alone: RE2, never `re`.

The syntax is RE2's (https://github.com/google/re2/wiki/Syntax): ``\d \w \s`` are ASCII, ``\pL`` is any letter,
and there are no look-arounds and no backreferences. A pattern matches in full or not at all. It is compiled
twice: in little memory, so that too large a program is refused, and then with room enough that RE2 never
runs short, which it would say on standard error.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import re2  # type: ignore[import-not-found]  # pyre2 has no types

from asyncworker.errors import BadParameters

MAX_PATTERN_BYTES = 1024
KEPT = 8
"""How many patterns stay compiled: each partition of a job asks for the same, and RE2 learns them while it matches."""
_PROGRAM_BYTES = 512 * 2**10  # room for `.{0,1000}` and `\pL{1,20}`, not for `\pL{1,100}`
_MATCH_BYTES = 64 * _PROGRAM_BYTES  # an upper bound, which usual patterns come nowhere near


def full_match(pattern: str, where: str = "the pattern") -> Callable[[str], bool]:
    """Compile a pattern into a question to a text: does it match in full?

    Cost of asking: 0.2 us for a short text, under 1 ms for 100 kB with a usual pattern, nested repeats included;
    at the very worst (``.*a.{900}``) 40 us a character. Text with half a surrogate pair matches nothing.

    Raises:
        BadParameters: there is no pattern of RE2's at *where*, or too large a one.
    """
    contains = _contains(pattern, where)

    def matches(text: str) -> bool:
        try:
            return contains(text)
        except UnicodeEncodeError:
            return False

    return matches


def mismatches(pattern: str, where: str = "the pattern") -> Callable[[list[str]], list[int]]:
    """As `full_match`, asked of many texts for less than their calls alone would cost: the places of those that do not match."""
    contains, matches = _contains(pattern, where), full_match(pattern, where)

    def places(texts: list[str]) -> list[int]:
        try:
            return [place for place, text in enumerate(texts) if not contains(text)]
        except UnicodeEncodeError:
            return [place for place, text in enumerate(texts) if not matches(text)]

    return places


def value_match(pattern: str, where: str = "the pattern") -> Callable[[Any], bool]:
    """As `full_match`, asked of any value: text matches in full, a whole number by its digits, nothing else.

    Raises:
        BadParameters: as `full_match`.
    """
    matches = full_match(pattern, where)
    return lambda value: matches(value) if type(value) is str else type(value) is int and matches(str(value))


def find_all(pattern: str) -> Callable[[str], list[str]]:
    """Compile a pattern of our own, without groups, into a search for all its matches in a text."""
    found: Callable[[str], list[str]] = _compile(pattern, "the pattern", _MATCH_BYTES).findall
    return found


@lru_cache(maxsize=KEPT)
def _contains(pattern: str, where: str) -> Callable[[str], bool]:
    try:
        size = len(pattern.encode())
    except UnicodeEncodeError as exc:
        raise BadParameters(f"{where} is no Unicode text: {exc.reason}") from exc
    if size > MAX_PATTERN_BYTES:
        raise BadParameters(f"{where} takes {size} bytes; a pattern may have {MAX_PATTERN_BYTES}")
    _compile(pattern, where, _PROGRAM_BYTES)  # on its own, too: it must not need the brackets around it
    contains: Callable[[str], bool] = _compile(rf"\A(?:{pattern})\z", where, _MATCH_BYTES).contains
    return contains


def _compile(pattern: str, where: str, max_mem: int) -> Any:
    re2.set_fallback_notification(re2.FALLBACK_EXCEPTION)
    re2.purge()  # its cache knows patterns by their text alone, not by the memory they may take
    try:
        compiled = re2.compile(pattern, re2.ASCII, max_mem)
    except re2.error as exc:
        raise BadParameters(f"{where} is no pattern that RE2 takes: {exc}") from exc
    if type(compiled) is not re2.Pattern:
        raise BadParameters(f"{where} is no pattern that RE2 takes")
    return compiled

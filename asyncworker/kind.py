"""Kinds of values that people may set: how a text becomes one, and what is said of a text that does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from asyncworker import registry
from asyncworker.errors import UnknownName

_NUMBER = re.compile(r"[0-9]{1,9}")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h|)")
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
_WEIGHTED = re.compile(r"[^:]+(:(?!0*\.?0*$)[0-9]+(\.[0-9]+)?)?")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]\s]*)(:(?P<port>[0-9]{1,5}))?")
_BOOLEANS = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


class Kind(msgspec.Struct, frozen=True):
    """How a text becomes a value: ``parse`` raises ValueError where it does not fit, ``wanted`` says what would.

    ``word`` stands for the value in a command's help.
    """

    word: str
    wanted: str
    parse: Callable[[str], Any]


def text(word: str = "TEXT") -> Kind:
    return Kind(word, "a text", str)


def number(low: int, high: int = 10**9) -> Kind:
    def parse(value: str) -> int:
        if not _NUMBER.fullmatch(value) or not low <= int(value) <= high:
            raise ValueError
        return int(value)

    return Kind("N", f"a whole number from {low}" + (f" to {high}" if high < 10**9 else ""), parse)


def seconds(low: float, high: float) -> Kind:
    def parse(value: str) -> float:
        found = _DURATION.fullmatch(value)
        if not found or not low <= (length := float(found[1]) * _SECONDS[found[2]]) <= high:
            raise ValueError
        return length

    return Kind("DURATION", f"a duration from {low:g} s to {high:g} s, such as 250ms, 30s, 10m, 1h, or seconds", parse)


def auto_or(kind: Kind) -> Kind:
    return Kind(
        f"{kind.word}|auto", f"{kind.wanted}, or auto", lambda value: value if value == "auto" else kind.parse(value)
    )


def percent() -> Kind:
    def parse(value: str) -> float:
        found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)\s*%?", value)
        if not found or not 0 < float(found[1]) <= 100:
            raise ValueError
        return float(found[1])

    return Kind("PERCENT", "a share above 0 % and at most 100 %, such as 80 or 80%", parse)


def boolean() -> Kind:
    def parse(value: str) -> bool:
        if value.lower() not in _BOOLEANS:
            raise ValueError
        return _BOOLEANS[value.lower()]

    return Kind("", "true or false", parse)


def choice(*words: str) -> Kind:
    def parse(value: str) -> str:
        if value not in words:
            raise ValueError
        return value

    return Kind("|".join(words), "one of " + ", ".join(words), parse)


def names() -> Kind:
    def parse(value: str) -> tuple[str, ...]:
        found = tuple(word.strip() for word in value.split(","))
        if not all(_WEIGHTED.fullmatch(word) for word in found):
            raise ValueError
        return found

    return Kind("NAME[:WEIGHT],…", "names with commas between them, each with a weight above 0 or without", parse)


def words(shown: str) -> Kind:
    return Kind(shown, "words with commas between them", lambda value: tuple(value.split(",")))


def url(*schemes: str, example: str) -> Kind:
    def parse(value: str) -> str:
        found = _URL.fullmatch(value)
        if not found or (schemes and found[1] not in schemes):
            raise ValueError
        authority = re.split(r"[/?#]", found[2], maxsplit=1)[0]
        for host in authority.rpartition("@")[2].split(","):
            fits = _HOST.fullmatch(host)
            if not fits or int(fits["port"] or 0) > 65535:
                raise ValueError
        return value

    return Kind("URL", f"a URL such as {example}", parse)


def address() -> Kind:
    def parse(value: str) -> str:
        found = _HOST.fullmatch(value)
        if value != "off" and not (found and found[1] and found["port"] and int(found["port"]) <= 65535):
            raise ValueError
        return value

    return Kind("HOST:PORT|off", "an address such as 127.0.0.1:8787, or off", parse)


def broker_url() -> Kind:
    kind = url(example="redis://localhost:6379/0, memory:// or embedded://")

    def parse(value: str) -> str:
        scheme = kind.parse(value).partition("://")[0]
        if not registry.knows("broker", scheme):
            raise UnknownName("broker", scheme, (*registry.names("broker"), *registry.ALIASES["broker"]))
        return value

    return Kind(kind.word, kind.wanted, parse)


def number_or_share(low: int) -> Kind:
    """Return a kind that also takes a share: ``0.05`` or ``5%`` is the float 0.05."""
    kind = number(low)

    def parse(value: str) -> Any:
        if found := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)\s*%|([01]?\.[0-9]{1,9})", value):
            share = float(found[1]) / 100 if found[1] else float(found[2])
            if share > 1:
                raise ValueError
            return share
        return kind.parse(value)

    return Kind("N|SHARE", f"{kind.wanted}, or a share such as 0.05 or 5%", parse)

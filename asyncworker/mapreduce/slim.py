"""Objects of which only some fields are looked at, read as JSON: less is made of them, and in less memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from asyncworker.mapreduce.sources.source import Clean, Slim

Decode = Callable[[bytes], list[Any]]
_decode: Decode = msgspec.json.Decoder().decode


class SlimDecoder:
    """Reads JSON arrays of objects as `Clean` ones with these fields, and from the first that are not on as `Slim` ones.

    So a few objects that are not clean cost little more time than if nobody had hoped for it. Where a name is none that can be told to
    `msgspec`, the objects are dicts.

    Args:
        fields: see `sources.source.Narrow`.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._clean, self._slim = _decoders(tuple(fields.items()))
        self._hopes = True

    def __call__(self, data: bytes) -> list[Any]:
        """Read one; ValueError: something else is in it than objects."""
        if self._hopes:
            try:
                return self._clean(data)
            except msgspec.ValidationError:
                self._hopes = False
        return self._slim(data)


@lru_cache(maxsize=32)
def _decoders(fields: tuple[tuple[str, Any], ...]) -> tuple[Decode, Decode]:
    names = {f"f{number}": field for number, (field, _) in enumerate(fields)}
    clean = [
        (name, kind, msgspec.UNSET) if kind is Any else (name, kind)
        for name, (_, kind) in zip(names, fields, strict=True)
    ]
    slim = [(name, Any, msgspec.UNSET) for name in names]
    try:
        return _decoder(Clean, clean, names), _decoder(Slim, slim, names)
    except ValueError:
        return _decode, _decode


def _decoder(base: type[Slim], fields: list[Any], names: dict[str, str]) -> Decode:
    kind = msgspec.defstruct("SlimObject", fields, bases=(base,), rename=names, kw_only=True, gc=False)
    return msgspec.json.Decoder(list[kind]).decode  # type: ignore[valid-type]  # it is one

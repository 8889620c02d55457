"""Objects of which only some fields are looked at, read as JSON: less is made of them, and in less memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from asyncworker.mapreduce.sources.source import Slim

_decode: Callable[[bytes], list[Any]] = msgspec.json.Decoder().decode


@lru_cache(maxsize=32)
def slim_decoder(fields: tuple[str, ...]) -> Callable[[bytes], list[Any]]:
    """Return what reads a JSON array of objects as `Slim` ones with these fields; ValueError: something else is in it.

    Where a name is none that can be told to it, the objects are dicts.
    """
    names = [f"f{number}" for number in range(len(fields))]
    try:
        kind = msgspec.defstruct(
            "SlimObject",
            [(name, Any, msgspec.UNSET) for name in names],
            bases=(Slim,),
            rename=dict(zip(names, fields, strict=True)),
            gc=False,
        )
    except ValueError:
        return _decode
    return msgspec.json.Decoder(list[kind]).decode  # type: ignore[valid-type]  # it is one

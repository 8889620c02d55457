"""Rows on their way from an item to the result: JSON in an accumulator, so that they are packed once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_travel = msgspec.msgpack.Encoder().encode
_decode = msgspec.json.Decoder().decode


def pack_row(row: Any) -> bytes:
    """Pack a row; NaN and infinity, which JSON lacks, become null.

    Raises:
        ValueError: it cannot travel: an integer beyond 64 bits, half a surrogate pair, too deep.
    """
    try:
        _travel(row)  # JSON would take larger integers than results may hold
        return _encode(row)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise ValueError(f"the row cannot travel ({type(exc).__name__})") from None


def unpack_rows(packed: Iterable[bytes]) -> list[Any]:
    """Return rows as values."""
    return list(map(_decode, packed))

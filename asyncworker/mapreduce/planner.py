"""How a number of items is divided. Pure: no source is looked at here."""

from __future__ import annotations

from collections.abc import Iterator


def cut(count: int, size: int) -> Iterator[range]:
    """Yield what is in order ``range(count)``, in ranges of *size* (1 or more); the last may be shorter."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def split(count: int, parts: int) -> list[range]:
    """Divide ``range(count)`` into *parts* ranges (1 or more) in order, whose lengths differ by one at most."""
    return [range(part * count // parts, (part + 1) * count // parts) for part in range(parts)]

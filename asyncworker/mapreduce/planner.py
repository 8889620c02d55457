"""How a number of items is divided. Pure: no source is looked at here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

FIRST = 200
"""Items in a partition before anything was measured."""
UNKNOWN = 10_000
"""And where nothing will be, for nobody works yet."""
TARGET_S = 1.5
"""How long a partition is to take: long beside what handing it over costs, short beside what is lost with a worker."""
LEAST_S = 0.1
"""The shortest a partition is made at the tail: some ten times what handing it over costs."""
GROWTH = 8
"""A partition has at most so many times as many items as the largest that was measured."""
SHARES = 4
"""At the tail a partition is this part of a worker's share of what is left (weighted factoring, work/factoring.py)."""
RESULT_BYTES = 16 * 2**20
"""How large what a partition comes to may become: its worker and the reducer hold it in memory."""
MOST = 1_000_000
GRAIN = 250
"""Rows by which a table is cut when the size of partitions is decided as they are shipped."""


def cut(count: int, size: int) -> Iterator[range]:
    """Yield what is in order ``range(count)``, in ranges of *size* (1 or more); the last may be shorter."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def split(count: int, parts: int) -> list[range]:
    """Divide ``range(count)`` into *parts* ranges (1 or more) in order, whose lengths differ by one at most."""
    return [range(part * count // parts, (part + 1) * count // parts) for part in range(parts)]


def sizes_of(known: Mapping[int, tuple[int, int]]) -> list[int]:
    """Return the sizes of partitions 0, 1, … up to the last that is known.

    Args:
        known: the first item of some of them, and how many they have; what lies between two of them is divided evenly,
            by whole `GRAIN`s where it is made of such.
    """
    sizes: list[int] = []
    begin = 0
    for part, (first, items) in sorted(known.items()):
        if gap := part - len(sizes):
            grain = 1 if (first - begin) % GRAIN or (first - begin) // GRAIN < gap else GRAIN
            sizes += [grain * len(one) for one in split((first - begin) // grain, gap)]
        sizes.append(items)
        begin = first + items
    return sizes


class Sizing:
    """Decide, partition by partition, how many items the next one has, from what the last ones cost.

    Args:
        slots: how many partitions are mapped at once; may be changed.
        left: tells how many items are still to be cut, None where nobody knows.
    """

    def __init__(self, slots: int, left: Callable[[], float | None] = lambda: None) -> None:
        self.slots = slots
        self._left = left
        self._cost_s = self._bytes = 0.0
        self._largest = 0
        self._first = FIRST

    def __call__(self) -> int:
        """Return the number of items, 1 or more."""
        if not self._largest:
            return self._first
        cost_s = max(self._cost_s, 1e-9)
        size = min(TARGET_S / cost_s, GROWTH * self._largest, MOST)
        if (left := self._left()) is not None:
            size = min(size, max(left / (SHARES * max(self.slots, 1)), LEAST_S / cost_s))
        if self._bytes > 0:
            size = min(size, RESULT_BYTES / self._bytes)
        return max(1, int(size))

    def measured(self, items: int, seconds: float, size: int) -> None:
        """Take in what a partition took, and how many bytes it came to.

        The larger ones tell what an item costs: opening the source weighs little there.
        """
        if items <= 0:
            return
        if 2 * items >= self._largest:
            old = self._cost_s if 2 * self._largest >= items else 0.0
            self._cost_s = (old + seconds / items) / 2 if old else seconds / items
        self._bytes = max(self._bytes, size / items)
        self._largest = max(self._largest, items)

    def give_up(self) -> None:
        """Wait for measurements no longer: where there is none, take what usually does."""
        self._first = UNKNOWN

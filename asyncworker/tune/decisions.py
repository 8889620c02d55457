"""What was decided, and why: told to the bus, and the last thousand kept for those who ask later."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from asyncworker.events import Bus, Decided

KEPT = 1000


class Decisions:
    """The log that tuners and adaptive limiters write; iterate over it for the decisions, oldest first."""

    def __init__(self, bus: Bus | None = None, kept: int = KEPT) -> None:
        self._bus = bus
        self._log: deque[Decided] = deque(maxlen=kept)

    def add(self, name: str, old: int, new: int, because: str) -> None:
        """Note a change of size; what is no change is no decision."""
        if new == old:
            return
        decided = Decided(name, old, new, because)
        self._log.append(decided)
        if self._bus is not None:
            self._bus.emit(decided)

    def __iter__(self) -> Iterator[Decided]:
        return iter(tuple(self._log))

    def __len__(self) -> int:
        return len(self._log)

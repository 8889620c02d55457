"""Board: where processes leave numbers about themselves, and one of them looks; no message, so nothing can delay it.

Each process has a slot of its own and writes it alone; what it wrote stays when it dies. A heartbeat is a number that
changes: who looks decides by a clock of its own whether it stood still for too long, so no other clock is trusted.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import QueueFull

SLOTS = 1024
_WORDS = 8
_FILE = "board"


class Gauges(msgspec.Struct, frozen=True):
    """What a process tells about itself.

    Attributes:
        beats: grows with each heartbeat. stage: 0 starting, 1 working, 2 leaving.
        running: jobs in hand. ended: jobs that ended, since it started.
        idle_us, up_us: microseconds in which it waited for work, and since it began to.
    """

    beats: int = 0
    stage: int = 0
    running: int = 0
    ended: int = 0
    idle_us: int = 0
    up_us: int = 0


class Board:
    """The board of a place.

    Args:
        make: whether to make it; else it must be there.
    """

    def __init__(self, place: Path, *, make: bool) -> None:
        size = SLOTS * _WORDS * 8
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if make else 0)
        descriptor = os.open(place / _FILE, flags, 0o600)
        try:
            if make:
                os.truncate(descriptor, size)
            self._memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self._words = memoryview(self._memory).cast("Q")

    def write(self, slot: int, gauges: Gauges) -> None:
        at = slot * _WORDS
        for word, value in enumerate(msgspec.structs.astuple(gauges)):
            self._words[at + word] = value

    def read(self, slot: int) -> Gauges:
        at = slot * _WORDS
        return Gauges(*self._words[at : at + len(Gauges.__struct_fields__)])

    def close(self) -> None:
        self._words.release()
        self._memory.close()


class Watch:
    """Give out the slots of a board, and notice whose heart stands still."""

    def __init__(self, board: Board, clock: Clock = SYSTEM) -> None:
        self._board, self._clock = board, clock
        self._slots: dict[str, int] = {}
        self._free = list(range(SLOTS - 1, -1, -1))
        self._seen: dict[str, tuple[int, float]] = {}

    def admit(self, name: str) -> int:
        """Give *name* an empty slot, or its own emptied. QueueFull: there is none left."""
        if name not in self._slots and not self._free:
            raise QueueFull(f"there are {SLOTS} processes already")
        slot = self._slots[name] if name in self._slots else self._slots.setdefault(name, self._free.pop())
        self._board.write(slot, Gauges())
        self._seen[name] = (0, self._clock.monotonic())
        return slot

    def dismiss(self, name: str) -> None:
        """Take the slot back."""
        if (slot := self._slots.pop(name, None)) is not None:
            self._free.append(slot)
            del self._seen[name]

    def read(self, name: str) -> Gauges:
        """Return what *name* has told; nothing but zeros for one that was never admitted."""
        return self._board.read(self._slots[name]) if name in self._slots else Gauges()

    def silence(self, name: str) -> float:
        """Return for how many seconds *name* was seen without a heartbeat; call it now and then."""
        beats, since = self._seen[name]
        now = self._clock.monotonic()
        if (seen := self._board.read(self._slots[name]).beats) != beats:
            since = now
            self._seen[name] = (seen, now)
        return now - since

    def alive(self, timeout: float) -> list[str]:
        """Return who was not silent for longer than *timeout* seconds."""
        return [name for name in self._slots if self.silence(name) <= timeout]

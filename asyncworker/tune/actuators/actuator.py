"""What an actuator is: something whose size may be turned while it is in use. Every other file in this folder is one."""

from __future__ import annotations

from typing import Protocol


class Actuator(Protocol):
    """A size, its bounds, and how much of it is in use."""

    @property
    def name(self) -> str:
        """Return the name by which decisions speak of it; from a closed set, never an id."""
        ...

    @property
    def low(self) -> int:
        """Return the least size, 1 or more."""
        ...

    @property
    def high(self) -> int:
        """Return the greatest size."""
        ...

    @property
    def size(self) -> int:
        """Return the size that is wanted now."""
        ...

    @property
    def in_use(self) -> int:
        """Return how many units are in use; for a while more than `size`, after that has shrunk."""
        ...

    def resize(self, size: int) -> None:
        """Want *size* units from now on, clamped to the bounds; returns at once.

        Nothing in use is taken away: what is too much goes when it is given back.
        """
        ...

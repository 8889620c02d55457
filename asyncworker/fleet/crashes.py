"""Crash loops: whoever dies before it is of use, again and again, is started less and less often, and somebody is told.

A job that kills its workers is no such loop: it is given up after a few deaths, and others wait behind it.
"""

from __future__ import annotations

YOUNG_S = 10.0
"""Who lived for so long, or did a job, was of use: its death is the first of its kind."""
LONGEST_S = 60.0
LOOP = 3
"""So many young deaths in a row are a loop."""


class Crashes:
    """Count young deaths by name. The first is forgiven at once; then 1, 2, 4 … seconds up to a minute."""

    def __init__(self) -> None:
        self._row: dict[str, int] = {}
        self.total = 0

    def died(self, name: str, lived_s: float, jobs: int = 0) -> float:
        """Count a death, after so many jobs; returns how many seconds to wait before the next start under this name."""
        self.total += 1
        row = self._row[name] = 1 if lived_s >= YOUNG_S or jobs else self._row.get(name, 0) + 1
        return 0.0 if row == 1 else min(LONGEST_S, 2.0 ** (row - 2))

    def lives(self, name: str, lived_s: float) -> None:
        """Hear that *name* is alive; a long life ends its row."""
        if lived_s >= YOUNG_S:
            self._row.pop(name, None)

    def forget(self, name: str) -> None:
        self._row.pop(name, None)

    @property
    def looping(self) -> list[str]:
        """Return who dies young again and again."""
        return [name for name, row in self._row.items() if row >= LOOP]

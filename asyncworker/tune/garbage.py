"""How long the garbage collector stops the program, measured; and what to set differently, where that says so."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from asyncworker.tune.histogram import LogHistogram

LONG_S = 0.01
"""A pause that requests feel."""
MUCH = 0.01
"""A share of all time that is worth a change."""
INCREMENTAL = ((3, 14, 0), (3, 14, 5))
"""From the first of these to before the second, Python collects incrementally and knows no third threshold."""


class Pauses:
    """Time each collection, by generation, from `open` until `close`. Cost: two clock readings a collection."""

    def __init__(self) -> None:
        self.by_generation = {generation: LogHistogram() for generation in range(3)}
        self._began = 0.0

    def open(self) -> None:
        gc.callbacks.append(self._on)

    def close(self) -> None:
        if self._on in gc.callbacks:
            gc.callbacks.remove(self._on)

    def _on(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = perf_counter()
        elif self._began:
            self.by_generation[min(info["generation"], 2)].add(perf_counter() - self._began)


def advice(
    version: tuple[int, int, int], pauses: Mapping[int, LogHistogram], seconds: float, *, frozen: int, objects: int
) -> list[str]:
    """Return what to change about the collector; empty while its pauses, measured for *seconds*, hurt nobody.

    Args:
        frozen: objects that the collector has been told to leave alone. objects: those that it looks at.

    Sources: "Taming Python GC" (making.close.com) for freezing after the start, the changelog of Python 3.14.5.
    """
    whole = pauses[2]
    share = sum(of.sum for of in pauses.values()) / seconds if seconds > 0 else 0.0
    if whole.longest < LONG_S and share < MUCH:
        return []
    because = f"collections took {share:.1%} of the time, the longest full one {whole.longest:.3f} s"
    found = []
    if not frozen:
        found.append(
            f"Call gc.collect() and gc.freeze() once after the start ({because}): the {objects:,} objects that "
            "are there to stay would be looked at no more."
        )
    if INCREMENTAL[0] <= version < INCREMENTAL[1]:
        found.append(
            f"Python {'.'.join(map(str, version))} collects incrementally ({because}) and ignores the third threshold; "
            "raise the first, or take 3.14.5 or newer, which went back to generations."
        )
    elif pauses[0].count > 10 * max(1, whole.count) or share >= MUCH:
        found.append(f"Raise the first threshold, as in gc.set_threshold(50_000, 20, 100) ({because}).")
    return found

"""How many objects of each type there are, over the whole life of a process, in a bounded space."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Mapping, Sequence
from time import thread_time

LENGTH = 240
"""Samples kept. When they are full, each two become one, the lower of them, and so do all that follow."""
CHUNK = 2_000
"""Objects counted at a stretch: about 0.2 ms."""
WORTH = 50
"""Objects that a type must have had at once to be followed."""
MOST = 512
"""Types followed."""


def type_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


async def count() -> tuple[Counter[str], float]:
    """Return the objects that the garbage collector knows, by type name, and the longest stretch in seconds of CPU time.

    Strings, numbers and bytes are unknown to it. The list of the objects is made at one stretch (about a
    millisecond for 100,000); counting them gives way to the loop in between.
    """
    began = thread_time()
    objects = gc.get_objects()
    longest = thread_time() - began
    kinds: Counter[type] = Counter()
    while objects:
        await asyncio.sleep(0)
        began = thread_time()
        kinds.update(map(type, objects[-CHUNK:]))
        del objects[-CHUNK:]
        longest = max(longest, thread_time() - began)
    names: Counter[str] = Counter()
    for kind, number in kinds.items():
        names[type_name(kind)] += number
    return names, longest


class Series:
    """Equally spaced samples of many things, thinned as they get older: the lowest of each run stays."""

    def __init__(self, length: int = LENGTH, most: int = MOST, worth: float = WORTH) -> None:
        self._length, self._most, self._worth = length, most, worth
        self._kept: dict[str, list[float]] = {}
        self._run: list[Mapping[str, float]] = []
        self.times: list[float] = []
        self.run_length = 1

    def __getitem__(self, name: str) -> Sequence[float]:
        return self._kept[name]

    @property
    def many(self) -> Mapping[str, Sequence[float]]:
        return self._kept

    @property
    def spacing(self) -> float:
        """Seconds between two samples that are kept; 0.0 while there are fewer than two."""
        times = self.times
        return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0

    def add(self, time: float, sample: Mapping[str, float]) -> None:
        """Take one sample; what is not in it counts as 0."""
        self._run.append(sample)
        if len(self._run) < self.run_length:
            return
        run, self._run = self._run, []
        for name, value in run[-1].items():
            if name not in self._kept and value >= self._worth and len(self._kept) < self._most:
                self._kept[name] = [0.0] * len(self.times)
        for name, kept in self._kept.items():
            kept.append(min(one.get(name, 0) for one in run))
        self.times.append(time)
        if len(self.times) >= self._length:
            self._thin()

    def _thin(self) -> None:
        self.times = self.times[1::2]
        for name, kept in self._kept.items():
            self._kept[name] = [min(pair) for pair in zip(kept[::2], kept[1::2], strict=True)]
        self.run_length *= 2

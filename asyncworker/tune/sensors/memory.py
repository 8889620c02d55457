"""What this process's memory is made of, whether it leaks, and what would make it smaller. Cheap enough to leave on.

Counts of objects that are larger now than at the start prove nothing: a warm-up, the collector's saw-tooth and a busy
hour look the same. A leak is told only when the lowest counts of a type rise significantly, all types taken together
(`tune.trend`); then its line is looked for with a short trace. Nothing is collected by force.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from types import TracebackType
from typing import Self

import msgspec
import psutil

from asyncworker.errors import AsyncWorkerError, BadParameters
from asyncworker.tune.allocation import growing_lines, likely, survivors
from asyncworker.tune.census import CHUNK, WORTH, Series, count, type_name
from asyncworker.tune.garbage import Pauses, advice
from asyncworker.tune.layout import FEWEST, MOST, Suggestion, suggest
from asyncworker.tune.sensors.sensor import Reading
from asyncworker.tune.trend import Trend, growing, trend

EVERY_S = 10.0
WINDOW_S = 5.0
LONGEST_S = 0.005
"""A census that once stopped the loop for longer is taken no more of itself."""
TOP = 20
LINES = 3
RSS = "rss"


class Generation(msgspec.Struct, frozen=True):
    """One generation of the collector: its counts since the process started, its pauses since the sensor did."""

    collections: int
    collected: int
    uncollectable: int
    p50_s: float
    p99_s: float
    longest_s: float


class MemoryProfile(msgspec.Struct, frozen=True):
    """``uss_bytes`` is what would be free if this process ended, None where the system does not tell.

    ``traced_bytes`` is tracemalloc's count, None while it is off. ``types`` are the most frequent ones that the
    collector knows, so no strings and numbers. ``advice`` is about the collector, and mostly empty.
    """

    rss_bytes: int
    uss_bytes: int | None
    traced_bytes: int | None
    objects: int
    types: list[tuple[str, int]]
    generations: list[Generation]
    advice: list[str]


class Leak(msgspec.Struct, frozen=True):
    """A type whose objects become more and more; or, with ``type`` None, memory that does, of no type in particular.

    Attributes: ``per_s`` objects (or bytes) a second; ``z`` of the trend; ``file`` and ``line`` that made most of
    those that stay, empty and 0 when nothing new stayed while it was traced; ``share`` of them from that line, 0
    where the line is inferred; ``holders`` in words.
    """

    type: str | None
    per_s: float
    z: float
    file: str
    line: int
    share: float
    holders: tuple[str, ...]


class MemoryOptimizer:
    """Sample this process's memory from `start` until `stop`, or as an asynchronous context manager.

    Args:
        every: seconds between samples. A leak can be told after 60 samples, of which the first 30 % are left out as
            warm-up; 240 are kept, thinned as time goes by.
        window: seconds that each of the two traces lasts when `detect_leaks` suspects something.

    Cost: 0.3 microseconds an object and sample, in pieces of a fraction of a millisecond, but for the list of all of
    them. From some 200,000 objects on, that list alone holds the loop too long: objects are then counted no more, and
    leaks told by the process's size and by line. What `gc.freeze` has set aside does not count, and costs nothing.
    """

    def __init__(self, every: float = EVERY_S, window: float = WINDOW_S) -> None:
        if every <= 0 or window <= 0:
            raise BadParameters(f"every is {every} and window {window}; both must be above 0")
        self._every, self._window = every, window
        self._types, self._bytes = Series(worth=WORTH), Series()
        self._pauses = Pauses()
        self._process = psutil.Process()
        self._began = 0.0
        self._objects = 0
        self._suspects = 0
        self._dear = False
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<MemoryOptimizer {'sampling' if self._task else 'stopped'}, {len(self._bytes.times)} samples>"

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.stop()

    def start(self) -> None:
        """Sample from now on, in the running loop.

        Raises:
            AsyncWorkerError: it does already. RuntimeError: no loop runs in this thread.
        """
        if self._task is not None:
            raise AsyncWorkerError("this sensor samples already")
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="memory sensor")
        self._began = perf_counter()
        self._pauses.open()

    def close(self) -> None:
        """Stop sampling, without waiting for a sample that is being taken; what is known stays."""
        self._pauses.close()
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Stop sampling; what is known stays. Harmless when stopped."""
        task = self._task
        self.close()
        if task is not None:
            await asyncio.wait({task})
            self._task = None

    async def sample(self) -> None:
        """Take one sample now: the process's size, and objects by type while that is cheap."""
        now = perf_counter()
        self._bytes.add(now, {RSS: float(self._process.memory_info().rss)})
        if not self._dear:
            names, longest = await count()
            self._objects, self._dear = names.total(), longest > LONGEST_S
            self._types.add(now, names)

    async def profile_memory(self) -> MemoryProfile:
        """Return what there is now. Cost: a census, and a walk through the process's pages in a thread."""
        names, _ = await count()
        self._objects = names.total()
        uss = await asyncio.to_thread(self._uss)
        return MemoryProfile(
            self._process.memory_info().rss,
            uss,
            tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else None,
            self._objects,
            names.most_common(TOP),
            self._generations(),
            advice(
                sys.version_info[:3],
                self._pauses.by_generation,
                perf_counter() - self._began if self._began else 0.0,
                frozen=gc.get_freeze_count(),
                objects=self._objects,
            ),
        )

    async def detect_leaks(self) -> list[Leak]:
        """Return what leaks, the fastest first; empty when nothing does, or too few samples have been taken to say.

        Cost: nothing to speak of without a suspicion; with one, two windows in which allocations are traced.
        """
        suspects = growing(self._types.many)
        self._suspects = len(suspects)
        if suspects:
            return await self._leaks(suspects)
        size = trend(self._bytes[RSS]) if self._bytes.times else None
        if size is None or not size.matters:
            return []
        self._suspects = 1
        per_s = size.slope / self._bytes.spacing
        grown = await growing_lines(self._window)
        whole = sum(of.bytes_per_s for of in grown)
        return [Leak(None, per_s, size.z, of.file, of.line, of.bytes_per_s / whole, ()) for of in grown[:LINES]] or [
            Leak(None, per_s, size.z, "", 0, 0.0, ())
        ]

    async def _leaks(self, suspects: Mapping[str, Trend]) -> list[Leak]:
        found = await survivors(suspects.keys(), self._window)
        grown = await growing_lines(self._window) if suspects.keys() - found.keys() else []
        leaks = []
        for name, of in suspects.items():
            per_s, share, holders = of.slope / self._types.spacing, 0.0, tuple[str, ...]()
            if name in found:
                lines, holders = found[name].lines, found[name].holders
                place, number = lines.most_common(1)[0]
                share = number / lines.total()
            else:
                place = likely(name, per_s, grown) or ("", 0)
            leaks.append(Leak(name, per_s, of.z, *place, share, holders))
        return sorted(leaks, key=lambda leak: leak.per_s, reverse=True)

    async def optimize_data_structures(self, records: Iterable[object] | None = None) -> list[Suggestion]:
        """Return other forms for records that were weighed and found lighter by a fifth at least.

        Args:
            records: of any types; without them, the plain objects of which this process has most.
        """
        kinds: dict[type, list[object]] = {}
        for record in await _frequent() if records is None else records:
            of = kinds.setdefault(type(record), [])
            if len(of) < MOST:
                of.append(record)
        found = []
        for of in kinds.values():
            await asyncio.sleep(0)
            if (suggestion := suggest(of)) is not None:
                found.append(suggestion)
        return sorted(found, key=lambda one: one.saved, reverse=True)

    def read(self) -> Sequence[Reading]:
        rss = self._bytes.many.get(RSS)
        pauses = self._pauses.by_generation
        return [
            Reading("memory_rss_bytes", rss[-1] if rss else float(self._process.memory_info().rss)),
            Reading("memory_objects", self._objects),
            Reading("memory_leaks_suspected", self._suspects),
            *(
                Reading("gc_pause_seconds_total", of.sum, (("generation", str(number)),))
                for number, of in pauses.items()
            ),
        ]

    async def _watch(self) -> None:
        while True:
            began = perf_counter()
            await self.sample()
            await asyncio.sleep(max(0.0, self._every - (perf_counter() - began)))

    def _uss(self) -> int | None:
        try:
            return int(self._process.memory_full_info().uss)
        except (psutil.AccessDenied, AttributeError):
            return None

    def _generations(self) -> list[Generation]:
        return [
            Generation(
                told["collections"],
                told["collected"],
                told["uncollectable"],
                of.quantile(0.5),
                of.quantile(0.99),
                of.longest,
            )
            for told, of in zip(gc.get_stats(), self._pauses.by_generation.values(), strict=False)
        ]


async def _frequent() -> list[object]:
    """Return some of the objects of those types of which there are most, without the standard library's and ours."""
    names, _ = await count()
    wanted = [name for name, number in names.most_common(TOP) if number >= FEWEST]
    wanted = [name for name in wanted if name.partition(".")[0] not in {*sys.stdlib_module_names, "asyncworker"}]
    kinds: dict[str, list[object]] = {name: [] for name in wanted}
    objects = gc.get_objects()
    while objects:
        for thing in objects[-CHUNK:]:
            if (of := kinds.get(type_name(type(thing)))) is not None and len(of) < MOST:
                of.append(thing)
        del objects[-CHUNK:]
        await asyncio.sleep(0)
    return [thing for of in kinds.values() for thing in of]

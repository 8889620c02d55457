"""On which line the objects were made that stay: a look through tracemalloc, short, and only on suspicion.

Tracing makes allocations several times slower, so it is on for two windows of seconds, with one frame. What was
made in the first window and is still there after the second is no passing thing.
"""

from __future__ import annotations

import asyncio
import gc
import linecache
import sys
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import thread_time
from types import CoroutineType, FrameType

import msgspec

from asyncworker.tune.census import CHUNK, type_name

Line = tuple[str, int]

LOOKED_AT = 3
BUDGET_S = 0.05
"""CPU time after which no further object is looked at."""
TOO_MANY = 500_000
"""Among so many objects, to find out who refers to one takes too long."""
TOP = 3
OURS = (tracemalloc.__file__, str(Path(__file__).parent))
"""Whose own memory is not looked for."""


class Survivors(msgspec.Struct, frozen=True):
    """``lines``: how many objects of a type were made on which line and stayed; ``holders`` say who has some of them."""

    lines: Counter[Line]
    holders: tuple[str, ...]


class Growth(msgspec.Struct, frozen=True, gc=False):
    """A line that made memory which stayed."""

    file: str
    line: int
    bytes_per_s: float
    blocks_per_s: float


@contextmanager
def tracing() -> Iterator[None]:
    """Trace allocations, one frame each; leave it on where somebody else has it on."""
    ours = not tracemalloc.is_tracing()
    if ours:
        tracemalloc.start(1)
    try:
        yield
    finally:
        if ours:
            tracemalloc.stop()


async def survivors(names: Collection[str], window: float) -> dict[str, Survivors]:
    """Return for each of the types that has any the objects that were made in one window and outlived the next.

    Args:
        window: seconds; it takes two of them, in which the process is slower.
    """
    with tracing():
        await asyncio.sleep(window)
        young = {id(thing): line async for thing, _, line in _traced(names)}
        await asyncio.sleep(window)
        lines: dict[str, Counter[Line]] = {}
        some: dict[str, list[object]] = {}
        async for thing, name, line in _traced(names):
            if young.get(id(thing)) == line:
                lines.setdefault(name, Counter())[line] += 1
                if len(some.setdefault(name, [])) < LOOKED_AT:
                    some[name].append(thing)
    return {name: Survivors(of, _holders(some[name])) for name, of in lines.items()}


async def growing_lines(window: float) -> list[Growth]:
    """Return the lines whose memory, of any type, was not given back in two windows; the most bytes first."""
    with tracing():
        await asyncio.sleep(window)
        first = tracemalloc.take_snapshot()
        await asyncio.sleep(window)
        second = tracemalloc.take_snapshot()
    found = []
    for change in second.compare_to(first, "lineno"):
        size = min(change.size - change.size_diff, change.size_diff)
        number = min(change.count - change.count_diff, change.count_diff)
        frame = change.traceback[0]
        if size > 0 and number > 0 and not frame.filename.startswith(OURS):
            found.append(Growth(frame.filename, frame.lineno, size / window, number / window))
    return sorted(found, key=lambda growth: growth.bytes_per_s, reverse=True)


def likely(name: str, per_s: float, grown: Sequence[Growth]) -> Line | None:
    """Return the line that probably makes the objects of a type, among those that grow at least half as fast.

    Python 3.11 cannot tell the line of an object with a ``__dict__`` (its tracemalloc looks at
    the wrong address). A line that has the name of the type in it is taken first.
    """
    word = name.rpartition(".")[2]
    fast = [of for of in grown if of.blocks_per_s >= per_s / 2]
    fast.sort(key=lambda of: word in linecache.getline(of.file, of.line), reverse=True)
    return (fast[0].file, fast[0].line) if fast else None


async def _traced(names: Collection[str]) -> AsyncIterator[tuple[object, str, Line]]:
    """Yield the objects of these types that were made while tracing; gives way to the loop now and then."""
    objects, kinds = gc.get_objects(), dict[type, str | None]()
    while objects:
        part = objects[-CHUNK:]
        del objects[-CHUNK:]
        for thing in part:
            kind = type(thing)
            if kind not in kinds:
                kinds[kind] = name if (name := type_name(kind)) in names else None
            wanted = kinds[kind]
            if wanted is not None and (trace := tracemalloc.get_object_traceback(thing)):
                yield thing, wanted, (trace[-1].filename, trace[-1].lineno)
        await asyncio.sleep(0)


def _holders(things: list[object]) -> tuple[str, ...]:
    """Return in words who refers to these, as far as that can be said within the time."""
    if len(gc.get_objects()) > TOO_MANY:
        return ()
    began, found = thread_time(), Counter[str]()
    globals_ = {
        id(value): f"{name}.{key}"
        for name, module in list(sys.modules.items())
        for key, value in list(getattr(module, "__dict__", {}).items())
        if gc.is_tracked(value)
    }
    for thing in things:
        if found and thread_time() - began > BUDGET_S:
            break
        for holder in gc.get_referrers(thing):
            owner = globals_.get(id(holder)) or _owner(holder)
            if holder is not things and owner is not None:
                found[f"{type_name(type(holder))} {owner}".rstrip()] += 1
    return tuple(place for place, _ in found.most_common(TOP))


def _owner(holder: object) -> str | None:
    """Return in words whose attribute a container is, None when it is only passing by in a frame or coroutine."""
    if isinstance(holder, FrameType | CoroutineType):
        return None
    for other in gc.get_referrers(holder):
        if isinstance(other, CoroutineType):
            return None
        if not isinstance(other, FrameType | list | tuple | dict):
            return f"of {type_name(type(other))}"
    return ""

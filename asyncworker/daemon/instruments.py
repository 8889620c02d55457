"""The instruments of a worker process: sensors that are always on, and snapshots of them for those who look.

Snapshots lie in the engine's keep, so ``asyncworker top`` sees workers of other processes and machines: one a minute,
and one a second while somebody looks. Jobs are counted by task only then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from time import perf_counter
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from asyncworker.engine import Engine
from asyncworker.errors import KeepError
from asyncworker.queue.keeps.keep import Keep
from asyncworker.tune.bottleneck import Bottleneck
from asyncworker.tune.sensors.loop import LoopSensor
from asyncworker.tune.sensors.memory import MemoryOptimizer
from asyncworker.tune.sensors.profiler import FunctionProfile, PerformanceProfiler
from asyncworker.tune.sensors.tasks import TasksSensor
from asyncworker.tune.top import Snapshot, Top

T = TypeVar("T")
log = logging.getLogger(__name__)

WATCHED_S = 1.0
ALONE_S = 5.0
"""How often a worker looks whether somebody looks."""
IDLE_S = 60.0
"""How often a snapshot is written while nobody does."""
SNAPSHOT_S = 150.0
WATCH_S = 10.0
"""How long a snapshot, and the wish to see them, are kept."""
SNAPSHOTS, WATCHES, PROFILES = "top", "watches", "profiles"
PROFILED = "profile of "
"""How the name of who wants to see profiles, too, begins."""
MOST_FUNCTIONS = 50
LARGEST = 512 * 1024
"""Bytes of the paths of one profile; larger ones are not shown."""
PATIENCE_S = 1.0
SETTLED_S = 5.0
"""When memory is first looked at: a count of all objects is no way to begin a short burst."""


class Look(msgspec.Struct, frozen=True):
    """A worker process at one moment.

    Attributes:
        source: ``host:pid``. watched: jobs were counted since the snapshot before.
        sizes: what is sized there: its size, and how much of that is in use.
    """

    source: str
    watched: bool
    queues: tuple[str, ...]
    sizes: dict[str, tuple[int, int]]
    snapshot: Snapshot


class ProfileLook(msgspec.Struct, frozen=True):
    """Where a worker's time went since its start; ``paths`` is a file of `speedscope`, empty where it is too large."""

    source: str
    seconds: float
    functions: list[FunctionProfile]
    bottlenecks: list[Bottleneck]
    paths: bytes


class Instruments:
    """Measure the process in whose loop this is used as an async context manager; the engine's workers are told of it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.loop, self.memory = LoopSensor(), MemoryOptimizer()
        self.profiler, self.tasks = PerformanceProfiler(tasks=False), TasksSensor(engine.bus)
        self._top = Top(self.loop, self.profiler, self.memory, self.tasks, engine.running)
        self._source = f"{socket.gethostname()}:{os.getpid()}"
        self._publishing: asyncio.Task[None] | None = None
        self._away = False
        self._later: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self.loop.start()
        self._later = asyncio.get_running_loop().call_later(SETTLED_S, self.memory.start)
        self.profiler.start_profiling()
        self._engine.profiler = self.profiler
        if (keep := self._engine.keep) is not None:
            self._publishing = asyncio.get_running_loop().create_task(self._publish(keep), name="instruments")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._engine.profiler = None
        if self._publishing is not None and (keep := self._engine.keep) is not None:
            self._publishing.cancel()
            await asyncio.wait([self._publishing])
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await keep.drop(SNAPSHOTS, self._source)
            except (KeepError, TimeoutError):
                self._away = True  # it goes by itself
        self.tasks.close()
        self.profiler.close()
        self.loop.close()
        if self._later is not None:
            self._later.cancel()
        await self.memory.stop()

    def look(self, *, watched: bool) -> Look:
        """Return what there is now."""
        sizes = {name: (of.size, of.in_use) for name, of in dict(self._engine.optimizer.decisions.watched).items()}
        return Look(self._source, watched, tuple(self._engine.queues), sizes, self._top.snapshot())

    def profile(self) -> ProfileLook:
        """Return where the time went so far."""
        report, paths = self.profiler.get_profile_report(), self.profiler.speedscope(self._source)
        found = self.profiler.analyze_bottlenecks()
        shown = paths if len(paths) <= LARGEST else b""
        return ProfileLook(self._source, report.seconds, report.functions[:MOST_FUNCTIONS], found, shown)

    async def _publish(self, keep: Keep) -> None:
        written, counting = float("-inf"), False
        while True:
            try:
                names = await keep.values(WATCHES)
                watched = bool(names)
                if any(name.startswith(PROFILED) for name in names):
                    await keep.put(PROFILES, {self._source: msgspec.json.encode(self.profile())}, WATCH_S)
                if watched or perf_counter() - written >= IDLE_S:
                    value = msgspec.json.encode(self.look(watched=watched and counting))
                    await keep.put(SNAPSHOTS, {self._source: value}, SNAPSHOT_S)
                    written = perf_counter()
                self._away = False
            except KeepError as exc:
                watched = False
                if not self._away:
                    self._away = True
                    log.info("nobody can look at this worker now: %s", exc)
            if watched:
                self.tasks.start()
            else:
                self.tasks.close()
            counting = watched
            await asyncio.sleep(WATCHED_S if watched else ALONE_S)


async def watch(keep: Keep, name: str) -> None:
    """Ask for snapshots each second, for the next ten; *name* is who asks.

    Raises:
        KeepError: the keep cannot be reached.
    """
    await keep.put(WATCHES, {name: b""}, WATCH_S)


async def looks(keep: Keep) -> list[Look]:
    """Return the last look at each worker, by name; what another version wrote is left out.

    Raises:
        KeepError: the keep cannot be reached.
    """
    return await _all(keep, SNAPSHOTS, Look)


async def profiles(keep: Keep) -> list[ProfileLook]:
    """Return the profiles of the last seconds that somebody asked for (`PROFILED`), by name.

    Raises:
        KeepError: the keep cannot be reached.
    """
    return await _all(keep, PROFILES, ProfileLook)


async def _all(keep: Keep, table: str, kind: type[T]) -> list[T]:
    found = []
    for _, value in sorted((await keep.values(table)).items()):
        try:
            found.append(msgspec.json.decode(value, type=kind))
        except msgspec.DecodeError:
            continue
    return found

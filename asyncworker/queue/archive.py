"""Archive: lets what was decided and learned outlive the process, and be seen by others, through a keep.

    decisions   log     each change of a size, but for those that only try what is nearby; the last thousand
    rollups     log     all changes by cause, sizes and throughput, by actuator and stretch of ten seconds
    learned     table   what policies have learned, by name

The work never waits for it: where the keep is away that is told once, and written later what of it still fits.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, cast
from urllib.parse import quote

import msgspec

from asyncworker import registry
from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import KeepError
from asyncworker.events import Decided
from asyncworker.queue.keeps.keep import LOG_S, Keep
from asyncworker.tune.decisions import KEPT, PROBES, Decisions, cause
from asyncworker.tune.rollup import Rollup, Rollups

log = logging.getLogger(__name__)

EVERY_S = 10.0
PATIENCE_S = 5.0
"""How long a start waits for what was learned, and an end for the last to be written."""
DECISIONS, ROLLUPS, LEARNED = "decisions", "rollups", "learned"
MOST_ROLLUPS = 8_640
"""A day of one actuator."""
MOST_WAITING = 1_000
MOST_LEARNED = 1_000
LARGEST = 256 * 1024
"""Bytes of what one policy has learned."""


class Kept(Decided, frozen=True, omit_defaults=True):
    """A decision, and which process it was made in: ``host:pid``."""

    source: str = ""


class History(msgspec.Struct, frozen=True):
    """What a keep knows, oldest first."""

    decisions: list[Kept]
    rollups: list[Rollup]


class Learner(Protocol):
    """Who decides and learns."""

    @property
    def decisions(self) -> Decisions: ...

    @property
    def learned(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what was learned so far, by name, as JSON values."""
        ...

    def remember(self, learned: Mapping[str, dict[str, Any]]) -> None:
        """Go on from what was learned before, where nothing was learned since."""
        ...


class Deciding:
    """One who decides and learns nothing, and does not go on from what others decided."""

    def __init__(self, decisions: Decisions) -> None:
        self.decisions = decisions
        self.learned: dict[str, dict[str, Any]] = {}

    def remember(self, learned: Mapping[str, dict[str, Any]]) -> None:
        """Do nothing."""


class Archive:
    """Keep what one learner decides and learns, as long as anybody is inside ``async with``; used by one event loop.

    It loads at the start, and writes what is new every ten seconds and at the end.
    """

    def __init__(self, keep: Keep, learner: Learner, *, every: float = EVERY_S, clock: Clock = SYSTEM) -> None:
        self._keep, self._learner, self._every, self._clock = keep, learner, every, clock
        self._source = f"{socket.gethostname()}:{os.getpid()}"
        self._rollups = Rollups(learner.decisions, clock.now(), self._source)
        self._waiting: dict[str, deque[bytes]] = {
            DECISIONS: deque(maxlen=KEPT),
            ROLLUPS: deque(maxlen=MOST_WAITING),
        }
        self._written: dict[str, bytes] = {}
        self._seen = learner.decisions.total
        self._away = False
        self._users = 0
        self._loading = asyncio.Lock()
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        async with self._loading:
            if self._running is None:
                await self.load()
                self._running = asyncio.get_running_loop().create_task(self._run(), name="archive")
            self._users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._users -= 1
        if self._users == 0 and self._running is not None:
            running, self._running = self._running, None
            running.cancel()
            await asyncio.wait([running])
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self.flush()
            except TimeoutError as exc:
                self._told(exc)

    async def load(self) -> None:
        """Let the learner go on from what is kept; without it where the keep does not answer in time."""
        if isinstance(self._learner, Deciding):
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                kept = await self._keep.values(LEARNED)
                before = await self._keep.last(DECISIONS, KEPT)
        except (KeepError, TimeoutError) as exc:
            self._told(exc)
            return
        self._written = kept
        self._learner.remember(dict(_decoded(kept.items())))
        self._learner.decisions.restore(_all(before, Kept))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await self.flush()

    async def flush(self) -> None:
        """Write what is new since the last time; what cannot be written waits for the next."""
        self._gather()
        learned = self._learned()
        try:
            for name, most in ((DECISIONS, KEPT), (ROLLUPS, MOST_ROLLUPS)):
                waiting = self._waiting[name]
                if entries := list(waiting):
                    await self._keep.append(name, entries, most)
                    for _ in entries:
                        waiting.popleft()
            if learned:
                await self._keep.put(LEARNED, learned, LOG_S)
                self._written |= learned
        except KeepError as exc:
            self._told(exc)
        else:
            self._away = False

    def _gather(self) -> None:
        decisions = self._learner.decisions
        for one in decisions.since(self._seen):
            if cause(one.because) not in PROBES:
                kept = Kept(one.name, one.old, one.new, one.because, one.at_s, self._source)
                self._waiting[DECISIONS].append(msgspec.json.encode(kept))
        self._seen = decisions.total
        self._waiting[ROLLUPS].extend(map(msgspec.json.encode, self._rollups.take(self._clock.now())))

    def _learned(self) -> dict[str, bytes]:
        packed = ((name, msgspec.json.encode(state)) for name, state in self._learner.learned.items())
        changed = {name: state for name, state in packed if self._written.get(name) != state and len(state) <= LARGEST}
        return dict(list(changed.items())[:MOST_LEARNED])

    def _told(self, exc: Exception) -> None:
        if not self._away:
            self._away = True
            log.warning("what is decided and learned cannot be kept now: %s", str(exc) or "no answer in time")


def open_keep(place: str, namespace: str) -> Keep:
    """Open the keep at a URL, or in the file at a path; nothing is connected before it is used.

    Raises:
        UnknownName: there is no such kind. SettingsError, KeepError: a place that cannot be used.
    """
    scheme, slashes, _ = place.partition("://")
    url = place if slashes else f"file://{quote(place)}"
    return cast("Keep", registry.find("keep", scheme if slashes else "file").open(url, namespace=namespace))


async def history(keep: Keep) -> History:
    """Return what is kept, also by other processes; what cannot be read (another version wrote it) is left out.

    Raises:
        KeepError: the keep cannot be reached.
    """
    decisions = _all(await keep.last(DECISIONS, KEPT), Kept)
    return History(sorted(decisions, key=lambda one: one.at_s), _all(await keep.last(ROLLUPS, MOST_ROLLUPS), Rollup))


T = TypeVar("T")


def _all(entries: Iterable[bytes], kind: type[T]) -> list[T]:
    """Return entries decoded, each once: one whose answer was lost is written twice."""
    found = []
    for entry in dict.fromkeys(entries):
        try:
            found.append(msgspec.json.decode(entry, type=kind))
        except msgspec.DecodeError:  # a validation error is one, too
            continue
    return found


def _decoded(values: Iterable[tuple[str, bytes]]) -> Iterable[tuple[str, dict[str, Any]]]:
    for name, value in values:
        for state in _all([value], dict[str, Any]):
            yield name, state

"""What happened, told to whoever listens. Rooms emit; no line of work names a metric or a log.

| event           | emitted by        | when                                                        |
|-----------------|-------------------|-------------------------------------------------------------|
| WorkerStarted   | worker            | it has joined the broker and is about to claim              |
| WorkerStopped   | worker            | it has drained and left                                     |
| JobsClaimed     | worker, fetcher   | once a round trip that brought jobs                         |
| JobsEnded       | worker, fetcher   | once a round trip that settled jobs                         |
| JobsFailed      | worker, fetcher   | once a round trip that settled jobs of which some failed    |
| WorkerIdled     | worker, fetcher   | it begins or ends to wait for work, with room for any       |
| BrokerDisrupted | broker            | once an outage, at its first failed call                    |
| BrokerRestored  | broker            | at the first answer after an outage                         |
| LeaseEnded      | worker, keeper    | the worker was fenced, or fenced itself                     |
| WorkerReaped    | worker, sweeper   | a dead worker's jobs were given back                        |
| JobAbandoned    | worker, runner    | a cancelled job would not stop, and was given up            |
| ProcessEnded    | fleet, manager    | a worker process ended without having been told to          |
| Decided         | tuner, limiters   | a size was changed, and because of what                     |
| BorrowLeaked    | pool              | a borrowed connection is not coming back, as it seems       |
| BorrowReturned  | pool              | one that was told of as leaked came back after all          |
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

log = logging.getLogger(__name__)


class Event(msgspec.Struct, frozen=True):
    """Something that happened; data only."""


class WorkerStarted(Event, frozen=True):
    """``concurrency``: jobs at once; 0 where that is sought."""

    epoch: str
    queues: tuple[str, ...]
    concurrency: int


class WorkerStopped(Event, frozen=True):
    epoch: str
    handed_back: int


class JobsClaimed(Event, frozen=True):
    epoch: str
    count: int
    redelivered: int


class JobEnd(msgspec.Struct, frozen=True, gc=False):
    """One attempt that ended.

    ``status``: the job's state, or ``snoozed``, ``unknown`` (put back, as its task is not known here). ``wait_s``
    counts from when the job could have started; -1 for a later attempt. ``error``: its type and text, "" where none was.
    """

    task: str
    queue: str
    status: str
    wait_s: float
    duration_s: float
    id: str = ""
    error: str = ""


class JobsEnded(Event, frozen=True):
    epoch: str
    ends: list[JobEnd]


class JobsFailed(Event, frozen=True):
    """Those attempts alone that failed for good: telling of each one that ended takes a tenth of its time."""

    epoch: str
    ends: list[JobEnd]


class WorkerIdled(Event, frozen=True):
    epoch: str
    idle: bool


class BrokerDisrupted(Event, frozen=True):
    broker: str
    error: str


class BrokerRestored(Event, frozen=True):
    broker: str
    outage_s: float


class LeaseEnded(Event, frozen=True):
    epoch: str
    because: str


class WorkerReaped(Event, frozen=True):
    epoch: str
    jobs: int


class JobAbandoned(Event, frozen=True):
    """A cancelled job that would not stop: it goes on here, and its word does not count any more.

    ``stack``: where it stood, ``file:line in function``, the outermost call first.
    """

    id: str
    task: str
    queue: str
    stack: tuple[str, ...]


class ProcessEnded(Event, frozen=True):
    """``again_s``: when another begins under its name."""

    name: str
    pid: int
    because: str
    again_s: float


class BorrowLeaked(Event, frozen=True):
    """``place``: file:line of the borrowing call, in which function."""

    pool: str
    place: str
    held_s: float
    because: str


class BorrowReturned(Event, frozen=True):
    pool: str
    place: str
    held_s: float


class Decided(Event, frozen=True):
    """The actuator *name* has another size now; *because* is a clause for people, ``at_s`` a date."""

    name: str
    old: int
    new: int
    because: str
    at_s: float = 0.0


E = TypeVar("E", bound=Event)
Listener = Callable[[Any], None]


class Bus:
    """Hand each event to the listeners of its type, in the order in which they came.

    A listener that raises is logged and does not disturb the others nor the emitter. Listeners are called
    in the emitter's thread and must return at once. Cost where nobody listens: one dictionary look-up.
    """

    def __init__(self) -> None:
        self._listeners: dict[type[Event], list[Listener]] = {}

    def listen(self, kind: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call *listener* with each event of exactly this *kind*; returns a function that ends it."""
        self._listeners.setdefault(kind, []).append(listener)

        def end() -> None:
            listeners = self._listeners.get(kind, [])
            if listener in listeners:
                listeners.remove(listener)
            if not listeners:
                self._listeners.pop(kind, None)

        return end

    def wants(self, kind: type[Event]) -> bool:
        """Return whether anybody listens to this *kind*: ask before making a dear event."""
        return kind in self._listeners

    def emit(self, event: Event) -> None:
        for listener in tuple(self._listeners.get(type(event), ())):
            try:
                listener(event)
            except Exception:
                log.exception("a listener of %s failed", type(event).__name__)

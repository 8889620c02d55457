"""Search: which jobs are meant, and how a broker is gone through for them, page by page.

A walk goes from place to place, against the way that jobs take: first those that are over, then those that run, are
queued, are delayed, are blocked. So a job that moves on while somebody walks may be missed, but is not met twice; one
that goes the other way, for it is tried again or handed back, may be. No walk holds anybody up: each step of it looks at a
bounded number of jobs, whatever is found among them.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from asyncworker.errors import BadParameters, DecodeError
from asyncworker.queue.codec import born_ms, unpack_call, unpack_record
from asyncworker.queue.job import Found, Record, State, parent_of

MOST = 200
"""Jobs that one step of a walk looks at."""
ORDER = (
    State.CANCELLED,
    State.EXPIRED,
    State.FAILED,
    State.SUCCEEDED,
    State.RUNNING,
    State.QUEUED,
    State.SCHEDULED,
    State.RETRYING,
    State.BLOCKED,
)
"""States in the order in which a walk comes to them."""


def rank(state: State) -> int:
    """Return when a walk comes to this state: delayed jobs, first or again, lie together."""
    return ORDER.index(State.SCHEDULED if state is State.RETRYING else state)


class Query(msgspec.Struct, frozen=True):
    """Which jobs are meant: those of these states, of this queue and task ("": any).

    ``since_s`` and ``until_s`` bound when they were enqueued, in seconds since the epoch, the second exclusive. Parts of
    map/reduce jobs are never meant. Of a job that is over, queue and task are what its record says: one that was
    cancelled before it ran has none.
    """

    states: frozenset[State] = frozenset(State)
    queue: str = ""
    task: str = ""
    since_s: float = 0.0
    until_s: float = 0.0

    def may_be(self, job_id: str) -> bool:
        """Return what the id alone says."""
        born = born_ms(job_id) / 1000
        return parent_of(job_id) is None and self.since_s <= born and not self.is_past(job_id)

    def is_past(self, job_id: str) -> bool:
        return bool(self.until_s) and born_ms(job_id) / 1000 >= self.until_s

    def fits(self, found: Found) -> bool:
        return (
            found.state in self.states
            and self.queue in {"", found.queue}
            and self.task in {"", task_of(found)}
            and self.may_be(found.id)
        )


class Page(msgspec.Struct, frozen=True):
    """What one step of a walk found, and where the next one goes on; "": there is no more."""

    jobs: list[Found]
    cursor: str = ""


class Stand(msgspec.Struct, frozen=True, array_like=True):
    """Where a walk is: at a place, behind a job in it; ``at`` is where that job stood, as the place counts."""

    rank: int
    place: str = ""
    after: str = ""
    at: str = ""


def task_of(found: Found) -> str:
    """Return a job's task, "" where nobody can read it."""
    if task := record_of(found).task:
        return task
    try:
        return unpack_call(found.payload)[0]
    except DecodeError:
        return ""


def record_of(found: Found) -> Record:
    """Return how a job ended, as far as this version can read it."""
    try:
        return unpack_record(found.record)
    except DecodeError:
        return Record()


def pack_stand(stand: Stand) -> str:
    return msgspec.json.encode(stand).decode()


def read_stand(cursor: str) -> Stand | None:
    """Return where a cursor stands, None for "".

    Raises:
        BadParameters: it is none.
    """
    try:
        return msgspec.json.decode(cursor, type=Stand) if cursor else None
    except msgspec.DecodeError as exc:
        raise BadParameters(f"{cursor!r} is no cursor of a page of jobs") from exc


def states_of(names: Iterable[str]) -> frozenset[State]:
    """Return states by their names, all of them where none is given.

    Raises:
        BadParameters: there is no such state.
    """
    try:
        return frozenset(map(State, names)) or frozenset(State)
    except ValueError as exc:
        raise BadParameters(f"{exc}; states are {', '.join(ORDER)}") from exc

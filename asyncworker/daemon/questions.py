"""What can be asked of the API: the types of its queries and bodies. Each field is checked as it says, and told so."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Text = Annotated[str, Meta(max_length=200)]
Ids = Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(min_length=1, max_length=1000)]
Date = Annotated[float, Meta(ge=0, le=1e11)]
Cursor = Annotated[str, Meta(max_length=500)]
Limit = Annotated[int, Meta(ge=1, le=200)]
Number = Annotated[int, Meta(ge=1, le=10**9)]


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a request brings along; nothing that nobody knows."""


class ChartQuery(Asked, frozen=True, kw_only=True):
    """How many of the last seconds."""

    seconds: Annotated[float, Meta(gt=0, le=600)] = 600.0


class JobsQuery(Asked, frozen=True, kw_only=True):
    """Which jobs: states with commas between them; when they were enqueued, the second exclusive."""

    state: Text = ""
    task: Text = ""
    queue: Text = ""
    since: Date = 0.0
    until: Date = 0.0
    cursor: Cursor = ""
    limit: Limit = 100


class RunsQuery(Asked, frozen=True, kw_only=True):
    """Which map/reduce jobs: states with commas between them."""

    state: Text = ""
    cursor: Cursor = ""
    limit: Limit = 50


class PartitionsQuery(Asked, frozen=True, kw_only=True):
    """Which partitions: so many from this number on."""

    first: Annotated[int, Meta(ge=0, le=10**9)] = 0
    limit: Limit = 200


class DeadQuery(Asked, frozen=True, kw_only=True):
    """Which dead letters."""

    queue: Text = ""
    task: Text = ""
    cursor: Cursor = ""
    limit: Limit = 100


class DecisionsQuery(Asked, frozen=True, kw_only=True):
    """About what: a task's name, or what else is sized; "": about all."""

    thing: Text = ""
    since: Date = 0.0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class SourceQuery(Asked, frozen=True, kw_only=True):
    """Which worker: ``host:pid``; "": all."""

    source: Text = ""


class ResultQuery(Asked, frozen=True, kw_only=True):
    """How many seconds to wait for the end."""

    wait: Annotated[float, Meta(ge=0, le=30)] = 0.0


class AuditQuery(Asked, frozen=True, kw_only=True):
    """How many of the last rows."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class Options(Asked, frozen=True, kw_only=True):
    """What is special about one call; what is not given is the task's own. Times in seconds."""

    queue: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    priority: Annotated[int, Meta(ge=0, le=9)] | None = None
    delay: Annotated[float, Meta(ge=0, le=1e8)] | None = None
    expires: Annotated[float, Meta(gt=0, le=1e8)] | None = None
    timeout: Annotated[float, Meta(gt=0, le=1e8)] | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] | None = None
    unique: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


class EnqueueBody(Asked, frozen=True, kw_only=True):
    """One call of a task."""

    task: Text
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    options: Options = Options()


class BatchBody(Asked, frozen=True, kw_only=True):
    """What is to be done to several jobs; ``confirm`` says it again. Only dead letters are retried and deleted."""

    action: Literal["cancel", "retry", "delete"]
    ids: Ids
    confirm: Text


class ConfirmBody(Asked, frozen=True, kw_only=True):
    """``confirm``: the name of what is acted on, typed again."""

    confirm: Text


class BoundBody(Asked, frozen=True, kw_only=True):
    """How many jobs may wait; null: any number."""

    most: Annotated[int, Meta(ge=0, le=10**9)] | None


class DeadBody(Asked, frozen=True, kw_only=True):
    """Which dead letters: by id, or all of a queue and task ("": of any). ``confirm``: ``replay``, or ``purge``."""

    confirm: Text
    ids: Ids | None = None
    queue: Text = ""
    task: Text = ""


class RestartBody(Asked, frozen=True, kw_only=True):
    """Which workers; none named: all. ``confirm``: ``restart``."""

    confirm: Text
    names: Annotated[list[Text], Meta(max_length=1000)] = []


class ScheduleBody(Asked, frozen=True, kw_only=True):
    """A schedule: a crontab expression, or an interval in seconds."""

    task: Text
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    cron: Text = ""
    every: Annotated[float, Meta(ge=0, le=1e8)] = 0.0
    tz: Text = "UTC"
    missed: Literal["last", "all", "skip"] = "last"
    options: Options = Options()


class RunBody(Asked, frozen=True, kw_only=True):
    """A map/reduce job over ``items``, over the dataset of an id, or over a ``source``: a URL or path.

    The last, and ``to`` (where rows go), are for tokens of the scope admin: workers read and write there.
    """

    items: list[Any] | None = None
    dataset: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,200}$")] | None = None
    source: Annotated[str, Meta(max_length=2000)] | None = None
    function: Text | None = None
    map: Text | None = None
    reduce: Text | None = None
    params: dict[str, Any] = {}
    partition_size: Number | None = None
    workers: Annotated[int, Meta(ge=1, le=1000)] | None = None
    max_failures: Annotated[int, Meta(ge=0, le=10**9)] | Annotated[float, Meta(ge=0, le=1)] | None = None
    to: Annotated[str, Meta(max_length=2000)] | None = None
    priority: Annotated[int, Meta(ge=0, le=9)] = 5


def given(options: Options) -> dict[str, Any]:
    """Return what was given."""
    return {name: value for name, value in msgspec.structs.asdict(options).items() if value is not None}

"""What ``@engine.task`` makes of a function: it is still called like the function, and can be enqueued."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

import msgspec

from asyncworker.errors import BadParameters, JobNotFound, UnknownName
from asyncworker.flow import Flow, Starter
from asyncworker.job import JobHandle
from asyncworker.queue.codec import is_id
from asyncworker.queue.task import DEFAULTS, PORTABLE, SENT, Definition, TaskOptions, options_of

P = ParamSpec("P")
R = TypeVar("R")


class Call(msgspec.Struct, frozen=True):
    """How one call, or each of some calls, is enqueued.

    ``delay`` in seconds from now, ``at`` a date (naive ones are local time); one of both at most. ``options``
    are the task options that travel with the job; a ``deadline`` that is a date goes there as ``until_s``.
    """

    queue: str
    priority: int
    delay: float = 0.0
    at: datetime | None = None
    on_conflict: str = DEFAULTS.on_conflict
    when_full: str = DEFAULTS.when_full
    durable: str = DEFAULTS.durable
    outbox: Any = None
    after: tuple[str, ...] = ()
    options: dict[str, Any] = {}

    @classmethod
    def of(cls, task: TaskOptions) -> Call:
        """Return how calls of a task are enqueued where nobody says otherwise."""
        sent = {name: value for name in SENT if (value := getattr(task, name)) != getattr(DEFAULTS, name)}
        own = {name: getattr(task, name) for name in ("queue", "priority", "on_conflict", "when_full", "durable")}
        return cls(**own, delay=task.debounce or 0.0, options=sent)

    def bare(self) -> Call:
        """Return only where it goes, without what is special about this call."""
        return Call(self.queue, self.priority, durable=self.durable)

    def changed(self, given: Mapping[str, Any]) -> Call:
        """Return this with what is *given* changed; an unknown name is an error that names the nearest."""
        own = {name: value for name, value in given.items() if name in CALL_FIELDS}
        if "after" in own:
            own["after"] = _ids_of(own["after"])
        rest = {name: value for name, value in given.items() if name not in CALL_FIELDS}
        for name in rest:
            if name not in PORTABLE:
                raise UnknownName("call option", name, (*CALL_FIELDS, *PORTABLE))
        options = {**self.options, **rest}
        if "deadline" in rest:
            options.pop("until_s", None)
            if isinstance(rest["deadline"], datetime):
                options["until_s"] = options.pop("deadline").astimezone(UTC).timestamp()
        said = {name: value for name, value in (options | own).items() if name in TaskOptions.__struct_fields__}
        options_of({name: value for name, value in said.items() if value is not None})
        if options.get("debounce") and not own.keys().isdisjoint({"delay", "at"}):
            raise BadParameters("debounce= is a delay of its own: give no delay= or at= with it")
        if "debounce" in rest:
            own["delay"] = rest["debounce"] or 0.0
        call = msgspec.structs.replace(self, **own, options=options)
        if call.after and call.options.get("debounce"):
            raise BadParameters("a debounced call cannot wait for other jobs")
        if call.delay and call.at is not None:
            raise BadParameters("give delay= or at=, not both")
        if not 0 <= call.delay < float("inf"):
            raise BadParameters(f"delay must be seconds, 0 or more, not {call.delay!r}")
        return call

    @property
    def plain(self) -> bool:
        """Whether there is nothing to it but where it goes, and what happens when there is no room."""
        return self == Call(self.queue, self.priority, when_full=self.when_full)

    @property
    def at_s(self) -> float:
        """The date as seconds since the epoch, 0 for now."""
        return 0.0 if self.at is None else self.at.astimezone(UTC).timestamp()


CALL_FIELDS = ("queue", "priority", "delay", "at", "on_conflict", "when_full", "durable", "outbox", "after")


class Sender(Starter, Protocol):
    """What a task needs of its engine."""

    def post(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], how: Call
    ) -> Coroutine[Any, Any, JobHandle[Any]]:
        """Enqueue one call that is `Call.plain`."""
        ...

    def one(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], how: Call
    ) -> Coroutine[Any, Any, JobHandle[Any]]:
        """Enqueue one call."""
        ...

    def send_blocking(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], how: Call) -> JobHandle[Any]:
        """Enqueue one call, and block meanwhile."""
        ...

    async def send(
        self, name: str, calls: Iterable[tuple[tuple[Any, ...], dict[str, Any]]], how: Call
    ) -> list[JobHandle[Any]]:
        """Enqueue calls and return their handles, in order."""
        ...


class Task(Generic[P, R]):
    """A registered function. A plain call runs it here, now; `enqueue` runs it on a worker.

    Attributes: ``name``, ``definition``, and ``__wrapped__``, the function.
    """

    def __init__(
        self, function: Callable[P, Any], definition: Definition, sender: Sender, how: Call | None = None
    ) -> None:
        functools.update_wrapper(self, function)
        self.__wrapped__ = function
        self.name = definition.name
        self.definition = definition
        self._sender = sender
        self._how = how or Call.of(definition.options)
        self._plain = self._how.plain

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        return self.__wrapped__(*args, **kwargs)

    def with_options(self, **given: Any) -> Task[P, R]:
        """Return this task with other options for the calls made through it.

        ``delay`` (s) or ``at`` (datetime), ``queue``, ``priority``; ``timeout``, ``max_attempts``, ``retry_*``,
        ``result_ttl``, ``failure_ttl``, ``max_deliveries``; ``expires`` (s), ``deadline`` (s, or a datetime);
        ``after`` (a job or several, handles or ids: it is blocked until all of them are over), ``allow_failure``;
        ``unique`` (a key, or a tuple of texts), ``on_conflict`` ("return" or "raise"), ``debounce`` (s); ``when_full`` ("block" or "reject"); ``durable`` ("memory", "replica", "disk").
        ``outbox``: a connection to PostgreSQL; the jobs are rows of its transaction, and relayed from there.

        Raises:
            UnknownName: no such option. BadParameters: a value that does not fit.
        """
        return Task(self.__wrapped__, self.definition, self._sender, self._how.changed(given))

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Flow[R]:
        """Return a call that is not enqueued yet, for `chain`, `group` and `Flow.then`; its arguments are looked at then."""
        return Flow(self._sender, self.name, args, kwargs, self._how)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, JobHandle[R]]:
        """Enqueue one call; to be awaited, or gathered. Calls made at the same time share round trips.

        Raises:
            BadParameters: arguments that the function cannot take, or that cannot travel. BrokerDown, QueueFull, JobTooBig.
            JobExists: a job with its ``unique`` key is not over, and ``on_conflict`` is "raise".
        """
        return (self._sender.post if self._plain else self._sender.one)(self.name, args, kwargs, self._how)

    def enqueue_blocking(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Enqueue one call from code that has no event loop (a view of Django or Flask, a script), in any thread.

        Calls at the same time have a connection each, which the next ones use again; `Engine.close` closes them. Within a coroutine it would hold up
        the event loop: await `enqueue` there.

        Raises:
            SettingsError: the broker is ``memory://``. And as `enqueue`.
        """
        return self._sender.send_blocking(self.name, args, kwargs, self._how)

    async def enqueue_many(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> list[JobHandle[R]]:
        """Enqueue many calls, each a tuple of arguments or a mapping of named ones; one round trip per thousand.

        Raises:
            BadParameters: a call that is neither, or arguments that do not fit; none is enqueued then.
            BrokerDown, QueueFull, JobTooBig: the thousands before the one that was refused are enqueued.
        """
        return await self._sender.send(self.name, map(_split, calls), self._how)


def _ids_of(jobs: Any) -> tuple[str, ...]:
    """Return the ids of one or several jobs, given by handles or ids; each once."""
    several = [jobs] if isinstance(jobs, str | JobHandle) else jobs
    if not isinstance(several, Iterable):
        raise BadParameters(f"after must be a job or several, handles or ids, not {jobs!r}")
    ids = [job.id if isinstance(job, JobHandle) else job for job in several]
    for job_id in ids:
        if not isinstance(job_id, str):
            raise BadParameters(f"after must be a job or several, handles or ids, not {job_id!r}")
        if not is_id(job_id):
            raise JobNotFound(f"nobody knows a job {job_id!r}")
    return tuple(dict.fromkeys(ids))


def _split(call: tuple[Any, ...] | Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(call, tuple):
        return call, {}
    if isinstance(call, Mapping):
        return (), dict(call)
    raise BadParameters(f"a call is a tuple of arguments or a mapping of named ones, not {type(call).__name__}")


class Decorator(Protocol):
    """``@engine.task()``: types a function as a `Task` with the same parameters and result."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]]) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Task[P, R]: ...


def name_of(function: Callable[..., Any]) -> str:
    """Return the name a function is registered by unless told otherwise: its own."""
    return getattr(function, "__name__", type(function).__name__)

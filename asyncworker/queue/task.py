"""What a worker knows about a task: the function, how it is called, and what becomes of its jobs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from asyncworker.errors import BadParameters, DecodeError, SettingsError, UnknownName
from asyncworker.queue import apart
from asyncworker.queue.context import Context
from asyncworker.queue.depends import HIDDEN, Need, supplied
from asyncworker.queue.durability import LEVELS
from asyncworker.queue.job import DEFAULT_PRIORITY, MAX_DELIVERIES, PRIORITIES
from asyncworker.queue.limit import AT_ONCE, OFTEN, Limit, Rate, key_of
from asyncworker.registry import find
from asyncworker.work.executors.executor import Executor
from asyncworker.work.signature import Signature

KEEP_S = 10 * 365 * 86400
"""The TTL of what is kept "for ever" (a TTL of None)."""


class TaskOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the jobs of a task are treated. Durations in seconds.

    ``timeout`` is for one attempt (None: none). ``max_attempts`` counts the first; **any** exception runs the
    job again unless ``retry_on``, ``no_retry_on`` or ``retry_when(attempt, error)`` say otherwise.
    ``result_ttl`` and ``failure_ttl``: None keeps, 0 does not store. ``max_deliveries``: how many workers may
    die with the job in hand before it is run in a process of its own; if that dies too, it fails as ``worker_lost``. ``expires``: a job whose first attempt has not begun
    so many seconds after it was enqueued is ``expired`` instead. ``deadline``: so many seconds after it was enqueued
    no attempt begins, and none goes on. ``unique``: a key that one job of the task and queue at a time may have, until it
    is over; several texts, say a tenant's name and a key of his, are one key; ``on_conflict`` says whether enqueueing another gives the handle of the one that is there or raises.
    ``debounce``: of calls with the same ``unique`` key that come within so many seconds of one another only the last is
    made, so long after it. ``when_full``: enqueueing into a queue that is full waits until there is room, or raises. ``durable``: where a job
    must be when enqueueing it returns: with the server, on a replica as well, on disk, or in an outbox. ``limit``, ``rate``: how
    many run at once, and how often one starts, in the whole fleet. ``allow_failure``: a job runs whatever became of those
    that it waits for; else one of them that did not succeed fails it, for reason ``dependency``.
    """

    queue: str = "default"
    priority: int = DEFAULT_PRIORITY
    timeout: float | None = 300.0
    max_attempts: int = 3
    retry_backoff: float = 1.0
    retry_backoff_max: float = 600.0
    retry_jitter: bool = True
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    no_retry_on: tuple[type[BaseException], ...] = ()
    retry_when: Callable[[int, BaseException], bool] | None = None
    result_ttl: float | None = 3600.0
    failure_ttl: float | None = 604800.0
    max_deliveries: int = MAX_DELIVERIES
    expires: float | None = None
    deadline: float | None = None
    unique: str | tuple[str, ...] | None = None
    debounce: float | None = None
    on_conflict: Literal["return", "raise"] = "return"
    when_full: Literal["block", "reject"] = "block"
    durable: Literal["memory", "replica", "disk", "outbox"] = "memory"
    limit: Limit | None = None
    rate: Rate | None = None
    allow_failure: bool = False
    executor: str = ""  # "": inline for coroutine functions, thread for plain ones; or process

    def __post_init__(self) -> None:
        if not self.queue or len(self.queue.encode()) > 255 or ":" in self.queue:
            raise BadParameters(f"queue must be a name of 1..255 bytes without ':', not {self.queue!r}")
        if type(self.priority) is not int or self.priority not in PRIORITIES:
            raise BadParameters(f"priority must be 0..9 (9 goes first), not {self.priority!r}")
        if self.max_attempts < 1 or self.max_deliveries < 1:
            raise BadParameters("max_attempts and max_deliveries must be at least 1")
        for name in SECONDS:
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise BadParameters(f"{name} must be seconds, 0 or more, not {value!r}")
        if self.unique is not None and not _is_key(self.unique):
            raise BadParameters(
                f"unique must be a text of 1..{LONGEST_KEY} characters, or a tuple of such, not {self.unique!r}"
            )
        if self.debounce is not None and self.unique is None:
            raise BadParameters("debounce needs unique=: the key whose calls become one")
        for name, kind in LIMITS.items():
            if not isinstance(getattr(self, name), kind | None):
                raise BadParameters(f"{name} must be a {kind.__name__}(…), not {getattr(self, name)!r}")
        if type(self.allow_failure) is not bool:
            raise BadParameters(f"allow_failure must be True or False, not {self.allow_failure!r}")
        for name, words in WORDS.items():
            if (word := getattr(self, name)) not in words:
                raise BadParameters(f"{name} must be one of {', '.join(words)}, not {word!r}")


def _is_key(unique: Any) -> bool:
    texts = unique if type(unique) is tuple else (unique,)
    return bool(texts) and all(type(text) is str and 0 < len(text) <= LONGEST_KEY for text in texts)


SECONDS = (
    "timeout",
    "retry_backoff",
    "retry_backoff_max",
    "result_ttl",
    "failure_ttl",
    "expires",
    "deadline",
    "debounce",
)
LONGEST_KEY = 1000
LIMITS = {"limit": Limit, "rate": Rate}
WORDS = {"on_conflict": ("return", "raise"), "when_full": ("block", "reject"), "durable": (*LEVELS, "outbox")}
SENT = ("expires", "deadline", "unique", "debounce", "max_deliveries", "allow_failure")
"""Task options that go with each job where they are not the default, for the broker has a part in them."""

PORTABLE = frozenset(
    {
        *SENT,
        "timeout",
        "max_attempts",
        "retry_backoff",
        "retry_backoff_max",
        "retry_jitter",
        "result_ttl",
        "failure_ttl",
    }
)
"""Task options that one call may override and that then travel with the job."""

WORKERS = PORTABLE - {"unique", "debounce"}
"""Those of them that a worker looks at."""

DEFAULTS = TaskOptions()


def options_of(given: Mapping[str, Any], default: TaskOptions | None = None) -> TaskOptions:
    """Return *default* (or the defaults) with what is *given* changed; an unknown name is an error."""
    for name in given:
        if name not in TaskOptions.__struct_fields__:
            raise UnknownName("task option", name, TaskOptions.__struct_fields__)
    try:
        return msgspec.structs.replace(default or TaskOptions(), **given)
    except TypeError as exc:
        raise BadParameters(f"task options do not fit: {exc}") from exc


class Definition(msgspec.Struct, frozen=True):
    """A task as a worker runs it: ``call`` is awaited with the job's arguments, and its `Context` where it takes one."""

    name: str
    call: Callable[..., Awaitable[Any]]
    options: TaskOptions
    signature: Signature
    gated: frozenset[str] = frozenset()  # options that name its gates
    context: str | None = None  # under which name ``call`` is handed the context; None: not at all
    apart: Callable[..., Awaitable[Any]] | None = None  # calls it in a process of its own; None: it has to be here

    def check_rest(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of one call but the first, which another job gives; see `check`."""
        try:
            return self.signature.rest.check(args, kwargs)
        except BadParameters as exc:
            raise BadParameters(f"{self.name}: {exc}") from exc

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of one call, if the function takes them.

        Raises:
            BadParameters: names the argument that is missing, too much, or of another type.
        """
        try:
            return self.signature.check(args, kwargs)
        except BadParameters as exc:
            raise BadParameters(f"{self.name}: {exc}") from exc

    def arguments(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments that came with a job, as the function wants them.

        Raises:
            DecodeError: it cannot be called with them.
        """
        try:
            return self.signature.convert(args, kwargs)
        except BadParameters as exc:
            raise DecodeError(f"{self.name}: {exc}") from exc

    def overridden(self, given: Mapping[str, Any]) -> TaskOptions:
        """Return the options of one job; names that may not travel are ignored."""
        changed = {name: value for name, value in given.items() if name in WORKERS}
        return msgspec.structs.replace(self.options, **changed) if changed else self.options

    def gates(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what travels with one job so that the broker knows its gates; see `limit.gates_of`.

        Raises:
            BadParameters: an argument that is no key, or no cost that the rate can bear.
        """
        said: dict[str, Any] = {}
        value = self.signature.value
        try:
            if limit := self.options.limit:
                key = None if limit.key is None else key_of(value(limit.key, args, kwargs))
                said["limit"] = [limit.name, *limit.numbers, key]
            if rate := self.options.rate:
                key = None if rate.key is None else key_of(value(rate.key, args, kwargs))
                cost = rate.cost if not isinstance(rate.cost, str) else value(rate.cost, args, kwargs)
                said["rate"] = [rate.name, *rate.numbers, key, rate.check_cost(cost)]
        except BadParameters as exc:
            raise BadParameters(f"{self.name}: {exc}") from exc
        return said


class Tasks(Mapping[str, Definition]):
    """The tasks of one engine, by exact name; filled at start-up, never by a message.

    Args:
        lifespan: makes the resources of a worker, in which a job that is run apart from it lives as well.
    """

    def __init__(self, lifespan: Callable[[], Any] | None = None) -> None:
        self._lifespan = lifespan
        self._known: dict[str, Definition] = {}
        self._executors: dict[str, Executor] = {}

    def __getitem__(self, name: str) -> Definition:
        return self._known[name]

    def get(self, name: str, default: Any = None) -> Any:  # that of `Mapping` costs five times as much
        return self._known.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def add(self, name: str, function: Callable[..., Any], options: TaskOptions) -> Definition:
        """Register a function.

        Raises:
            SettingsError: the name is taken by another function. UnknownName: there is no such executor.
        """
        taken = self._known.get(name)
        if taken is not None:
            raise SettingsError(f"task {name!r} is registered twice; give one of them name=")
        coroutine = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - the method itself is wanted, not whether it is there
        )
        executor = options.executor or ("inline" if coroutine else "thread")
        if executor not in self._executors:
            self._executors[executor] = find("executor", executor).open()
        if coroutine and executor != "inline":
            raise SettingsError(
                f"task {name!r} is a coroutine function: it runs on the event loop, not in a {executor};"
                " give it another queue, or executor='inline'"
            )
        if not coroutine and executor == "inline":
            raise SettingsError(f"task {name!r} is no coroutine function: executor='inline' would block the event loop")
        call = self._executors[executor].bind(function)
        options = _named(name, options)
        gated = frozenset(field for field in LIMITS if getattr(options, field) is not None)
        signature = Signature(function, Context, Need)
        context = signature.given_name or (HIDDEN if signature.provided else None)
        if context is not None and executor == "process":
            raise SettingsError(f"task {name!r} runs in a process of its own, where there is no Context to be had")
        if signature.provided:
            call = supplied(call, signature.provided, signature.given_name or HIDDEN)
        definition = Definition(name, call, options, signature, gated, context, self._apart(function, context))
        self._check_limits(definition)
        self._known[name] = definition
        return definition

    def _apart(self, function: Callable[..., Any], context: str | None) -> Callable[..., Awaitable[Any]] | None:
        """Return what calls a function in a process where nothing else runs, if that can find and call it."""
        place, lifespan = _place(function), [] if self._lifespan is None else _place(self._lifespan)
        if place is None or (lifespan is None and context is not None):
            return None

        @functools.cache
        def bound() -> Callable[..., Awaitable[Any]]:
            if "apart" not in self._executors:
                self._executors["apart"] = find("executor", "process").ProcessExecutor(1)
            bind = self._executors["apart"].bind
            if context is not None:
                return apart.bind(bind(apart.call), place, lifespan or [], context)
            return bind(function)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await bound()(*args, **kwargs)

        return call

    def _check_limits(self, definition: Definition) -> None:
        """Refuse limits by what is no parameter, and two limits of one name that are not the same."""
        options, signature = definition.options, definition.signature
        limit, rate = options.limit, options.rate
        asked = {limit and limit.key, rate and rate.key, rate and rate.cost}
        for parameter in asked:
            if isinstance(parameter, str) and not signature.has(parameter):
                raise SettingsError(f"task {definition.name!r} has no parameter {parameter!r} to limit it by")
        for other in self._known.values():
            for ours, theirs in ((limit, other.options.limit), (rate, other.options.rate)):
                if ours and theirs and ours.name == theirs.name and ours.numbers != theirs.numbers:
                    raise SettingsError(f"two limits are named {ours.name!r}: {theirs} and {ours}")

    def remove(self, name: str) -> None:
        """Forget a task; its jobs are put back from then on."""
        del self._known[name]

    def close(self) -> None:
        """Close what runs tasks beside the event loop; it opens again when next used."""
        for executor in self._executors.values():
            executor.close()


def limits_of(tasks: Mapping[str, Definition]) -> dict[str, list[float]]:
    """Return the numbers of all limits and rates, as `Admin.regulate` takes them."""
    numbers: dict[str, list[float]] = {}
    for task in tasks.values():
        if limit := task.options.limit:
            numbers[AT_ONCE + limit.name] = [*limit.numbers]
        if rate := task.options.rate:
            numbers[OFTEN + rate.name] = rate.numbers
    return numbers


def _place(function: Callable[..., Any]) -> list[str] | None:
    """Return the module and name by which another process finds a function, None where it cannot."""
    module, name = getattr(function, "__module__", "__main__"), getattr(function, "__qualname__", "<unnamed>")
    known = inspect.isroutine(function) and not inspect.ismethod(function)
    return [module, name] if known and "<" not in name and module != "__main__" else None


def _named(task: str, options: TaskOptions) -> TaskOptions:
    """Return options whose limits have a name: the task's, where none was given."""
    for field in LIMITS:
        given = getattr(options, field)
        if given is not None and not given.name:
            options = msgspec.structs.replace(options, **{field: msgspec.structs.replace(given, name=task)})
    return options

"""Flows: calls that are described first and enqueued together, each to run after those before it.

    chain(fetch.bind(url), parse, store)          # each is given what the one before returned
    group(fetch.bind(url) for url in urls)        # a list of what all of them returned, in order
    group(fetch.bind(url) for url in urls).then(count, top=10)

A flow is a small graph without cycles: a flow that stands at several places of it is one job. It is enqueued in an
order in which each job comes after those that it waits for, a thousand a round trip; from there on the broker alone
releases them, each in the very step that settles the last job before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, Self, TypeVar, overload

import msgspec

from asyncworker.errors import BadParameters
from asyncworker.job import FlowHandle, JobHandle
from asyncworker.queue.entrance import A_ROUND_TRIP
from asyncworker.queue.inputs import GATHER_TASK, INPUT, INPUTS
from asyncworker.queue.job import Job

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
R_co = TypeVar("R_co", covariant=True)

KEEP_S = 3600.0
"""How long results of jobs that others wait for are kept at least, where a flow is enqueued in several round trips."""


class How(Protocol):
    """How one call is enqueued, as far as a flow must know."""

    @property
    def after(self) -> tuple[str, ...]: ...
    @property
    def on_conflict(self) -> str: ...
    @property
    def when_full(self) -> str: ...
    @property
    def durable(self) -> str: ...
    @property
    def outbox(self) -> Any: ...
    def bare(self) -> Self:
        """Return only where it goes, without what is special about this call."""
        ...


class Starter(Protocol):
    """What a flow needs of its engine."""

    def jobs_of(
        self, name: str, calls: Iterable[tuple[tuple[Any, ...], dict[str, Any]]], how: Any, *, fed: bool = False
    ) -> list[Job]:
        """Return calls of one task as jobs; *fed*: another job gives each its first argument."""
        ...

    def result_ttl(self, name: str) -> float | None:
        """Return for how many seconds results of a task are kept, None for ever."""
        ...

    async def start(self, jobs: list[Job], *, on_conflict: str, when_full: str) -> FlowHandle[Any]:
        """Enqueue the jobs of a flow, in order."""
        ...


class Step(Protocol[P, R_co]):
    """A task, as far as a flow must know."""

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Flow[R_co]:
        """Return a call of it."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class Flow(Generic[R_co]):
    """A call, and the flows and jobs that it waits for. It can be enqueued any number of times; it never changes.

    Made by `Task.bind`, `chain` and `group`.
    """

    starter: Starter | None
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    how: How | None
    before: tuple[Flow[Any] | JobHandle[Any], ...] = ()
    given: Literal["", "input", "inputs"] = ""

    def __repr__(self) -> str:
        return f"<flow to {self.name}>"

    def then(self, task: Step[Concatenate[R_co, P], S], *args: P.args, **kwargs: P.kwargs) -> Flow[S]:
        """Return this flow with a call of *task* after it, whose first argument is what this returns; others follow.

        Where this fails, is cancelled or expires, that call fails for reason ``dependency``; but a task that allows failure
        (``with_options(allow_failure=True)``) is given the error in the place of the value that there is none of.
        """
        call: Any = task.bind
        bound: Flow[S] = call(*args, **kwargs)
        return bound.fed_by(self)

    def fed_by(self, before: Flow[Any] | JobHandle[Any]) -> Self:
        """Return this call with *before* as where its first argument comes from."""
        if isinstance(before, Flow) and before.name == GATHER_TASK:  # no need of a job that only gathers
            return replace(self, before=before.before, given=INPUTS)
        return replace(self, before=(before,), given=INPUT)

    async def enqueue(self) -> FlowHandle[R_co]:
        """Enqueue all jobs of this flow and return a handle of its last.

        Raises:
            BadParameters: arguments that a function cannot take, or that cannot travel; or a group that belongs to no
                engine, for it has no calls. JobNotFound: a job before it is not known, or no longer. BrokerDown,
                QueueFull, JobTooBig, JobExists: as `Task.enqueue`; jobs before the one that was refused are enqueued.
        """
        flows = self._in_order()
        names: dict[int, str] = {}
        jobs: list[Job] = []
        for flow in flows:
            job = _job_of(flow, names)
            names[id(flow)] = job.id
            jobs.append(job)
        if len(jobs) > A_ROUND_TRIP:
            jobs = _kept(jobs, flows)
        hows = [flow.how for flow in flows if flow.how]
        if any(how.outbox is not None or how.durable == "outbox" for how in hows):
            raise BadParameters("a flow cannot be written into an outbox: enqueue it in a job that is")
        return await _starter_of(self).start(
            jobs,
            on_conflict="raise" if any(how.on_conflict == "raise" for how in hows) else "return",
            when_full="reject" if any(how.when_full == "reject" for how in hows) else "block",
        )

    async def enqueue_after(self, job: JobHandle[Any]) -> FlowHandle[R_co]:
        """Enqueue this call, to be given what *job* returns; see `enqueue`."""
        return await self.fed_by(job).enqueue()

    def _in_order(self) -> list[Flow[Any]]:
        """Return all flows of the graph, each after those that it waits for."""
        order: dict[int, Flow[Any]] = {}
        stack: list[Flow[Any]] = [self]
        while stack:
            flow = stack[-1]
            before = [one for one in flow.before if isinstance(one, Flow) and id(one) not in order]
            if before:
                stack += reversed(before)
            else:
                stack.pop()
                order.setdefault(id(flow), flow)
        return list(order.values())


def _starter_of(flow: Flow[Any]) -> Starter:
    if flow.starter is None:
        raise BadParameters("a group without calls belongs to no engine: let a task follow it with then()")
    return flow.starter


def _job_of(flow: Flow[Any], names: dict[int, str]) -> Job:
    """Return a call as a job; *names*: the ids of the flows before it."""
    call = flow.args, flow.kwargs
    (job,) = _starter_of(flow).jobs_of(flow.name, [call], flow.how, fed=bool(flow.given))
    if job.options.get("debounce"):
        raise BadParameters(f"calls of {flow.name} are debounced: a flow cannot be made of what may never be made")
    before = [one.id if isinstance(one, JobHandle) else names[id(one)] for one in flow.before]
    options = job.options
    if flow.given:
        options = options | {flow.given: len(before)}
    return msgspec.structs.replace(job, after=tuple(dict.fromkeys([*before, *job.after])), options=options)


def _kept(jobs: list[Job], flows: list[Flow[Any]]) -> list[Job]:
    """Return jobs whose results, where others wait for them, live until those others are enqueued."""
    awaited = {job_id for job in jobs for job_id in job.after}
    kept = []
    for job, flow in zip(jobs, flows, strict=True):
        ttl = job.options.get("result_ttl", _starter_of(flow).result_ttl(flow.name))
        short = job.id in awaited and ttl is not None and ttl < KEEP_S
        options = job.options | {"result_ttl": KEEP_S} if short else job.options
        kept.append(msgspec.structs.replace(job, options=options))
    return kept


@overload
def chain(first: Flow[A], /) -> Flow[A]: ...
@overload
def chain(first: Flow[A], second: Step[Concatenate[A, ...], B], /) -> Flow[B]: ...
@overload
def chain(first: Flow[A], second: Step[Concatenate[A, ...], B], third: Step[Concatenate[B, ...], C], /) -> Flow[C]: ...
@overload
def chain(
    first: Flow[A],
    second: Step[Concatenate[A, ...], B],
    third: Step[Concatenate[B, ...], C],
    fourth: Step[Concatenate[C, ...], D],
    /,
) -> Flow[D]: ...
@overload
def chain(
    first: Flow[Any],
    second: Step[..., Any],
    third: Step[..., Any],
    fourth: Step[..., Any],
    fifth: Step[..., Any],
    /,
    *more: Step[..., Any],
) -> Flow[Any]: ...
def chain(first: Flow[Any], /, *tasks: Step[..., Any]) -> Flow[Any]:
    """Return a flow of calls one after another, each given what the one before it returned.

    One that fails, is cancelled or expires ends those after it as failed, for reason ``dependency``. Up to four are
    checked for their types. Further arguments: `Flow.then`.
    """
    flow = first
    for task in tasks:
        flow = flow.then(task)
    return flow


def group(*calls: Flow[R] | JobHandle[R] | Iterable[Flow[R] | JobHandle[R]]) -> Flow[list[R]]:
    """Return a flow of calls side by side, whose result is the list of theirs, in this order; or of jobs, by their handles.

    Enqueued by itself it is a job of its own that ends when all have, and whose `JobHandle.progress` counts them; a
    task that follows by ``then`` is given the list. A group of nothing gives an empty list.

    Raises:
        BadParameters: one stands in it twice: bind it twice to run it twice.
    """
    before: list[Flow[R] | JobHandle[R]] = []
    for call in calls:
        before += [call] if isinstance(call, Flow | JobHandle) else call
    if len({one.id if isinstance(one, JobHandle) else id(one) for one in before}) < len(before):
        raise BadParameters("a call stands twice in this group; bind it twice to run it twice")
    first = next((one for one in before if isinstance(one, Flow)), None)
    starter, how = (first.starter, first.how) if first else (None, None)
    return Flow(starter, GATHER_TASK, (), {}, how.bare() if how else None, tuple(before), INPUTS)

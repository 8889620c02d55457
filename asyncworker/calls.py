"""Calls: how calls become jobs, one by one, many at once, in flows, by the calendar and through the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import nullcontext
from itertools import starmap
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from asyncworker.clock import Clock
from asyncworker.enqueued import Enqueued
from asyncworker.errors import AsyncWorkerError, BadParameters, SettingsError
from asyncworker.job import FlowHandle, JobHandle
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import Ids, pack_call
from asyncworker.queue.entrance import enter, enter_blocking
from asyncworker.queue.hooks import Hooks
from asyncworker.queue.job import Job
from asyncworker.queue.outboxes.outbox import kept
from asyncworker.queue.propagation import HEADERS
from asyncworker.queue.schedule import Schedule
from asyncworker.queue.task import DEFAULTS, TaskOptions, Tasks
from asyncworker.queue.unique import scoped
from asyncworker.registry import find
from asyncworker.task import Call


class House(Protocol):
    """What calls need of their engine."""

    clock: Clock
    hooks: Hooks
    namespace: str
    outbox: str | None
    tasks: Tasks

    @property
    def broker(self) -> Broker: ...
    def route(self, task: str) -> str | None:
        """Return the queue of a task that names none."""
        ...


class Calls:
    """The calls of one engine."""

    def __init__(self, engine: House) -> None:
        self._engine = engine
        self._ids = Ids()

    def plan(
        self, schedule: Schedule, args: Sequence[Any], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> Schedule:
        """Return a schedule with its call and options filled in; see `Schedules.add`."""
        known = self._engine.tasks.get(schedule.task)
        if known:
            known.check(tuple(args), kwargs)
        route = known.options if known else TaskOptions(queue=self._engine.route(schedule.task) or "scheduled")
        how = Call.of(route).changed(options)
        if how.delay or how.at or how.outbox is not None:
            raise BadParameters("a schedule says itself when: delay, at and outbox are for single calls")
        return msgspec.structs.replace(
            schedule,
            queue=how.queue,
            priority=how.priority,
            payload=pack_call(schedule.task, tuple(args), kwargs),
            options=scoped(how.options, schedule.task, how.queue),
        )

    async def call(self, schedule: Schedule) -> JobHandle[Any]:
        """Enqueue a schedule's call now."""
        job = Job(self._ids(), schedule.queue, schedule.payload, schedule.priority, schedule.options)
        (job_id,) = await enter(self._engine.broker, [job], on_conflict="return", when_full="reject")
        return JobHandle(self._engine.broker, job_id, schedule.queue)

    def post(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], how: Call
    ) -> Coroutine[Any, Any, JobHandle[Any]]:
        """Enqueue one call that is `Call.plain`; where broker and task allow it, it is on its way when this returns."""
        broker, known = self._engine.broker, self._engine.tasks.get(name)
        quick = getattr(broker, "post", None)
        if quick is None or self._engine.hooks.propagator is not None or (known and known.gated):
            return self.one(name, args, kwargs, how)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self.one(name, args, kwargs, how)
        try:
            if known:
                known.check(args, kwargs)
            job = Job(self._ids(), how.queue, pack_call(name, args, kwargs), how.priority)
            enqueued: Enqueued[Any] = Enqueued(broker, job, how.when_full, loop)
            quick(job, enqueued)
        except AsyncWorkerError as exc:
            return _refused(exc)
        return enqueued

    def send_blocking(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], how: Call) -> JobHandle[Any]:
        """Enqueue one call, and block meanwhile; see `Task.enqueue_blocking`."""
        broker: Any = self._engine.broker
        if not hasattr(broker, "enqueue_blocking"):
            raise SettingsError(f"{broker!r} lives in its event loop: enqueue by await")
        if how.outbox is not None or how.durable == "outbox":
            raise BadParameters("an outbox is written by await")
        propagator = self._engine.hooks.propagator
        with nullcontext() if propagator is None else propagator.sending(name, how.queue):
            (job,) = self.jobs_of(name, ((args, kwargs),), how)
            job_id = enter_blocking(broker, job, on_conflict=how.on_conflict, when_full=how.when_full)
        return JobHandle(broker, job_id, how.queue)

    async def one(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], how: Call) -> JobHandle[Any]:
        """Enqueue one call of any kind."""
        return (await self.send(name, ((args, kwargs),), how))[0]

    async def send(
        self, name: str, calls: Iterable[tuple[tuple[Any, ...], dict[str, Any]]], how: Call
    ) -> list[JobHandle[Any]]:
        """Enqueue calls of one task; see `Task.enqueue_many`."""
        if (propagator := self._engine.hooks.propagator) is None:
            return await self._send(name, calls, how)
        with propagator.sending(name, how.queue):
            return await self._send(name, calls, how)

    async def _send(
        self, name: str, calls: Iterable[tuple[tuple[Any, ...], dict[str, Any]]], how: Call
    ) -> list[JobHandle[Any]]:
        broker = self._engine.broker
        jobs = self.jobs_of(name, calls, how)
        if how.outbox is not None or how.durable == "outbox":
            return await self._write(jobs, self._options(name), how)
        entered = await enter(broker, jobs, on_conflict=how.on_conflict, when_full=how.when_full)
        return [JobHandle(broker, job_id, how.queue) for job_id in entered]

    async def start(self, jobs: list[Job], *, on_conflict: str, when_full: str) -> FlowHandle[Any]:
        """Enqueue the jobs of a flow, in order."""
        entered = await enter(self._engine.broker, jobs, on_conflict=on_conflict, when_full=when_full)
        return FlowHandle(self._engine.broker, [(job_id, job.queue) for job_id, job in zip(entered, jobs, strict=True)])

    def jobs_of(
        self, name: str, calls: Iterable[tuple[tuple[Any, ...], dict[str, Any]]], how: Call, *, fed: bool = False
    ) -> list[Job]:
        """Return calls of one task as jobs; *fed*: another job gives each its first argument."""
        delay, at_s, options = how.delay, how.at_s, scoped(how.options, name, how.queue)
        if delay or at_s:
            options = {**options, "due_s": at_s or self._engine.clock.now() + delay}
        if self._engine.hooks.propagator is not None:
            options = {**options, HEADERS: self._engine.hooks.propagator.headers(joined=fed or bool(how.after))}
        if known := self._engine.tasks.get(name):
            calls = starmap(known.check_rest if fed else known.check, calls)
        checked = list(calls)
        gates = known.gates if known and known.gated and not fed else None  # where one is fed, its worker names them
        return [
            Job(
                job_id,
                how.queue,
                pack_call(name, *call),
                how.priority,
                options if gates is None else options | gates(*call),
                delay,
                at_s,
                "",
                how.durable,
                how.after,
            )
            for job_id, call in zip(self._ids.many(len(checked)), checked, strict=True)
        ]

    def result_ttl(self, name: str) -> float | None:
        """Return for how many seconds results of a task are kept, None for ever."""
        return self._options(name).result_ttl

    def _options(self, name: str) -> TaskOptions:
        known = self._engine.tasks.get(name)
        return known.options if known else DEFAULTS

    async def _write(self, jobs: list[Job], task: TaskOptions, how: Call) -> list[JobHandle[Any]]:
        """Put jobs into the outbox of the caller's transaction."""
        if how.outbox is None:
            raise BadParameters("durable='outbox' needs a transaction: .with_options(outbox=connection).enqueue(…)")
        written = [kept(job, task) for job in jobs]
        await find("outbox", urlsplit(self._engine.outbox or "postgresql:").scheme).write(
            how.outbox, self._engine.namespace, written
        )
        return [JobHandle(self._engine.broker, job.id, written=True) for job in jobs]


async def _refused(error: AsyncWorkerError) -> JobHandle[Any]:
    raise error

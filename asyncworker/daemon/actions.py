"""Actions: what people do to a fleet. Each leaves a row in the audit, whether it was done or refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.daemon.audit import Audit
from asyncworker.engine import Engine
from asyncworker.errors import BadParameters, SettingsError, UnknownName
from asyncworker.fleet.manager import DynamicWorkerManager
from asyncworker.queue.codec import is_id
from asyncworker.queue.job import Found
from asyncworker.queue.schedule import Missed
from asyncworker.queue.search import task_of
from asyncworker.task import Call

MOST = 1_000
"""Jobs that one call does something to."""
SLICE = 200
OWN = "asyncworker."
"""How the names of tasks begin that are this package's own: parts of other things, never asked for alone."""


class Done(msgspec.Struct, frozen=True):
    """What became of an action on several jobs: ids, in their order."""

    done: list[str]
    left: list[str]


class Actions:
    """Do things to an engine's jobs, queues and schedules, and to a manager's workers, where there is one.

    Each may raise `BrokerError` where the broker cannot be reached.
    """

    def __init__(self, engine: Engine, manager: DynamicWorkerManager | None = None, clock: Clock = SYSTEM) -> None:
        self._engine, self._manager = engine, manager
        self.audit = Audit(engine, clock)
        self._leaving: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait for no worker any more that was asked to leave."""
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    # --- jobs -----------------------------------------------------------------------------------------------

    async def cancel(self, ids: Sequence[str]) -> Done:
        """Cancel jobs (at most 1,000): at once where they wait, by asking their workers where they run.

        Left are those that are over already, or that nobody knows.
        """
        async with self.audit.row("cancel", _several(ids)):
            states = [await self._engine.broker.cancel(job_id) if is_id(job_id) else None for job_id in _checked(ids)]
            return _parted(ids, [state is not None and not state.terminal for state in states])

    async def retry(self, ids: Sequence[str]) -> Done:
        """Enqueue dead letters (at most 1,000) anew, under their own ids; attempts begin at 1.

        Left are those that are no dead letters, or whose queue is full or unique key is taken.
        """
        async with self.audit.row("retry", _several(ids)):
            return _parted(ids, await self._engine.admin.replay(_checked(ids)))

    async def purge(self, ids: Sequence[str]) -> Done:
        """Forget dead letters (at most 1,000) for ever; other jobs are left."""
        async with self.audit.row("purge", _several(ids)):
            dead = set(await self._engine.admin.dead())
            meant = [job_id in dead for job_id in _checked(ids)]
            done = _parted(ids, meant)
            await self._engine.admin.purge(done.done)
            return done

    async def retry_dead(self, queue: str = "", task: str = "") -> Done:
        """Do as `retry` to all dead letters of this queue and task; "": of any."""
        return await self._to_dead("retry", queue, task)

    async def purge_dead(self, queue: str = "", task: str = "") -> Done:
        """Do as `purge` to all dead letters of this queue and task; "": of any."""
        return await self._to_dead("purge", queue, task)

    async def _to_dead(self, action: str, queue: str, task: str) -> Done:
        whole = Done([], [])
        admin = self._engine.admin
        async with self.audit.row(action, f"dead letters of queue {queue or 'any'!r}, task {task or 'any'!r}"):
            ids = await admin.dead()
            for start in range(0, len(ids), SLICE):
                meant = ids[start : start + SLICE]
                if queue or task:
                    found = await self._engine.broker.find(meant)
                    meant = [one.id for one in found if one and _is_of(one, queue, task)]
                if action == "purge":
                    await admin.purge(meant)
                    done = Done(meant, [])
                else:
                    done = _parted(meant, await admin.replay(meant) if meant else [])
                whole.done.extend(done.done)
                whole.left.extend(done.left)
        return whole

    async def enqueue(self, task: str, args: Sequence[Any], kwargs: dict[str, Any], options: dict[str, Any]) -> str:
        """Enqueue one call of a task of the engine, and return the job's id; *options* as for `Task.with_options`.

        Raises:
            UnknownName: the engine has no such task. BadParameters: arguments or options that do not fit. QueueFull,
            JobTooBig, JobExists.
        """
        async with self.audit.row("enqueue", task):
            known = self._engine.tasks.get(task)
            if known is None or task.startswith(OWN):
                raise UnknownName("task", task, [name for name in self._engine.tasks if not name.startswith(OWN)])
            how = Call.of(known.options).changed({"when_full": "reject", **options})
            (handle,) = await self._engine.calls.send(task, [(tuple(args), kwargs)], how)
            return handle.id

    async def submit(self, source: Any, function: str | None, *, is_dataset: bool = False, **more: Any) -> str:
        """Begin a map/reduce job, and return its id; see `Engine.map_reduce`.

        Args:
            is_dataset: *source* is the id of a dataset in the engine's database, and nothing else.

        Raises:
            UnknownName, BadParameters, SourceError, EmptyDataset: and no job is left behind.
        """
        async with self.audit.row("submit", f"{function or more.get('map') or ''}"):
            if is_dataset and self._engine.database is None:
                raise BadParameters("the engine has no database to look datasets up in")
            return (await self._engine.map_reduce(source, function, **more)).id

    # --- queues ---------------------------------------------------------------------------------------------

    async def pause(self, queue: str) -> None:
        """Hand out no more of a queue's jobs; what runs goes on."""
        async with self.audit.row("pause", queue):
            await self._engine.admin.pause(await self._known(queue))

    async def resume(self, queue: str) -> None:
        """Hand out a queue's jobs again."""
        async with self.audit.row("resume", queue):
            await self._engine.admin.resume(await self._known(queue))

    async def bound(self, queue: str, most: int | None) -> None:
        """Let at most so many jobs wait in a queue; None: any number."""
        async with self.audit.row("bound", f"{queue}: {'any number' if most is None else most}"):
            if most is not None and most < 0:
                raise BadParameters(f"at most {most} jobs is no bound")
            await self._engine.admin.bound(await self._known(queue), most)

    async def _known(self, queue: str) -> str:
        if queue not in self._engine.queues and queue not in await self._engine.admin.queues():
            raise UnknownName("queue", queue[:100], self._engine.queues)
        return queue

    # --- schedules ------------------------------------------------------------------------------------------

    async def add_schedule(
        self,
        name: str,
        task: str,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        cron: str = "",
        every: float = 0.0,
        tz: str = "UTC",
        missed: Missed = "last",
        options: dict[str, Any] | None = None,
    ) -> bool:
        """Set a schedule, or change it, and return whether it is new; see `Schedules.add`.

        Raises:
            SettingsError, BadParameters, UnknownName: what does not fit.
        """
        async with self.audit.row("add schedule", name):
            return await self._engine.schedules.set(
                name, task, args, kwargs or {}, cron=cron, every=every, tz=tz, missed=missed, options=options
            )

    async def remove_schedule(self, name: str) -> None:
        """Remove a schedule that was added.

        Raises:
            UnknownName: there is none. SettingsError: it is in the engine's code.
        """
        async with self.audit.row("remove schedule", name):
            await self._engine.schedules.rm(name)

    async def run_schedule(self, name: str) -> str:
        """Enqueue a schedule's call now, and return the job's id.

        Raises:
            UnknownName: there is none. QueueFull.
        """
        async with self.audit.row("run schedule", name):
            job_id: str = (await self._engine.schedules.run(name)).id
            return job_id

    # --- workers --------------------------------------------------------------------------------------------

    async def restart_workers(self, *names: str) -> None:
        """Replace these workers (none named: each), one after another; returns when that has begun.

        Raises:
            UnknownName: there is none of this name. SettingsError: nobody supervises workers here.
        """
        async with self.audit.row("restart", ", ".join(names) or "all workers"):
            self._supervised().restart(*names)

    async def stop_worker(self, name: str) -> None:
        """Let one worker drain, within its grace period; returns when that has begun. The scaler may start others.

        Raises:
            UnknownName: there is none of this name. SettingsError: nobody supervises workers here.
        """
        async with self.audit.row("stop", name):
            leaving = asyncio.create_task(self._supervised().stop_worker(name), name=f"stop of {name}")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            await asyncio.wait([leaving], timeout=0.1)
            if leaving.done():
                await leaving

    def _supervised(self) -> DynamicWorkerManager:
        if self._manager is None:
            raise SettingsError("nobody supervises workers here")
        return self._manager


def check_typed(typed: str, wanted: str) -> None:
    """Check that a person has typed what they are about to act on.

    Raises:
        BadParameters: something else was typed, or nothing.
    """
    if typed != wanted:
        raise BadParameters(f"to confirm, type {wanted!r}")


def _several(ids: Sequence[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{len(ids)} jobs: {', '.join(ids[:5])}"


def _checked(ids: Sequence[str]) -> Sequence[str]:
    if not 1 <= len(ids) <= MOST:
        raise BadParameters(f"name 1 to {MOST:,} jobs, not {len(ids):,}")
    return ids


def _parted(ids: Iterable[str], done: Sequence[bool]) -> Done:
    parted: Done = Done([], [])
    for job_id, one in zip(ids, done, strict=True):
        (parted.done if one else parted.left).append(job_id)
    return parted


def _is_of(found: Found, queue: str, task: str) -> bool:
    return queue in {"", found.queue} and task in {"", task_of(found)}

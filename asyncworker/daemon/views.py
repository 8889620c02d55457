"""Views: what can be seen of a fleet. JSON and HTML are both made of what these return (`answers`).

Nothing here changes anything (`actions` does), and nothing takes longer with more jobs in store: pages are bounded, and
counts come from a sample that all who look within a second share.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

from asyncworker import __version__
from asyncworker.clock import SYSTEM, Clock
from asyncworker.daemon import answers
from asyncworker.daemon.explained import explained
from asyncworker.daemon.history import History, oldest, working
from asyncworker.daemon.instruments import PROFILED, Look, ProfileLook, looks, profiles, watch
from asyncworker.daemon.remembered import Remembered
from asyncworker.daemon.runs import partitions_seen, run_seen
from asyncworker.daemon.sights import letter_of, timeline, worker_seen
from asyncworker.daemon.text import bounded, shown_error, shown_text
from asyncworker.daemon.top import heard_of, view
from asyncworker.engine import Engine
from asyncworker.errors import BadParameters, DecodeError, JobNotFound, TaskCancelled, TaskExpired, TaskFailed
from asyncworker.fleet.manager import DynamicWorkerManager
from asyncworker.job import status_of
from asyncworker.mapreduce.job import REDUCE_TASK
from asyncworker.mapreduce.register import noted
from asyncworker.queue.archive import History as Known
from asyncworker.queue.archive import Kept, history
from asyncworker.queue.codec import is_id, unpack_call
from asyncworker.queue.job import Depth, Found, QueueDepth, State, child_id
from asyncworker.queue.search import MOST, ORDER, Query, record_of, states_of, task_of
from asyncworker.secret import mask_url
from asyncworker.settings import SETTINGS, Settings, shown
from asyncworker.tune.speedscope import merged
from asyncworker.tune.top import walls_of

T = TypeVar("T")
LOOKS = 20
"""Steps of a walk that one page takes at most: that many times 200 jobs are looked at."""
NAMES_S = 5.0
LOOKED_S = 1.0
DECISIONS_S = 2.0
MOST_QUEUES = 200
PATIENCE_S = 5.0


class Views:
    """Look at what an engine's broker and keep know, and at a manager's workers, where there is one.

    Args:
        settings: what was set, and *origins*: where each came from.
        show_arguments: whether arguments and results of jobs are shown.

    Each may raise `BrokerError` or `KeepError` where these cannot be reached.
    """

    def __init__(
        self,
        engine: Engine,
        manager: DynamicWorkerManager | None = None,
        *,
        settings: Settings | None = None,
        origins: Mapping[str, str] | None = None,
        show_arguments: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        self._engine, self._manager, self._clock = engine, manager, clock
        self._settings, self._origins = settings, dict(origins or {})
        self._show_arguments = show_arguments
        self.history = History(self._depth, clock)
        self._queues = Remembered(engine.admin.queues, NAMES_S)
        self._looked = Remembered(self._look, LOOKED_S)
        self._known = Remembered(self._decided, DECISIONS_S)
        self._watcher = f"{socket.gethostname()}:{os.getpid()}:http"

    async def _depth(self) -> Depth:
        names = dict.fromkeys([*self._engine.queues, *await self._queues.get()])
        return await self._engine.broker.depth(list(names)[:MOST_QUEUES])

    # --- the whole ------------------------------------------------------------------------------------------

    async def overview(self) -> answers.Overview:
        """Return the whole at a glance."""
        sample = await self.history.fresh()
        depth, queues = sample.depth, self._seen(sample.depth)
        heard = heard_of(await self._looked.get())[0]
        walls = walls_of(of for look in heard for of in look.snapshot.jobs)
        return answers.Overview(
            at_s=sample.at_s,
            version=__version__,
            broker=mask_url(self._engine.url),
            namespace=self._engine.namespace,
            queued=sum(of.queued for of in queues),
            scheduled=sum(of.scheduled for of in queues),
            blocked=sum(of.blocked for of in queues),
            running=depth.running,
            workers=working(depth),
            oldest_s=oldest(depth.queues),
            in_per_s=sum(of.in_per_s for of in queues),
            out_per_s=sum(of.out_per_s for of in queues),
            failed_per_s=sum(self.history.rates(of.name, "failed") for of in queues),
            fleet=self._fleet(),
            tasks=view(heard).tasks,
            queues=queues,
            p50_s=walls.quantile(0.5) if walls.count else None,
            p95_s=walls.quantile(0.95) if walls.count else None,
        )

    def chart(self, seconds: float = 600.0) -> answers.Series:
        """Return the last seconds, 600 at most, as columns."""
        return self.history.series(seconds)

    async def queues(self) -> answers.Queues:
        return answers.Queues(self._seen((await self.history.fresh()).depth))

    def _seen(self, depth: Depth) -> list[answers.QueueSeen]:
        cards = [card for card in depth.workers.values() if card.role == "worker"]
        rates = self.history.rates
        return [
            answers.QueueSeen(
                **{field: getattr(of, field) for field in QueueDepth.__struct_fields__},
                name=name,
                in_per_s=rates(name, "enqueued"),
                out_per_s=rates(name, "succeeded", "failed", "cancelled", "expired"),
                workers=sum(name in card.queues for card in cards),
            )
            for name, of in sorted(depth.queues.items())
        ]

    def _fleet(self) -> answers.FleetSeen | None:
        if self._manager is None:
            return None
        stats = self._manager.get_worker_stats()
        return answers.FleetSeen(
            self._manager.min_workers,
            self._manager.max_workers,
            stats["total_workers"],
            stats["wanted_workers"],
            stats["because"],
            stats["healthy"],
            stats["crashes"],
            sorted(stats["crash_loops"]),
            stats["cpu_percent"],
            stats["memory_percent"],
        )

    async def names(self) -> answers.Names:
        """Return what can be asked for by name, for completion."""
        engine = self._engine
        queues = sorted({*engine.queues, *await self._queues.get()})
        return answers.Names(sorted(engine.tasks), queues, sorted(engine.functions.names()), list(ORDER))

    # --- jobs -----------------------------------------------------------------------------------------------

    async def jobs(self, query: Query = Query(), cursor: str = "", limit: int = 100) -> answers.JobPage:  # noqa: B008 - frozen
        """Return about *limit* (1..200) jobs that are meant, behind *cursor*, or from the beginning.

        Raises:
            BadParameters: that is no cursor.
        """
        found, cursor = await self._walk(query, cursor, limit)
        return answers.JobPage([shown_error(status_of(one)) for one in found], cursor)

    async def _walk(self, query: Query, cursor: str, limit: int) -> tuple[list[Found], str]:
        found: dict[str, Found] = {}
        for step in range(LOOKS):
            looks = MOST if step and not found else limit - len(found)  # what is rare is looked for in long strides
            page = await self._engine.admin.jobs(query, cursor, looks)
            found |= {one.id: one for one in page.jobs}
            cursor = page.cursor
            if not cursor or 2 * len(found) >= limit:
                break
        return list(found.values()), cursor

    async def job(self, job_id: str) -> answers.JobDetail:
        """Return all that is known of one job, also of a dead letter.

        Raises:
            JobNotFound: nobody knows the id, or no longer.
        """
        found = await self._find(job_id)
        status = shown_error(status_of(found))
        is_run = found.children is not None or status.task == REDUCE_TASK
        return answers.JobDetail(
            status,
            timeline(status),
            self._show_arguments,
            self._arguments(found),
            self._result(found),
            await self._run(found, 0, MOST) if is_run else None,
        )

    async def _find(self, job_id: str) -> Found:
        found = (await self._engine.broker.find([job_id]))[0] if is_id(job_id) else None
        if found is None:
            raise JobNotFound(f"nobody knows a job {job_id[:100]!r}")
        return found

    def _arguments(self, found: Found) -> str | None:
        if not (self._show_arguments and found.payload):
            return None
        try:
            _, args, kwargs = unpack_call(found.payload)
        except DecodeError:
            return None
        return shown_text({"args": args, "kwargs": kwargs}, len(found.payload))

    def _result(self, found: Found) -> str | None:
        if not self._show_arguments or found.state is not State.SUCCEEDED or not found.record:
            return None
        return shown_text(record_of(found).value, len(found.record))

    # --- map/reduce -----------------------------------------------------------------------------------------

    async def runs(self, states: Iterable[str] = (), cursor: str = "", limit: int = 50) -> answers.RunPage:
        """Return about *limit* (1..200) map/reduce jobs of these states (none given: of all), the youngest first.

        Those that the engine's keep knows: the last thousand. Where there is none, they are looked for as `jobs`.

        Raises:
            BadParameters: there is no such state, or that is no cursor.
        """
        meant = states_of(states)
        if (keep := self._engine.keep) is None:
            walked, cursor = await self._walk(Query(meant, task=REDUCE_TASK), cursor, limit)
            return answers.RunPage([run_seen(one, None, self._clock) for one in walked], cursor)
        seen = partial(run_seen, first=None, clock=self._clock)
        runs, cursor = await self._page(await noted(keep), cursor, limit, seen, lambda of: of.state in meant)
        return answers.RunPage(runs, cursor)

    async def run(self, job_id: str, first: int = 0, limit: int = MOST) -> answers.RunDetail:
        """Return one map/reduce job, and *limit* (1..200) of its partitions from number *first* on.

        Raises:
            JobNotFound: nobody knows the id, or it is no such job.
        """
        found = await self._find(job_id)
        if found.children is None and task_of(found) != REDUCE_TASK:
            raise JobNotFound(f"job {job_id} is no map/reduce job")
        return await self._run(found, first, limit)

    async def _run(self, found: Found, first: int, limit: int) -> answers.RunDetail:
        total = found.children.total if found.children else 0
        partitions = await partitions_seen(self._engine.broker, found.id, range(first, min(first + limit, total)))
        beginning = (await self._engine.broker.find([child_id(found.id, 0)]))[0] if total else None
        seen = run_seen(found, beginning, self._clock)
        return answers.RunDetail(seen, first, partitions, self._arguments(found), self._result(found))

    # --- who works ------------------------------------------------------------------------------------------

    async def workers(self) -> answers.Workers:
        """Return who works: those that the broker knows, those that are supervised here, and what they measure."""
        depth, found = (await self.history.fresh()).depth, await self._looked.get()
        measured = {one.source: one for one in found}
        stats = self._manager.get_worker_stats()["workers"] if self._manager else []
        own = {f"{socket.gethostname()}:{one['pid']}": one for one in stats}
        cards = {f"{card.host}:{card.pid}": card for card in depth.workers.values()}
        seen = [
            worker_seen(source, cards.get(source), own.get(source), measured.get(source), self._clock.now())
            for source in sorted(cards.keys() | own.keys())
        ]
        return answers.Workers(self._fleet(), seen, view(found).held)

    async def _look(self) -> list[Look]:
        keep = self._engine.keep
        if keep is None:
            return []
        await watch(keep, self._watcher)
        return await looks(keep)

    async def profile(self) -> answers.Profile:
        """Return where workers' time went; a worker takes some seconds to notice the first one who asks."""
        seen = [
            answers.ProfileSeen(of.source, of.seconds, of.functions, of.bottlenecks) for of in await self._profiles()
        ]
        return answers.Profile(seen)

    async def speedscope(self, source: str = "") -> bytes:
        """Return the critical paths of one worker, or of all together, as a file for https://www.speedscope.app."""
        return merged([of.paths for of in await self._profiles() if source in {"", of.source} and of.paths])

    async def _profiles(self) -> list[ProfileLook]:
        keep = self._engine.keep
        if keep is None:
            return []
        await watch(keep, PROFILED + self._watcher)
        return await profiles(keep)

    async def memory(self) -> answers.Memory:
        fleet = self._fleet()
        seen = [answers.MemorySeen(of.source, of.snapshot.memory) for of in await self._looked.get()]
        return answers.Memory(fleet.memory_percent if fleet else None, seen)

    # --- what is planned, failed, decided, set ---------------------------------------------------------------

    async def schedules(self) -> answers.Schedules:
        return answers.Schedules(
            [
                answers.ScheduleSeen(
                    of.schedule.name,
                    of.schedule.task,
                    str(of.schedule),
                    of.schedule.queue,
                    of.schedule.priority,
                    of.schedule.missed,
                    of.fixed,
                    of.last,
                    of.next,
                )
                for of in await self._engine.schedules.ls()
            ]
        )

    async def dead(self, cursor: str = "", limit: int = 100, *, queue: str = "", task: str = "") -> answers.DeadPage:
        """Return about *limit* (1..200) dead letters, the youngest jobs first, behind *cursor*.

        Raises:
            BadParameters: that is no cursor.
        """
        ids = (await self._engine.admin.dead())[::-1]
        letters, cursor = await self._page(
            ids, cursor, limit, letter_of, lambda of: queue in {"", of.queue} and task in {"", of.task}
        )
        return answers.DeadPage(letters, len(ids), cursor)

    async def _page(
        self, ids: list[str], cursor: str, limit: int, see: Callable[[Found], T], meant: Callable[[T], bool]
    ) -> tuple[list[T], str]:
        """Return about *limit* of these jobs, whose ids fall, behind a cursor: the id of the last one that was looked at."""
        if cursor and not is_id(cursor):
            raise BadParameters(f"{cursor[:100]!r} is no cursor of this page")
        left = [job_id for job_id in ids if not cursor or job_id < cursor]
        seen: list[T] = []
        for _ in range(LOOKS):
            room = limit - len(seen)
            asked, left = left[:room], left[room:]
            found = await self._engine.broker.find(asked) if asked else []
            cursor = asked[-1] if left else ""
            seen += filter(meant, map(see, filter(None, found)))
            if not left or 2 * len(seen) >= limit:
                break
        return seen, cursor

    async def is_dead(self, job_id: str) -> bool:
        return job_id in await self._engine.admin.dead()

    async def result(self, job_id: str, wait_s: float = 0.0) -> answers.Result:
        """Return how a job ended, when it has, after *wait_s* seconds at most.

        Raises:
            JobNotFound: nobody knows the id, or no longer. ResultExpired: its result is not kept.
        """
        try:
            async with asyncio.timeout(wait_s + PATIENCE_S):
                value = await self._engine.job((await self._find(job_id)).id).result(wait_s)
        except TimeoutError:
            return answers.Result(job_id, over=False)
        except (TaskFailed, TaskCancelled, TaskExpired) as exc:
            return answers.Result(job_id, over=True, error=bounded(str(exc)))
        return answers.Result(job_id, over=True, value=value)

    async def decisions(self, thing: str = "", since_s: float = 0.0, limit: int = 100) -> answers.DecisionsSeen:
        """Return what was decided about *thing* ("": about all) since a date, and because of what."""
        told = explained(await self._known.get(), thing, since_s)
        return answers.DecisionsSeen(told.sizes, told.decisions[::-1][:limit])

    async def _decided(self) -> Known:
        keep = self._engine.keep
        if keep is not None:
            return await history(keep)
        own = self._manager.decisions if self._manager else self._engine.optimizer.decisions
        return Known([Kept(of.name, of.old, of.new, of.because, of.at_s) for of in own], [])

    def settings(self) -> answers.SettingsSeen:
        """Return what is set, and where it came from; secrets as stars."""
        settings = self._settings or Settings(broker=self._engine.url, namespace=self._engine.namespace)
        return answers.SettingsSeen(
            [
                answers.SettingSeen(
                    name, "" if value is None else shown(name, value), self._origins.get(name, "default"), of.doc
                )
                for name, of in SETTINGS.items()
                for value in (getattr(settings, name),)
            ]
        )

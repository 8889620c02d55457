"""Engine: the front door that carries work. It joins the floors and has no logic of its own.

enqueue → broker → worker → task → result
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from functools import cached_property
from types import ModuleType, TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit
from weakref import ref

import msgspec

from asyncworker import __version__
from asyncworker.auto import EXECUTORS, PARTITION_QUEUE, PARTITIONS_AT_ONCE, slots
from asyncworker.calls import Calls
from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BadParameters, JobFailed, SettingsError
from asyncworker.events import Bus, WorkerStarted
from asyncworker.job import JobHandle, JobStatus, walk
from asyncworker.mapreduce.cache import TTL_S, brought_back, key_of, known_job, remember
from asyncworker.mapreduce.catalogue import Catalogue
from asyncworker.mapreduce.dataset import is_postgresql
from asyncworker.mapreduce.feeder import submit
from asyncworker.mapreduce.job import MAP_TASK, MERGE_TASK, REDUCE_TASK, Summary
from asyncworker.mapreduce.mapper import Mapper
from asyncworker.mapreduce.merger import Merger
from asyncworker.mapreduce.openings import Openings
from asyncworker.mapreduce.reducer import Reducer
from asyncworker.mapreduce.register import note
from asyncworker.mapreduce.resume import resume
from asyncworker.mapreduce.straggler import tame
from asyncworker.optimizer import AsyncWorkerOptimizer
from asyncworker.queue.admin import Admin
from asyncworker.queue.archive import Archive, open_keep
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import pack_call
from asyncworker.queue.drain import Drained, drained
from asyncworker.queue.hooks import Hooks
from asyncworker.queue.inputs import GATHER_TASK, gather
from asyncworker.queue.job import DEFAULT_PRIORITY
from asyncworker.queue.keeps.keep import Keep
from asyncworker.queue.offload import ABOVE, Offload, fetching
from asyncworker.queue.recent import Recent
from asyncworker.queue.schedule import Missed, Schedule
from asyncworker.queue.search import Query, states_of
from asyncworker.queue.signing import Keyring, signed
from asyncworker.queue.stores.store import Store
from asyncworker.queue.task import TaskOptions, Tasks, options_of
from asyncworker.queue.unique import scoped
from asyncworker.queue.worker.patience import CANCEL_GRACE_S
from asyncworker.queue.worker.sought import HIGHEST
from asyncworker.queue.worker.turns import check_weights
from asyncworker.queue.worker.worker import Lifespan, Worker
from asyncworker.registry import find
from asyncworker.schedules import Schedules
from asyncworker.secret import mask_text, mask_url
from asyncworker.strikes import Strikes
from asyncworker.task import Call, Decorator, Task, name_of
from asyncworker.tune.decisions import Decides
from asyncworker.tune.sensors.profiler import PerformanceProfiler
from asyncworker.tune.sensors.sensor import Readable
from asyncworker.work.batched import batched
from asyncworker.work.stream import Outcome

T = TypeVar("T")
S = TypeVar("S", bound=Readable)
log = logging.getLogger(__name__)

QUEUES = ("priority", "default", "io_intensive", "cpu_intensive", "scheduled")
"""What a worker serves unless told otherwise, in this order."""
PLANNERS_S = 3.0
"""How long closing waits for jobs whose partitions are still being planned: what is not sealed then is cancelled."""
Auto = Literal["auto"]


class Engine:
    """Carry work: register tasks, enqueue calls of them, and run them.

    Args:
        broker: a URL. ``memory://`` is this process and works its own queue while open; on the others only
            `run`, `lifespan` and ``asyncworker worker`` work.
        namespace: keeps engines that share a server apart.
        queues: what this engine's worker serves: names, or name -> how many of its jobs may run at once (or "auto").
        concurrency: how many jobs at once in a worker process; "auto" is sought, for each task by itself.
        weights: queue -> weight, 1 where none is given. While several have jobs waiting, each brings jobs in proportion to
            its weight; none starves.
        routes: task name pattern (as in a shell) -> queue, for tasks that name none; first match wins.
        lease: seconds of silence after which a worker is dead and its jobs are given back.
        grace_period: seconds that a drain waits for running jobs.
        cancel_grace: seconds that a cancelled job may go on before it is given up: its slot is free then, and what it says
            later does not count.
        database: a PostgreSQL DSN for datasets given by id and for result rows.
        signing_keys: jobs are signed by the first, and workers run none that is not signed by one of them
            (`asyncworker.queue.signing`).
        outbox: a PostgreSQL DSN; this engine's workers enqueue what is written into the outbox there.
        result_store: where results above *result_offload* bytes go: ``file:///some/folder`` or ``postgresql://…``, which
            clients must reach, too. None: all lie with their jobs, and one of more than 16 MiB fails its job.
        result_cache: a PostgreSQL DSN; results of ``map_reduce(cache=…)`` lie there as well, in the table
            ``asyncworker_cache``, for *cache_ttl* seconds: longer than with their jobs, and beyond this broker.
        keep: where what workers decide and learn is kept for the next start: a URL, or a file's path; None: with the
            jobs (on ``memory://``: nowhere).
        lifespan: makes an async context manager that each worker enters before it claims and leaves when it stops;
            its value is ``ctx.resources``.

    The arguments of the same name are attributes (``broker`` is ``url``, ``keep`` is ``keep_at``), which may be changed until the engine is
    first used. Use as an async context manager to be a client. Several engines may live in one event loop.
    """

    def __init__(
        self,
        broker: str = "memory://",
        *,
        namespace: str = "asyncworker",
        queues: Iterable[str] | Mapping[str, int | Auto] = QUEUES,
        concurrency: int | Auto = "auto",
        weights: Mapping[str, float] | None = None,
        routes: Mapping[str, str] | None = None,
        lease: float = 10.0,
        grace_period: float = 30.0,
        cancel_grace: float = CANCEL_GRACE_S,
        database: str | None = None,
        outbox: str | None = None,
        signing_keys: Sequence[str] = (),
        result_store: str | None = None,
        result_offload: int = ABOVE,
        result_cache: str | None = None,
        cache_ttl: float = TTL_S,
        keep: str | None = None,
        lifespan: Lifespan | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.bus = Bus()
        self.tasks = Tasks(lifespan)
        self.functions = Catalogue()
        self.url = broker
        self.namespace = namespace
        self.queues = queues
        self.concurrency = concurrency
        self.weights = check_weights(weights or {})
        self.lease = lease
        self.grace_period = grace_period
        self.cancel_grace = cancel_grace
        self.database = database
        self.outbox = outbox
        self.signing_keys = tuple(signing_keys)
        self.result_store = result_store
        self.result_offload = result_offload
        self.result_cache = result_cache
        self.cache_ttl = cache_ttl
        self.keep_at = keep
        self.hooks = Hooks()
        self.on_start, self.on_stop = self.hooks.on_start, self.hooks.on_stop
        self.before_task, self.after_task = self.hooks.before_task, self.hooks.after_task
        self.on_success, self.on_failure = self.hooks.on_success, self.hooks.on_failure
        self.middleware = self.hooks.middleware
        self._resources = lifespan
        self.profiler: PerformanceProfiler | None = None
        self._sensors: list[ref[Readable]] = []
        self.clock = clock
        self._routes = dict(routes or {})
        self.calls = Calls(self)
        self.schedules = Schedules(self)
        self.strikes = Strikes(self)
        self._users = 0
        self._own: set[asyncio.Task[None]] = set()
        self._workers: set[Worker] = set()
        self._opening = threading.Lock()
        self._reading, self._planning = Openings(), Openings()  # apart: who reads does not wait for who plans
        self._hurry = asyncio.Event()  # set: who plans partitions is to come to an end
        self._room()

    @cached_property
    def broker(self) -> Broker:
        """The broker, opened when first asked for; until then the attributes above may be changed."""
        with self._opening:  # several threads may be the first; a cached property does not make them wait
            if "broker" not in self.__dict__:
                self.__dict__["broker"] = self._opened()
            opened: Broker = self.__dict__["broker"]
            return opened

    def _opened(self) -> Broker:
        broker: Broker = self._room().open(self.url, namespace=self.namespace, bus=self.bus, clock=self.clock)
        if self.signing_keys:
            broker = signed(broker, Keyring(self.signing_keys, self.clock))
        if self._store is not None:
            broker = fetching(broker, self._store)
        once = TaskOptions(queue=PARTITION_QUEUE, timeout=None, max_deliveries=10, no_retry_on=(JobFailed,))
        reduce = msgspec.structs.replace(once, max_attempts=5)
        self._mapper = Mapper(broker, self.functions.find, self._reading)
        self.tasks.add(MAP_TASK, self._mapper, once)
        self.tasks.add(MERGE_TASK, Merger(broker, self.functions.find), once)
        self.tasks.add(REDUCE_TASK, Reducer(broker, self.functions.find, self._reading), reduce)
        self.tasks.add(GATHER_TASK, gather, TaskOptions(timeout=None))
        return broker

    @cached_property
    def _store(self) -> Store | None:
        """Where large results lie."""
        if self.result_store is None:
            return None
        store: Store = find("store", urlsplit(self.result_store).scheme).open(self.result_store)
        return store

    @property
    def admin(self) -> Admin:
        """What people do to queues: pause them, bound them, look after dead letters.

        Raises:
            SettingsError: this broker cannot.
        """
        if not isinstance(self.broker, Admin):
            raise SettingsError(f"{mask_url(self.url)} is a broker whose queues cannot be looked after")
        return self.broker

    @cached_property
    def optimizer(self) -> AsyncWorkerOptimizer:
        """This engine's own: it knows what was decided and learned here, and before."""
        return AsyncWorkerOptimizer(self.bus)

    @cached_property
    def keep(self) -> Keep | None:
        """Where decisions and what was learned are kept; None where they go with the process.

        Raises:
            UnknownName, SettingsError, KeepError: a place that cannot be used.
        """
        if self.keep_at is None and (self._works_alone() or not isinstance(self.broker, Admin)):
            return None
        place = self.keep_at or str(getattr(self.broker, "url", self.url))
        return open_keep(place, self.namespace)

    @cached_property
    def _results(self) -> Keep:
        """Where it is kept which job did what: with the jobs."""
        return self.keep or open_keep("memory://", self.namespace)

    def watch(self, sensor: S) -> S:
        """Tell under ``/metrics`` what this knows of itself, for as long as it is used: a pool of connections, say.

        What a pool decides about its size is then told by `explain` and ``/metrics``, too.
        """
        if isinstance(sensor, Decides):
            sensor.decisions = self.optimizer.decisions
            sensor.decisions.watch(sensor)
        self._sensors = [known for known in self._sensors if known() is not None]
        self._sensors.append(ref(sensor))
        return sensor

    @property
    def sensors(self) -> list[Readable]:
        """What is watched; may be asked in another thread."""
        return [sensor for known in self._sensors if (sensor := known()) is not None]

    @cached_property
    def _archive(self) -> AbstractAsyncContextManager[Any]:
        return nullcontext() if self.keep is None else Archive(self.keep, self.optimizer, clock=self.clock)

    @cached_property
    def recent(self) -> Recent:
        """The last thousand failures and successes of this process' workers; kept once asked for."""
        return Recent(self.bus)

    def _room(self) -> ModuleType:
        """Check what was given, and return what opens the broker."""
        scheme = urlsplit(self.url).scheme
        if not scheme or "://" not in self.url:
            raise SettingsError(
                f"the broker must be a URL such as redis://localhost:6379/0, not {mask_url(self.url)!r}"
            )
        if self.lease <= 0 or self.grace_period < 0 or self.cancel_grace < 0:
            raise SettingsError("lease must be more than 0 seconds, grace_period and cancel_grace 0 or more")
        if self.outbox is not None:
            find("outbox", urlsplit(self.outbox).scheme)
        if self.result_store is not None:
            find("store", urlsplit(self.result_store).scheme)
        if self.result_cache is not None and not is_postgresql(self.result_cache):
            raise SettingsError(f"result_cache must be a postgresql:// URL, not {mask_url(self.result_cache)!r}")
        slots(self.queues, self.concurrency)
        return find("broker", scheme)

    def _works_alone(self) -> bool:
        return self.url.startswith("memory://")

    def __repr__(self) -> str:
        return f"<engine {mask_url(self.url)} {'open' if self._users else 'closed'}>"

    # --- what can be asked for -----------------------------------------------------------------------------

    def task(self, *, name: str | None = None, **options: Any) -> Decorator:
        """Register a function as a task; the decorated function can be called as before, and enqueued.

        A coroutine function runs on the event loop, a plain one in a thread; on the queue ``cpu_intensive`` plain ones
        run in processes, and coroutine functions are refused, unless they name an executor. ``options``: `TaskOptions`.

        Raises:
            UnknownName: no such option. BadParameters: a value that does not fit. SettingsError: name taken.
        """

        def register(function: Callable[..., Any]) -> Task[Any, Any]:
            known_as = name or name_of(function)
            given = dict(options)
            if "queue" not in given and (route := self.route(known_as)):
                given["queue"] = route
            if not given.get("executor") and (executor := EXECUTORS.get(given.get("queue", ""))):
                given["executor"] = executor
            return Task(function, self.tasks.add(known_as, function, options_of(given)), self.calls)

        return register

    def route(self, task: str) -> str | None:
        """Return the queue of a task that names none, if a pattern of ``routes`` fits."""
        return next((queue for pattern, queue in self._routes.items() if fnmatchcase(task, pattern)), None)

    def batch(
        self,
        *,
        max_size: int = 100,
        max_wait: float = 0.05,
        at_once: int = 2,
        bisect: bool = True,
        name: str | None = None,
        **options: Any,
    ) -> Callable[[Callable[[list[T]], Any]], Task[[T], Any]]:
        """Register a function of many items as a task of one: its jobs are run in batches, each with its own outcome.

        Args:
            max_size: no call gets more; how many are cheapest is found. As many jobs must be allowed to run at once.
            max_wait: seconds that a job may wait for others, where that pays. at_once: calls under way.
            bisect: whether a batch that raises is tried again in halves, so that only those fail that must.
            options: `TaskOptions`; retries, timeouts and results are each job's own.

        The function returns None, or one value (or exception) an item.
        """

        def register(handler: Callable[[list[T]], Any]) -> Task[[T], Any]:
            one = batched(
                handler,
                spans=lambda: self.hooks.propagator,
                watch=self.watch,
                name=name or name_of(handler),
                max_batch_size=max_size,
                linger=max_wait,
                max_concurrent_batches=at_once,
                bisect=bisect,
            )
            made: Task[[T], Any] = self.task(name=name, **options)(one)
            return made

        return register

    def mapper(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Register ``async def m(item, params) -> value`` for `map_reduce`, by its name."""
        self.functions.add_mapper(name_of(function), function)
        return function

    def reducer(self, kind: type[T]) -> type[T]:
        """Register a class with ``initial``, ``fold``, ``merge`` and ``finish`` for `map_reduce`, by its name."""
        self.functions.add_reducer(kind.__name__, kind)
        return kind

    def cron(
        self, expression: str, *, tz: str = "UTC", missed: Missed = "last", name: str | None = None, **options: Any
    ) -> Decorator:
        """Register a task and enqueue it at each tick of a crontab expression; each tick fires once in the fleet.

        Args:
            missed: which ticks fire late, of those in which no worker was there: the last one, all, or none ("skip").

        Raises:
            SettingsError: the expression or the time zone cannot be read.
        """
        return self._by_calendar(name, options, cron=expression, tz=tz, missed=missed)

    def every(
        self, seconds: float | timedelta, *, missed: Missed = "last", name: str | None = None, **options: Any
    ) -> Decorator:
        """Register a task and enqueue it at intervals, which count from the epoch; each tick fires once in the fleet.

        Raises:
            SettingsError: an interval of less than 0.1 s.
        """
        every = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        return self._by_calendar(name, options, every=every, missed=missed)

    def _by_calendar(self, name: str | None, options: dict[str, Any], **calendar: Any) -> Decorator:
        def register(function: Callable[..., Any]) -> Task[Any, Any]:
            made: Task[Any, Any] = self.task(name=name, **{"queue": "scheduled", **options})(function)
            how = Call.of(made.definition.options)
            self.schedules.fix(
                Schedule(
                    name=made.name,
                    task=made.name,
                    queue=how.queue,
                    priority=how.priority,
                    payload=pack_call(made.name, (), {}),
                    options=scoped(how.options, made.name, how.queue),
                    **calendar,
                )
            )
            return made

        return register

    # --- asking ---------------------------------------------------------------------------------------------

    def enqueue(self, task: str, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, JobHandle[Any]]:
        """Enqueue one call by the task's name; its code need not be imported here.

        Raises:
            BadParameters: arguments that the task cannot take (where it is known here), or that cannot travel. BrokerDown, QueueFull, JobTooBig.
        """
        how = self._how(task)
        return (self.calls.post if how.plain else self.calls.one)(task, args, kwargs, how)

    def enqueue_blocking(self, task: str, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Enqueue one call by the task's name from code that has no event loop; see `Task.enqueue_blocking`."""
        return self.calls.send_blocking(task, args, kwargs, self._how(task))

    def _how(self, task: str) -> Call:
        """Return how a task that need not be known here is called."""
        known = self.tasks.get(task)
        return Call.of(known.options if known else TaskOptions(queue=self.route(task) or "default"))

    def job(self, job_id: str) -> JobHandle[Any]:
        """Return a handle by id; nothing is asked yet."""
        return JobHandle(self.broker, job_id)

    async def jobs(
        self,
        states: Iterable[str] = (),
        *,
        queue: str = "",
        task: str = "",
        since: datetime | float | None = None,
        until: datetime | float | None = None,
    ) -> AsyncGenerator[JobStatus, None]:
        """Yield the jobs of these states (none given: of all), of this queue and task, as `JobHandle.status` shows them.

        Those that are over come first, as long as they are remembered, then those that run, are queued, are delayed, are
        blocked; within a state older ones mostly before younger ones. Each is told once; one that moves on meanwhile may
        be missed. Parts of map/reduce jobs are left out. Of a job that was cancelled before it ran the task is not known any
        more, nor, but on ``memory://``, the queue.

        Args:
            since, until: when they were enqueued, the second exclusive: dates, or seconds since the epoch.

        Raises:
            BadParameters: there is no such state. SettingsError: this broker cannot.

        Cost: a few round trips for each 200 jobs that are looked at. Time and states spare looks at others, and a queue
        at those that are not over; a task is looked for among all of these.
        """
        moments = (one.timestamp() if isinstance(one, datetime) else one or 0.0 for one in (since, until))
        async for status in walk(self.admin, Query(states_of(states), queue, task, *moments)):
            yield status

    def map(
        self,
        function: Callable[..., Any],
        items: Any,
        *,
        concurrency: int | Auto = "auto",
        ordered: bool = False,
        on_error: Literal["raise", "collect", "skip"] = "raise",
    ) -> AsyncIterator[Any | Outcome]:
        """Run a coroutine function over items in this process: `AsyncWorkerOptimizer.map` of `optimizer`."""
        return self.optimizer.map(function, items, concurrency=concurrency, ordered=ordered, on_error=on_error)

    async def map_reduce(
        self,
        source: Any,
        function: str | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        map: str | Callable[..., Any] | None = None,
        reduce: str | type[Any] | None = None,
        partition_size: int | Auto = "auto",
        workers: int | Auto = "auto",
        max_failures: float | None = None,
        item_attempts: int = 1,
        partition_attempts: int | None = None,
        speculate: bool = True,
        cache: bool | str = False,
        to: str | None = None,
        failed_to: str | None = None,
        database: str | None = None,
        fan_in: int | Auto = "auto",
        reducers: int | Auto = "auto",
        priority: int = DEFAULT_PRIORITY,
    ) -> JobHandle[Summary]:
        """Map and reduce a dataset in a durable job on the broker; returns when its plan has been checked.

        Args:
            source: a URL, a path, an iterable (shipped by this process), or a dataset id of *database*.
            function: a built-in's name; else *map* and *reduce* name users' own, registered ones.
            partition_size: items a partition; "auto": as many as take about 1.5 s, as measured. workers: how many
                partitions may be under way at once; "auto" is as many as the workers have room for.
            max_failures: failed items that fail the job: a count (int), a share of all (float, 0..1), None: none do.
            item_attempts, partition_attempts: how often each is tried; of partitions None is 3.
            speculate: do a partition a second time that takes far longer than the others (`mapreduce/straggler.py`); only
                where mapping an item twice does no harm, or its effects are made by `Context.effect`.
            cache: return the job that did the same over the same version of the dataset, if its result is still there. A
                text is a version of your own, of data or code; True is what the source can tell: of a file its size, time
                and edges, of a table its rows and their last change. Where nothing is known, the job runs.
            to: where rows go, a URL or path. failed_to: where failed items go, with their errors.
            fan_in: how many partitions' results a step of the reduction merges; reducers: among how many jobs the keys
                of `data_aggregation`, or of a reducer with ``row``, are shared out; "auto": as much of that as
                what partitions leave calls for, mostly none.

        Raises:
            UnknownName, BadParameters, SourceError, EmptyDataset, BrokerDown: and no job is left behind.
        """
        name = self.functions.name(function, map, reduce)
        key = None
        if cache:
            if to is not None or failed_to is not None:
                raise BadParameters(
                    "cache= gives a result that is there already, which to= and failed_to= would not see"
                )
            version = cache if isinstance(cache, str) else None
            own = database or self.database
            key = await key_of(
                source, name, params or {}, {"max_failures": max_failures}, version=version, database=own
            )
        if key is not None and (known := await self._cached(key)):
            return JobHandle(self.broker, known, PARTITION_QUEUE, parent=True)
        job_id, feeding = await submit(
            self.broker,
            source,
            self.functions.find(name),
            params or {},
            partition_size=partition_size,
            max_failures=max_failures,
            item_attempts=item_attempts,
            partition_attempts=partition_attempts,
            to=to,
            failed_to=failed_to,
            database=database or self.database,
            fan_in=None if fan_in == "auto" else fan_in,
            reducers=None if reducers == "auto" else reducers,
            speculate=speculate,
            cache=(self.result_cache, key, self.cache_ttl) if key is not None and self.result_cache else None,
            queue=PARTITION_QUEUE,
            priority=priority,
            ahead=self._partitions_at_once,
            hurry=self._hurry,
            openings=self._planning,
            in_flight=None if workers == "auto" else workers,
            lease_s=self.lease,
        )
        self._adopt(feeding)
        await note(self.keep, job_id)
        if key is not None:
            await remember(self._results, key, job_id, self.cache_ttl)
        if speculate:
            self._adopt(asyncio.create_task(tame(self.broker, job_id, clock=self.clock), name=f"tamer of {job_id}"))
        return JobHandle(self.broker, job_id, PARTITION_QUEUE, parent=True)

    async def _cached(self, key: str) -> str | None:
        """Return the job that does this, or has done it: as the broker knows it, else as the table of results does."""
        known = await known_job(self._results, self.broker, key)
        if known is None and self.result_cache is not None:
            known = await brought_back(self.result_cache, self.broker, key, PARTITION_QUEUE, clock=self.clock)
            if known is not None:
                await remember(self._results, key, known, self.cache_ttl)
        return known

    async def resume(self, job_id: str, source: Any = None) -> JobHandle[Summary]:
        """Do what is left of a map/reduce job that failed at most a day ago; of one that runs or is done, return its handle.

        Args:
            source: the items once more, where they came from this process alone.

        Raises:
            JobNotFound, ResultExpired: nobody knows it, or no longer. BadParameters: it was cancelled, or needs *source*.
            SourceError, UnknownName, BrokerDown.
        """
        feeding = await resume(
            self.broker,
            job_id,
            self.functions.find,
            source,
            ahead=self._partitions_at_once,
            hurry=self._hurry,
            openings=self._planning,
            lease_s=self.lease,
            clock=self.clock,
        )
        if feeding is not None:
            self._adopt(feeding)
        return JobHandle(self.broker, job_id, PARTITION_QUEUE, parent=True)

    async def _partitions_at_once(self) -> int:
        """Return how many the live workers do at once."""
        cards = (await self.broker.depth([])).workers.values()
        return PARTITIONS_AT_ONCE * sum(1 for card in cards if PARTITION_QUEUE in card.queues)

    # --- working --------------------------------------------------------------------------------------------

    async def run(self, *, concurrency: int | Auto | None = None, burst: bool = False) -> None:
        """Be a worker: run jobs until `stop`; with *burst*, until the queues are empty.

        Raises:
            BrokerDown: the broker cannot be reached at the start. SettingsError: it may not be used.
        """
        wanted = self.concurrency if concurrency is None else concurrency
        at_once = HIGHEST if wanted == "auto" else wanted
        if at_once < 1:
            raise BadParameters(f"concurrency must be at least 1, not {at_once}")
        offload = None if self._store is None else Offload(self._store, self.result_offload)
        worker = Worker(
            self.broker,
            self.tasks,
            queues=slots(self.queues, wanted),
            concurrency=at_once,
            lease_s=self.lease,
            grace_s=self.grace_period,
            cancel_grace_s=self.cancel_grace,
            offload=offload,
            burst=burst,
            weights=self.weights,
            brisk=() if isinstance(self.queues, Mapping) else (PARTITION_QUEUE,),
            schedules=self.schedules,
            version=__version__,
            bus=self.bus,
            clock=self.clock,
            hooks=self.hooks,
            lifespan=self._resources,
            seek=self.optimizer.policy,
            decisions=self.optimizer.decisions,
            profiler=self.profiler,
        )
        self._workers.add(worker)
        try:
            async with self._archive, self._relaying(), nullcontext() if offload is None else offload.sweeping():
                await worker.run()
        finally:
            self._workers.discard(worker)

    @asynccontextmanager
    async def _relaying(self) -> AsyncIterator[None]:
        """Relay the outbox, if this engine has one, while the block runs."""
        if self.outbox is None:
            yield
            return
        room = find("outbox", urlsplit(self.outbox).scheme)
        relay = asyncio.create_task(room.open(self.outbox, namespace=self.namespace, broker=self.broker).run())
        try:
            yield
        finally:
            relay.cancel()
            await asyncio.wait([relay])

    async def drain(self) -> Drained:
        """Return when nothing of this engine's queues waits, is due or runs; what is delayed stays. For tests, mostly.

        Where this engine runs no worker, it is one meanwhile. Returns what ended: counts.
        """
        looking = asyncio.ensure_future(drained(self.broker, list(self.queues)))
        working = None if self._workers else asyncio.ensure_future(self.run())
        try:
            await asyncio.wait({looking, working or looking}, return_when=asyncio.FIRST_COMPLETED)
            if not looking.done() and working is not None:
                await working  # it could not work: its error is ours
            return await looking
        finally:
            looking.cancel()
            if working is not None:
                self.stop()
            await asyncio.wait({looking, working or looking})

    def running(self) -> dict[str, int]:
        """Return how many jobs run in this process now, by task; ``""`` are those that have not begun."""
        return sum(map(Counter, (worker.running() for worker in self._workers)), Counter())

    def stop(self, *, now: bool = False, patient: bool = False) -> None:
        """Make `run` drain within the grace period and return; with *now*, hand running jobs back at once.

        With *patient* it drains for as long as it takes; another call may shorten that.
        """
        for worker in self._workers:
            worker.stop(now=now, patient=patient)

    async def __aenter__(self) -> Self:
        self._users += 1
        if self._users == 1 and self._works_alone():
            try:
                await self._work_here("memory worker")
            except BaseException:
                await self.__aexit__(None, None, None)
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._users -= 1
        if self._users == 0:
            await self.close()

    async def close(self) -> None:
        """Stop what this engine runs here, and give back what it opened."""
        self.stop(now=True)
        self._hurry.set()
        if planners := [
            task for task in self._own if task.get_name().startswith("planner") and not self._works_alone()
        ]:
            await asyncio.wait(planners, timeout=PLANNERS_S)
        for task in self._own:
            if task.get_name() != "memory worker":
                task.cancel()
        await asyncio.gather(*self._own, return_exceptions=True)
        self._hurry = asyncio.Event()
        self.tasks.close()
        self.__dict__.pop("_archive", None)
        if (keep := self.__dict__.pop("keep", None)) is not None:
            await keep.close()
        self.__dict__.pop("_results", None)
        if (broker := self.__dict__.pop("broker", None)) is not None:  # the next use opens another
            self.tasks.remove(MAP_TASK)
            self.tasks.remove(MERGE_TASK)
            self.tasks.remove(REDUCE_TASK)
            self.tasks.remove(GATHER_TASK)
            await self._mapper.close()
            await broker.close()
        await self._reading.close()
        await self._planning.close()

    async def lifespan(self, app: object) -> AsyncGenerator[None, None]:
        """Be client and worker beside a web application: ``app.cleanup_ctx.append(engine.lifespan)``."""
        async with self:
            if not self._works_alone():
                await self._work_here("worker")
            yield
            self.stop()
            await asyncio.gather(*self._own, return_exceptions=True)

    async def _work_here(self, name: str) -> None:
        """Start a worker in this loop; where it has a lifespan, return when that has begun."""
        started = asyncio.Event()
        end = self.bus.listen(WorkerStarted, lambda _: started.set())
        work = asyncio.get_running_loop().create_task(self.run(), name=name)
        self._adopt(work)
        await asyncio.sleep(0)  # from here on `stop` finds it
        if self._resources is not None:
            work.add_done_callback(lambda _: started.set())
            await started.wait()
            if work.done():
                await work
        end()

    def _adopt(self, task: asyncio.Task[None]) -> None:
        """Own a background task: it is stopped when the engine closes, and its error is logged."""
        self._own.add(task)
        task.add_done_callback(self._bury)

    def _bury(self, task: asyncio.Task[None]) -> None:
        self._own.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s ended: %s", task.get_name(), mask_text(str(error)) or type(error).__name__)

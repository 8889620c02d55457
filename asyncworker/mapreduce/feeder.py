"""Feeder: submits a map/reduce job. Checks it all, cuts the source, ships its partitions, and seals the job.

The feeder joins the broker like a worker and holds the job while it is being cut, so that a job whose submitter
died is known as such: its lease ends, and the job fails instead of waiting for ever.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BrokerDown, BrokerError, JobNotFound, QueueFull, SourceError
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.functions.function import Function
from asyncworker.mapreduce.job import CHUNK_BYTES, ERROR_CHARS, MAP_TASK, REDUCE_TASK, Partial, Plan, read
from asyncworker.mapreduce.openings import Openings
from asyncworker.mapreduce.pace import Flow
from asyncworker.mapreduce.planner import Sizing
from asyncworker.mapreduce.request import check, check_columns, place, places
from asyncworker.mapreduce.sources.source import Partition, Source
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import Ids, pack, pack_call, unpack_record
from asyncworker.queue.job import (
    DEFAULT_PRIORITY,
    Job,
    Op,
    Reason,
    Receipt,
    Record,
    Settled,
    State,
    WorkerCard,
    child_id,
)
from asyncworker.queue.worker.keeper import BEATS_A_LEASE, Keeper
from asyncworker.secret import mask_text

WINDOW, WINDOW_BYTES = 128, 2**16
"""Partitions that are shipped as one: so many small ones at most, and no more bytes than a large one has."""
FULL_PAUSE_S = 0.5
PLANNING_S = 5.0
"""How long partitions are cut one after another as they are measured, where workers can open the source: then all the
rest is cut, so that a submitter need not stay."""
HURRY_S = 0.2
"""How soon it is seen that a submitter wants to go."""
PATIENCE_S = 2.0
"""How long a feeder that failed tries to say so; after that its lease does."""
FAILED_TTL_S, CANCELLED_TTL_S = 604_800, 3_600
OPTIONS = {"max_deliveries": 10}
"""A partition (or reduction) is not to blame for each worker that dies with it in hand: a large job sees many come and go."""
OF_ALL = {"max_deliveries": 20}
"""The end of a job is worth more tries: all else of it is done by then."""


async def submit(
    broker: Broker,
    source: Any,
    function: Function,
    params: Mapping[str, Any],
    *,
    openings: Openings,
    partition_size: int | Literal["auto"],
    max_failures: float | None = None,
    item_attempts: int = 1,
    partition_attempts: int | None = None,
    to: str | None = None,
    failed_to: str | None = None,
    fan_in: int | None = None,
    reducers: int | None = None,
    speculate: bool = False,
    cache: tuple[str, str, float] | None = None,
    database: str | None = None,
    queue: str = "default",
    priority: int = DEFAULT_PRIORITY,
    ahead: int | Callable[[], Awaitable[int]] = 2,
    in_flight: int | None = None,
    hurry: asyncio.Event | None = None,
    lease_s: float = 10.0,
    clock: Clock = SYSTEM,
) -> tuple[str, asyncio.Task[None]]:
    """Submit a job; return its id as soon as it exists, and the task that feeds it, which the caller then owns.

    Args:
        source: a URL, a path, an iterable, or a dataset id of *database*.
        max_failures: None, a count of items (int) or a share of them (float, 0..1).
        item_attempts: how often an item is mapped until it counts as failed. partition_attempts: how often a partition
            is until the job fails; None: as the workers have it.
        to: where rows go. failed_to: where failed items go, with their errors. database: a PostgreSQL DSN for datasets by id, and for the result row.
        fan_in: how many partials a step of the reduction merges; reducers: among how many jobs keys are shared out
            (`asyncworker.mapreduce.levels`); None: as many as what partitions leave calls for.
        cache: see `Plan.cache`. speculate: workers copy partitions that take far longer than others (`asyncworker.mapreduce.straggler`).
        partition_size: items a partition; "auto": as many as take `planner.TARGET_S`, found as they are shipped.
        ahead: how many windows of partitions may be shipped and not yet over, where they carry their data, or who
            is asked for that now and then. A window is one large partition, or some small ones.
        in_flight: how many partitions may not yet be over, whatever the source; None: no bound.
        hurry: once set, what workers can open themselves is cut without waiting for measurements. The task is named
            "planner of …" where that helps.
        openings: where connections to the source are left for the next one.

    Returns:
        the task ends when the job is sealed or over. If feeding fails, the job fails for the same reason, which the
        task raises; a task that is cancelled cancels the job.

    Raises:
        BadParameters, SourceError, EmptyDataset, BrokerDown, QueueFull, JobTooBig: there is no job then.
    """
    check(partition_size, max_failures, ahead, in_flight, item_attempts, partition_attempts, fan_in, reducers)
    fields = function.prepare(params).fields
    opened = open_source(source, database)
    openings.lend(opened)
    most = ahead if isinstance(ahead, int) else await ahead()
    sizing = Sizing(in_flight or most, lambda: opened.left) if partition_size == "auto" else None
    if sizing and not most and opened.portable and not in_flight:
        sizing.give_up()
    try:
        plan = Plan(
            source=opened.url,
            dataset_id=source if isinstance(source, str) and "://" not in source else opened.label,
            function=function.name,
            params=dict(params),
            partition_size=0 if partition_size == "auto" else partition_size,
            max_failures=max_failures,
            item_attempts=item_attempts,
            failed_to=None if failed_to is None else place(failed_to),
            fan_in=fan_in or 0,
            reducers=reducers or 0,
            partition_attempts=partition_attempts or 0,
            speculate=speculate,
            cache=cache,
            **places(opened.url, to, database),
        )
        partitions = opened.partitions(sizing or partition_size)  # type: ignore[arg-type]  # it is a number then
        first = await anext(partitions, None)  # what cannot be read at all is said before there is a job
        check_columns(opened, fields)
        parent = Job(Ids()(), queue, pack_call(REDUCE_TASK, (plan,), {}), priority, OF_ALL)
        flow = Flow(in_flight or most, 1 if in_flight or sizing else WINDOW, None if in_flight else ahead)
        if opened.portable and not in_flight:
            flow.until = clock.monotonic() + PLANNING_S if sizing and most else 0.0
            flow.hurry = hurry or flow.hurry
        feeder = Feeder(broker, parent, flow, lease_s, clock, sizing=sizing, options=partition_options(plan))
        await feeder.begin()
    except BaseException:
        await opened.close()
        raise
    kind = "feeder" if flow.until is None else "planner"
    feeding = asyncio.create_task(feeder.run(opened, first, partitions, openings), name=f"{kind} of {parent.id}")
    await asyncio.sleep(0)  # whoever cancels it from here on finds it begun, and it can clean up
    return parent.id, feeding


def partition_options(plan: Plan) -> dict[str, Any]:
    """Return the options of a job's partitions."""
    return OPTIONS | {"max_attempts": plan.partition_attempts} if plan.partition_attempts else OPTIONS


class Feeder:
    """Hold one job, ship its partitions, and let it go.

    Args:
        sizing: is told what partitions cost. options: of partitions.
    """

    def __init__(
        self,
        broker: Broker,
        parent: Job,
        flow: Flow,
        lease_s: float,
        clock: Clock,
        *,
        sizing: Sizing | None = None,
        options: dict[str, Any] = OPTIONS,
    ) -> None:
        self._broker = broker
        self._parent = parent
        self._flow = flow
        self._sizing = sizing
        self._options = options
        self._lease_s = lease_s
        self._clock = clock
        self._waits: set[asyncio.Task[None]] = set()
        self._cut: list[Job] = []
        self._known: dict[int, tuple[int, int, str]] = {}

    async def begin(self) -> None:
        """Join, and enqueue the job into one's own hands.

        Raises:
            BrokerDown, QueueFull, JobTooBig: there is no job.
        """
        card = WorkerCard(
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=(),
            concurrency=0,
            lease_s=self._lease_s,
            started_s=self._clock.now(),
            role="feeder",
        )
        self._epoch = await self._broker.join(card, self._notice)
        self._keeper = Keeper(self._broker, self._epoch, self._lease_s, on_lost=_lost, clock=self._clock)
        soon = self._lease_s / BEATS_A_LEASE
        self._first_beat = asyncio.get_running_loop().call_later(soon, self._keeper.start)  # most are sealed by then
        try:
            await self._broker.enqueue([msgspec.structs.replace(self._parent, hold=self._epoch)])
        except BaseException as exc:
            await self._end(exc)  # an answer may have been lost, and the job be there
            await self._leave()
            raise

    async def run(
        self,
        source: Source,
        first: Partition | None,
        rest: AsyncIterator[Partition],
        openings: Openings,
        known: Mapping[int, tuple[int, int, str]] | None = None,
    ) -> None:
        """Ship all partitions and seal the job; see `submit`.

        Args:
            first: the first partition, where it was cut already. openings: where the source is left once the job is sealed.
            known: the places of partitions that are not to be shipped, for they are done.

        Raises:
            SourceError: those that are known are cut otherwise now.
        """
        self._known = dict(known or {})
        sealed = False
        try:
            if await self._ship(await anext(rest, None) if known is not None else first, rest):
                await self._settle(Op.SEAL)
                sealed = True
        except BaseException as exc:
            await self._end(exc)
            raise
        finally:
            self._notice(self._parent.id)
            await self._leave()
            await (openings.leave(source) if sealed else source.close())  # else it may still be cut

    async def done(self, summary: Any, ttl_s: int) -> None:
        """End the job, which has no partitions: it comes to *summary*, which was known before."""
        queue = self._parent.queue
        record = Record(task=REDUCE_TASK, attempt=1, ended_s=self._clock.now(), value=summary, queue=queue)
        try:
            await self._settle(Op.SUCCEEDED, ttl_s, pack(record))
        finally:
            await self._leave()

    async def _ship(self, first: Partition | None, rest: AsyncIterator[Partition]) -> bool:
        """Enqueue partitions as they are cut; returns False when the job is over before all were.

        What is cut while a window is on its way goes with the next; a lone partition waits for nobody.
        """
        sending: asyncio.Task[bool] | None = None
        partition, size, before = first, 0, 0
        try:
            while partition is not None:
                name = child_id(self._parent.id, partition.index)
                partition = msgspec.structs.replace(partition, cut_s=self._clock.now(), first=before)
                before += partition.items
                if (was := self._known.pop(partition.index, None)) is not None:
                    if was != partition.place:
                        raise SourceError("the source is not cut as it was: submit the job again")
                    partition = await anext(rest, None)
                    continue
                call = pack_call(MAP_TASK, (partition,), {})
                if not self._cut:
                    size = 0
                size += len(call)
                self._cut.append(Job(name, self._parent.queue, call, self._parent.priority, self._options))
                if sending is None or sending.done():
                    if sending is not None and not sending.result():
                        return False
                    sending = asyncio.create_task(self._send(), name=f"shipper of {self._parent.id}")
                if (len(self._cut) >= self._flow.window or size >= WINDOW_BYTES) and not await sending:
                    return False
                partition = await anext(rest, None)
            if self._known:
                raise SourceError("the source has less in it than it had: submit the job again")
            return sending is None or await sending
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def _send(self) -> bool:
        while self._cut:
            await self._room()
            window, self._cut = self._cut, []
            if not await self._enqueue(window):
                return False
        return True

    async def _room(self) -> None:
        """Return when another window may be on its way."""
        while self._flow.bounded(now := self._clock.monotonic()):
            most = await self._flow.look(now)
            if self._sizing is not None:
                self._sizing.slots = most
            if len(self._waits) < most:
                return
            left = None if self._flow.until is None else min(self._flow.until - now, HURRY_S)
            await asyncio.wait(self._waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            self._waits = {wait for wait in self._waits if not wait.done()}
        if self._sizing is not None:
            self._sizing.give_up()

    async def _enqueue(self, window: Sequence[Job]) -> bool:
        while True:
            try:
                receipts = await self._broker.enqueue(window)
                break
            except BrokerDown:
                await self._broker.step(self._epoch, (), {}, 0)  # waits until the outage is over
            except QueueFull:
                await asyncio.sleep(FULL_PAUSE_S)
        if self._flow.bounded(self._clock.monotonic()):
            self._waits.add(asyncio.create_task(self._over(window[-1].id)))
        return Receipt.CLOSED not in receipts

    async def _over(self, child: str) -> None:
        """Return when a partition is over, or has gone with its job."""
        while True:
            try:
                (ended,) = await self._broker.wait([child], None)
                if self._sizing is not None and ended is not None and ended.state is State.SUCCEEDED:
                    partial = read(Partial, unpack_record(ended.record).value)
                    size = len(partial.acc) + partial.chunks * CHUNK_BYTES
                    self._sizing.measured(partial.items, partial.seconds, size)
                return
            except JobNotFound:
                return
            except BrokerDown:
                await asyncio.sleep(FULL_PAUSE_S)

    def _notice(self, job_id: str) -> None:
        """Hear that the job was cancelled: wait for no partition any more, so that the next one finds it closed."""
        if job_id == self._parent.id:  # others' ends are told to everybody
            for wait in self._waits:
                wait.cancel()

    async def _settle(self, op: Op, ttl_s: int = 0, record: bytes = b"") -> None:
        await self._broker.step(self._epoch, [Settled(self._parent.id, op, self._parent.queue, ttl_s, record)], {}, 0)

    async def _end(self, error: BaseException) -> None:
        """End the job as failed because of *error*, or as cancelled where that is what it is."""
        cancelled = isinstance(error, asyncio.CancelledError)
        record = Record(
            task=REDUCE_TASK,
            ended_s=self._clock.now(),
            reason="" if cancelled else Reason.ERROR,
            error_type="" if cancelled else type(error).__name__,
            error_text="its submission was interrupted" if cancelled else mask_text(str(error))[:ERROR_CHARS],
            queue=self._parent.queue,
        )
        op, ttl_s = (Op.CANCELLED, CANCELLED_TTL_S) if cancelled else (Op.FAILED, FAILED_TTL_S)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._settle(op, ttl_s, pack(record))
        except (BrokerError, TimeoutError):
            return  # the lease will end, and the job with it

    async def _leave(self) -> None:
        self._first_beat.cancel()
        await self._keeper.stop()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._broker.reap(self._epoch, "", crashed=False)
        except (BrokerError, TimeoutError):
            return  # the sweepers of the fleet will do it when the lease ends


def _lost(because: str) -> None:
    """Let a lost lease be: what is enqueued from now on finds the job closed, and the job says why it failed."""

"""Resume: open a map/reduce job anew that failed, and do what is left of it: partitions that succeeded are not run again.

The source is cut once more, each finished partition where it was cut then; if that does not come out, for the source
has changed, the job fails again and says so. What partitions came to is kept for a day after the job has failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BadParameters, JobNotFound, ResultExpired
from asyncworker.mapreduce.dataset import open_source
from asyncworker.mapreduce.feeder import OPTIONS, PLANNING_S, WINDOW, Feeder, partition_options
from asyncworker.mapreduce.functions.function import Function
from asyncworker.mapreduce.job import REDUCE_TASK, Partial, Plan, read, read_call
from asyncworker.mapreduce.openings import Openings
from asyncworker.mapreduce.pace import Flow
from asyncworker.mapreduce.planner import Sizing, sizes_of
from asyncworker.mapreduce.sources.source import Exactly, Source
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import is_id, pack_call, unpack_record
from asyncworker.queue.job import Job, State, child_id

SLICE = 64


async def resume(
    broker: Broker,
    job_id: str,
    find_function: Callable[[str], Function],
    source: Any = None,
    *,
    openings: Openings,
    ahead: Callable[[], Awaitable[int]],
    hurry: asyncio.Event | None = None,
    lease_s: float = 10.0,
    clock: Clock = SYSTEM,
) -> asyncio.Task[None] | None:
    """Return the task that feeds what is left, which the caller then owns; None where the job runs or has succeeded.

    Args:
        source: the items once more, where only the submitter has them. openings: see `feeder.submit`.

    Raises:
        JobNotFound: nobody knows the job. BadParameters: it was cancelled, is no map/reduce job, or its *source* is needed.
        ResultExpired: what its partitions came to is no longer kept. SourceError, UnknownName: it cannot be read any more.
    """
    found = (await broker.find([job_id]))[0] if is_id(job_id) else None
    if found is None:
        raise JobNotFound(f"nobody knows a job {job_id!r}")
    if found.state is State.SUCCEEDED or not found.state.terminal:
        return None
    record = unpack_record(found.record)
    if found.state is not State.FAILED:
        raise BadParameters(f"job {job_id} was {found.state.value}, which is for good: submit it again")
    if record.task not in {REDUCE_TASK, ""}:
        raise BadParameters(f"job {job_id} is no map/reduce job: 'dead replay' runs a plain one again")
    if not found.payload:
        raise ResultExpired(f"what the partitions of job {job_id} came to is no longer kept: submit it again")
    plan = read_call(Plan, found.payload)
    find_function(plan.function)
    opened = _opened(plan, source)
    openings.lend(opened)
    most = await ahead()
    sizing = None if plan.partition_size else Sizing(most, lambda: opened.left)
    flow = Flow(max(most, 1), 1 if sizing else WINDOW, ahead)
    if opened.portable:
        flow.until = clock.monotonic() + PLANNING_S if sizing and most else 0.0
        flow.hurry = hurry or flow.hurry
    parent = Job(job_id, record.queue or found.queue, pack_call(REDUCE_TASK, (plan,), {}), found.priority, OPTIONS)
    feeder = Feeder(broker, parent, flow, lease_s, clock, sizing=sizing, options=partition_options(plan))
    try:
        await feeder.begin()
    except BaseException:
        await opened.close()
        raise

    async def feed() -> None:
        known = await _known(broker, job_id)
        cut = iter(_cut(known)) if sizing else iter(())
        partitions = opened.partitions((lambda: next(cut, 0) or sizing()) if sizing else plan.partition_size)
        await feeder.run(opened, None, partitions, openings, known)

    feeding = asyncio.create_task(feed(), name=f"{'planner' if opened.portable else 'feeder'} of {job_id}")
    await asyncio.sleep(0)
    return feeding


def _opened(plan: Plan, source: Any) -> Source:
    opened = open_source(plan.source if source is None else source)
    if source is None and not opened.portable and opened.url.startswith("memory:"):
        raise BadParameters("only who submitted this job has its items: pass them as source=")
    return opened


def _cut(known: dict[int, tuple[int, int, str]]) -> list[int]:
    """Return the sizes of partitions up to the last that is known, in items or in the source's own units."""
    sizes = sizes_of({part: (first, count) for part, (first, count, _) in known.items()})
    return [*map(Exactly, sizes)] if any(of for *_, of in known.values()) else sizes


async def _known(broker: Broker, job_id: str) -> dict[int, tuple[int, int, str]]:
    """Return the places of the partitions that succeeded."""
    found = (await broker.find([job_id]))[0]
    left = found.children.done if found and found.children else 0
    known: dict[int, tuple[int, int, str]] = {}
    start = 0
    while len(known) < left:
        ids = [child_id(job_id, part) for part in range(start, start + SLICE)]
        for part, one in enumerate(await broker.find(ids), start):
            if one is not None and one.state is State.SUCCEEDED:
                known[part] = read(Partial, unpack_record(one.record).value).place
        start += SLICE
    return known

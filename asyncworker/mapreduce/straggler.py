"""Stragglers: a partition that takes far longer than the others is done a second time, and whoever is first counts.

Early at the end of a job, when no partition waits any more. Before that others have better things to do, so a partition
must be later, and one is copied at a time: that costs somebody one partition, and gives back the worker that is stuck.
What a partition should take is known from those that are done. The copy is another worker's, and begins at the original's last
checkpoint. The broker takes the first result and tells the other one to stop. Whoever submitted a job looks after it
for as long as it stays; without it a job is as slow as its slowest worker, and no less right.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from statistics import median

from asyncworker.clock import SYSTEM, Clock
from asyncworker.errors import BrokerDown, JobNotFound, QueueFull
from asyncworker.mapreduce.job import Partial, read, read_call
from asyncworker.mapreduce.sources.source import Partition
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import unpack_record
from asyncworker.queue.job import PRIORITIES, Found, Job, Progress, State, child_id, copy_of, original_of

LATE = 1.5
"""How many times as long as it should take a partition runs before it is copied."""
LATER = 2.5
"""And while other partitions wait."""
LEAST_S = 0.5
"""And how long at least: a shorter one is over before its copy has begun."""
LOOK_S = 0.25
SAMPLE = 8


Cost = tuple[float, int]
"""Seconds that a partition took, and how many items it had."""
COPIED = {"max_deliveries": 10, "max_attempts": 1}
"""Options of copies: one that fails is not tried again, for the original still runs."""


async def tame(broker: Broker, job_id: str, *, every: float = 0.0, clock: Clock = SYSTEM) -> None:
    """Look after a job until it is over or nobody knows it: copy what is late. Several may: a partition has one copy.

    Args:
        every: seconds from look to look; 0: `LOOK_S`.

    Cost: four round trips each time.
    """
    costs: dict[int, Cost] = {}
    while True:
        try:
            (found,) = await broker.find([job_id])
            if found is None or found.state.terminal:
                return
            children = found.children  # all of them done: what runs is no partition, but a step of the reduction
            if children and children.sealed and 0 < children.done < children.total and not children.over:
                await _look(broker, job_id, children, costs, clock)
            await broker.wait([job_id], every or LOOK_S)
        except JobNotFound:
            return
        except (BrokerDown, QueueFull):
            await asyncio.sleep(every or LOOK_S)


async def _look(broker: Broker, job_id: str, children: Progress, costs: dict[int, Cost], clock: Clock) -> None:
    ids = await broker.running(job_id)
    originals = [child for child in ids if original_of(child) is None]
    waits = len(originals) < children.total - children.done
    if len(costs) < min(SAMPLE, children.done):
        costs.update(await _sample(broker, job_id, children, originals))
    copied = {original for child in ids if (original := original_of(child))}
    running = [found for found in await broker.find(originals) if found and found.state is State.RUNNING]
    late = overdue(running, list(costs.values()), clock.now(), LATER if waits else LATE)
    if waits:
        late = [] if copied else late[:1]
    copies = [(found, min(found.priority + 1, max(PRIORITIES))) for found in late if found.id not in copied]
    if copies:
        await broker.enqueue([Job(copy_of(one.id), one.queue, one.payload, rank, COPIED) for one, rank in copies])


async def _sample(broker: Broker, job_id: str, children: Progress, running: Sequence[str]) -> dict[int, Cost]:
    """Return what some of the partitions that are done cost."""
    held = set(running)
    done = [part for part in range(children.total) if child_id(job_id, part) not in held]
    parts = random.sample(done, min(SAMPLE, len(done)))
    ended = await broker.wait([child_id(job_id, part) for part in parts], 0)
    partials = {
        part: read(Partial, unpack_record(one.record).value)
        for part, one in zip(parts, ended, strict=True)
        if one is not None and one.state is State.SUCCEEDED
    }
    return {part: (partial.seconds, partial.items) for part, partial in partials.items()}


def overdue(running: Sequence[Found], costs: Sequence[Cost], now_s: float, times: float = LATE) -> list[Found]:
    """Return those that have run *times* as long as others, the latest first; where items were not counted, all cost the same."""
    if not costs:
        return []
    all_s, item_s = median(seconds for seconds, _ in costs), median(seconds / max(items, 1) for seconds, items in costs)
    late = []
    for found in running:
        items = read_call(Partition, found.payload).items
        if now_s - found.started_s > max(times * (item_s * items if items else all_s), LEAST_S):
            late.append(found)
    return sorted(late, key=lambda found: found.started_s)

"""What lies in the store while the pages are looked at: 100,000 jobs, of each state, and work that goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from asyncworker.job import JobHandle
from asyncworker.mapreduce.job import REDUCE_TASK
from asyncworker.queue.job import State
from asyncworker.queue.search import Query
from asyncworker.task import Call
from tests.browser.house import House
from tests.browser.shop import HOSTILE

STORED = 100_000
DONE = 3_000
DEAD = 120


async def send(house: House, task: str, calls: Iterable[tuple[Any, ...]], **options: Any) -> list[JobHandle[Any]]:
    how = Call.of(house.engine.tasks[task].options).changed(options)
    return await house.engine.calls.send(task, [(call, {}) for call in calls], how)


async def settled(house: House, handles: Iterable[JobHandle[Any]]) -> None:
    """Return when these jobs are over, or run again later."""
    ids = [handle.id for handle in handles]
    while True:
        found = await house.engine.broker.find(ids[-200:])
        if all(one and one.state not in {State.QUEUED, State.RUNNING} for one in found):
            return
        await asyncio.sleep(0.05)


async def shop(house: House) -> None:
    """Fill a shop's store."""
    engine = house.engine
    over = await send(house, "charge", ((order,) for order in range(DONE)))
    over += await send(house, "refund", ((order, "of the customer who wrote twice") for order in range(DEAD)))
    over += await send(house, "fetch", ((f"https://example.org/{page}",) for page in range(10)))
    await send(house, "charge", ((order,) for order in range(4_000)), queue="archive")
    await send(house, "report", (() for _ in range(2_000)), delay=7200.0)
    rest = STORED - DONE - DEAD - 10 - 6_000
    for start in range(0, rest, 10_000):
        await send(house, "charge", ((order,) for order in range(start, min(start + 10_000, rest))), queue="archive")
    await send(house, "watch", ((f"channel {number}",) for number in range(6)))
    await engine.schedules.add("reminder", "mail", "everyone@example.org", cron="*/5 8-18 * * 1-5")
    items = [{"n": number} for number in range(6_000)]
    params = {"seconds": 2.0}
    await engine.map_reduce(items, map="slowly", reduce="Total", params=params, partition_size=50, workers=4)
    await settled(house, over)


async def trickle(house: House) -> None:
    """Bring some work each moment, until cancelled."""
    number = 0
    while True:
        number += 20
        await send(house, "charge", ((order,) for order in range(number, number + 12)))
        await send(house, "mail", ((f"{order}@example.org",) for order in range(number, number + 6)))
        await asyncio.sleep(0.1)


async def attack(house: House) -> None:
    """Put hostile texts wherever users can put texts."""
    engine = house.engine
    over = []
    for text in HOSTILE:
        queue = text.replace(":", ";")  # of a queue's name that is refused
        over += await send(house, text, [(text,)])
        await send(house, "charge", [(1,)], queue=queue)
        await send(house, text, [(text,)], queue=queue, delay=3600.0)
        await engine.schedules.add(text, text, text, cron="0 3 * * *")
        await engine.admin.pause(queue)
    await settled(house, over)


async def running(house: House) -> str:
    """Return the map/reduce job that goes on."""
    page = await house.engine.admin.jobs(Query(frozenset({State.RUNNING}), task=REDUCE_TASK))
    return page.jobs[0].id

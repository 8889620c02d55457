"""docket (pydocket): a stream of messages, a hash a task, results as a key a task; ``add_many`` is pipelined.

Results are switched off by an ``execution_ttl`` of 0. ``minimum_check_interval`` stays at the command line's
default of 100 ms: it bounds the sleep of a blocked read, not the time until a job starts. Its pool refuses
the 101st connection, which 100 jobs at once and a thousand gathered calls ask for, so the URL allows 2,000.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from datetime import timedelta

import uvloop
from docket import Docket, Worker

from bench.peers.peer import Marks, Run, main

run = Run()
marks = Marks(run)
WAIT = timedelta(seconds=60)


async def noop():
    if next(marks.calls) in marks.ends:
        marks.mark()
    if run.nap:
        await asyncio.sleep(run.nap)
    return 1


def opened():
    docket = Docket(
        name="bench", url=f"{run.url}?max_connections=2000", execution_ttl=timedelta(hours=1 if run.results else 0)
    )
    docket.register(noop, names=["noop"])
    return docket


class DocketClient:
    async def open(self):
        self.stack = AsyncExitStack()
        self.docket = await self.stack.enter_async_context(opened())

    async def single(self, jobs):
        for _ in range(jobs):
            self.job = await self.docket.add("noop")()

    async def bulk(self, jobs):
        self.job = (await self.docket.add_many(self.docket.call("noop")() for _ in range(jobs)))[-1]

    async def gathered(self, jobs):
        await asyncio.gather(*(self.docket.add("noop")() for _ in range(jobs)))

    async def once(self):
        return await (await self.docket.add("noop")()).get_result(timeout=WAIT)

    async def fanned(self, jobs):
        made = await self.docket.add_many(self.docket.call("noop")() for _ in range(jobs))
        # One after the other: each wait is a subscription with a connection of its own.
        return sum([await job.get_result(timeout=WAIT) for job in made])

    async def left(self):
        # One script writes the state and takes the message out of the stream; the result was stored before.
        async with self.docket.redis() as redis:
            return await redis.xlen(self.docket.stream_key)

    async def value(self):
        return await self.job.get_result(timeout=WAIT)

    async def close(self):
        await self.stack.aclose()


async def work():
    async with opened() as docket:
        interval = timedelta(milliseconds=100)
        async with Worker(docket, concurrency=run.concurrency, minimum_check_interval=interval) as worker_:
            await worker_.run_forever()


def worker():
    logging.basicConfig(level=logging.WARNING)
    uvloop.run(work())


if __name__ == "__main__":
    main(DocketClient, worker)

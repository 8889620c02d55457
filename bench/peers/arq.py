"""arq: a sorted set of ids, a key a job, an in-progress key a job (WATCH and MULTI).

``poll_delay``: arq looks for jobs once a delay, so its default of 0.5 s holds an idle-looking drain at
``5 * max_jobs`` jobs a half second; 5 ms lets it run freely.
"""

from __future__ import annotations

import asyncio

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.constants import default_queue_name
from arq.worker import func, run_worker

from bench.peers.peer import CHUNK, Marks, Run, main

run = Run()
marks = Marks(run)


async def noop(ctx):
    if next(marks.calls) in marks.ends:
        marks.mark()
    if run.nap:
        await asyncio.sleep(run.nap)
    return 1


class WorkerSettings:
    functions = [func(noop, name="noop", keep_result=3600 if run.results else 0)]  # noqa: RUF012 - arq's own form
    redis_settings = RedisSettings.from_dsn(run.url)
    max_jobs = run.concurrency
    poll_delay = 0.005


class Arq:
    async def open(self):
        self.pool = await create_pool(RedisSettings.from_dsn(run.url))

    async def single(self, jobs):
        for _ in range(jobs):
            self.job = await self.pool.enqueue_job("noop")

    async def bulk(self, jobs):
        for start in range(0, jobs, CHUNK):
            made = await asyncio.gather(*(self.pool.enqueue_job("noop") for _ in range(min(CHUNK, jobs - start))))
        self.job = made[-1]

    async def gathered(self, jobs):
        await asyncio.gather(*(self.pool.enqueue_job("noop") for _ in range(jobs)))

    async def once(self):
        # By default it looks for the result twice a second.
        return await (await self.pool.enqueue_job("noop")).result(timeout=60, poll_delay=0.001)

    async def fanned(self, jobs):
        made = []
        for start in range(0, jobs, CHUNK):
            made += await asyncio.gather(*(self.pool.enqueue_job("noop") for _ in range(min(CHUNK, jobs - start))))
        return sum([await job.result(timeout=60, poll_delay=0.005) for job in made])

    async def left(self):
        # finish_job writes the result and takes the id out of the queue in one MULTI.
        return await self.pool.zcard(default_queue_name)

    async def value(self):
        return await self.job.result(timeout=5)

    async def close(self):
        await self.pool.aclose()


def worker():
    asyncio.set_event_loop(uvloop.new_event_loop())
    run_worker(WorkerSettings)


if __name__ == "__main__":
    main(Arq, worker)

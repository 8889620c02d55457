"""SAQ: a list of ids, a key a job, a sorted set of what is incomplete.

Results are switched off by a ``ttl`` of -1, which deletes the job's key where it would have been kept.

A worker sweeps when it starts and then each minute, and takes a job for stuck that was dequeued and is not marked as
active yet: it ends as aborted, "swept" (tobymao/saq#277). Where each result counts, nothing is enqueued before a
worker's first sweep; a turn is over before the second. All of its timers are as by default.
"""

from __future__ import annotations

import asyncio

import uvloop
from saq import Queue
from saq.worker import start

from bench.peers.peer import CHUNK, Marks, Run, main

run = Run()
marks = Marks(run)
queue = Queue.from_url(run.url)


async def noop(ctx):
    if next(marks.calls) in marks.ends:
        marks.mark()
    if run.nap:
        await asyncio.sleep(run.nap)
    return 1


settings = {"queue": queue, "functions": [("noop", noop)], "concurrency": run.concurrency}


class Saq:
    async def open(self):
        await queue.connect()
        self.kept = {"ttl": 600 if run.results else -1}
        self.swept = False

    async def single(self, jobs):
        for _ in range(jobs):
            self.job = await queue.enqueue("noop", **self.kept)

    async def bulk(self, jobs):
        for start_at in range(0, jobs, CHUNK):
            chunk = range(min(CHUNK, jobs - start_at))
            made = await asyncio.gather(*(queue.enqueue("noop", **self.kept) for _ in chunk))
        self.job = made[-1]

    async def gathered(self, jobs):
        await asyncio.gather(*(queue.enqueue("noop", **self.kept) for _ in range(jobs)))

    async def once(self):
        while not self.swept:
            self.swept = await queue.redis.exists(queue.namespace("sweep"))
            await asyncio.sleep(0.005)
        return await self.result(await queue.enqueue("noop", **self.kept), 0.001)

    async def fanned(self, jobs):
        made = []
        for start_at in range(0, jobs, CHUNK):
            chunk = range(min(CHUNK, jobs - start_at))
            made += await asyncio.gather(*(queue.enqueue("noop", **self.kept) for _ in chunk))
        return sum([await self.result(job, 0.005) for job in made])

    async def result(self, job, pause_s):
        # Polled: its own `apply` in a loop stopped answering after some hundred calls.
        while not (found := await queue.job(job.key)).completed:  # noqa: ASYNC110 - the other process tells nobody
            await asyncio.sleep(pause_s)
        if found.status != "complete":
            raise ValueError(f"a job ended as {found.status}: {found.error}")
        return found.result

    async def left(self):
        # _finish writes the result and takes the id out of this set in one MULTI.
        return await queue.count("incomplete")

    async def value(self):
        return (await queue.job(self.job.key)).result

    async def close(self):
        await queue.disconnect()


def worker():
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    start("bench.peers.saq.settings")


if __name__ == "__main__":
    main(Saq, worker)

"""streaQ: a stream of ids, a key a task, one MULTI of a dozen commands to finish one; ``enqueue_many`` is pipelined."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from streaq import Worker

from bench.peers.peer import Marks, Run, main

run = Run()
marks = Marks(run)
worker_ = Worker(redis_url=run.url, concurrency=run.concurrency or 16, anyio_kwargs={"use_uvloop": True})
WAITS = 8
"""Results waited for at once: each takes 0.1 s at least, and a hundred at once never came back."""


@worker_.task(name="noop", ttl=300 if run.results else 0, silent=True)
async def noop():
    if next(marks.calls) in marks.ends:
        marks.mark()
    if run.nap:
        await asyncio.sleep(run.nap)
    return 1


class Streaq:
    async def open(self):
        self.stack = AsyncExitStack()
        await self.stack.enter_async_context(worker_)

    async def single(self, jobs):
        for _ in range(jobs):
            self.task = await noop.enqueue()

    async def bulk(self, jobs):
        for start in range(0, jobs, 1_000):
            tasks = [noop.enqueue() for _ in range(min(1_000, jobs - start))]
            await worker_.enqueue_many(tasks)
        self.task = tasks[-1]

    async def gathered(self, jobs):
        async def enqueued():
            return await noop.enqueue()

        await asyncio.gather(*(enqueued() for _ in range(jobs)))

    async def once(self):
        task = await noop.enqueue()
        return (await worker_.result_by_id(task.id, timeout=60)).result

    async def fanned(self, jobs):
        tasks = [noop.enqueue() for _ in range(jobs)]
        await worker_.enqueue_many(tasks)
        done = 0
        for start in range(0, jobs, WAITS):
            waits = [worker_.result_by_id(task.id, timeout=60) for task in tasks[start : start + WAITS]]
            done += sum(result.result for result in await asyncio.gather(*waits))
        return done

    async def left(self):
        # finish_task writes the result and takes the entry out of the stream in one MULTI.
        return await worker_.redis.xlen(worker_.stream_key + worker_.priorities[-1])

    async def value(self):
        return (await worker_.result_by_id(self.task.id, timeout=5)).result

    async def close(self):
        await self.stack.aclose()


def worker():
    worker_.run_sync()


if __name__ == "__main__":
    main(Streaq, worker)

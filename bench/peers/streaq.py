"""streaQ: a stream of ids, a key a task, one MULTI of a dozen commands to finish one; ``enqueue_many`` is pipelined."""

from __future__ import annotations

from contextlib import AsyncExitStack

from streaq import Worker

from bench.peers.peer import Marks, Run, main

run = Run()
marks = Marks(run)
worker_ = Worker(redis_url=run.url, concurrency=run.concurrency or 16, anyio_kwargs={"use_uvloop": True})


@worker_.task(name="noop", ttl=300 if run.results else 0, silent=True)
async def noop():
    if next(marks.calls) in marks.ends:
        marks.mark()
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

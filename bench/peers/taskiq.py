"""taskiq with taskiq-redis, as a stream (acknowledged after the result is saved) or as a list (no acknowledgement).

The list settles nothing, so without results its drain ends with the start of its last body. One worker
process, ``--max-prefetch 1000``; the stream reads 1,000 entries at once.
"""

from __future__ import annotations

import asyncio

from taskiq.cli.worker.args import WorkerArgs
from taskiq.cli.worker.run import run_worker
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from bench.peers.peer import CHUNK, Marks, Run, main

run = Run()
marks = Marks(run)
if run.variant == "list":
    broker = ListQueueBroker(run.url)
else:
    broker = RedisStreamBroker(run.url, consumer_id="0", xread_count=1_000)
if run.results:
    broker = broker.with_result_backend(RedisAsyncResultBackend(run.url, result_ex_time=3600))


@broker.task(task_name="noop")
async def noop():
    if next(marks.calls) in marks.ends:
        marks.mark()
    if run.nap:
        await asyncio.sleep(run.nap)
    return 1


class Taskiq:
    async def open(self):
        await broker.startup()
        from redis.asyncio import Redis  # noqa: PLC0415 - the same connections as the broker's

        self.redis = Redis(connection_pool=broker.connection_pool)

    async def single(self, jobs):
        for _ in range(jobs):
            self.task = await noop.kiq()

    async def bulk(self, jobs):
        await broker.startup()  # the driver flushed the consumer group away
        for start in range(0, jobs, CHUNK):
            made = await asyncio.gather(*(noop.kiq() for _ in range(min(CHUNK, jobs - start))))
        self.task = made[-1]

    async def gathered(self, jobs):
        await asyncio.gather(*(noop.kiq() for _ in range(jobs)))

    async def once(self):
        task = await noop.kiq()
        return (await task.wait_result(check_interval=0.001, timeout=60)).return_value

    async def fanned(self, jobs):
        made = []
        for start in range(0, jobs, CHUNK):
            made += await asyncio.gather(*(noop.kiq() for _ in range(min(CHUNK, jobs - start))))
        return sum([(await task.wait_result(check_interval=0.005, timeout=60)).return_value for task in made])

    async def left(self):
        if run.variant == "stream":
            # The result is saved before the acknowledgement.
            group = (await self.redis.xinfo_groups("taskiq"))[0]
            return run.jobs - (group["entries-read"] or 0) + group["pending"]
        if run.results:
            return run.jobs - await self.redis.dbsize()  # one key a result; the list is gone when it is empty
        await self.redis.ping()
        return len(run.marks.read_bytes().splitlines()) < 2 if run.marks.exists() else 1

    async def value(self):
        return (await self.task.get_result()).return_value

    async def close(self):
        await broker.shutdown()


def worker():
    run_worker(
        WorkerArgs(
            broker="bench.peers.taskiq:broker",
            modules=[],
            workers=1,
            max_async_tasks=run.concurrency,
            max_prefetch=1_000,
            configure_logging=False,
        )
    )


if __name__ == "__main__":
    main(Taskiq, worker)

"""asyncworker as a user starts it: ``Engine(url)``, ``@engine.task()``, ``asyncworker worker module:engine``, all defaults.

``metrics`` as the variant adds ``--metrics-port``, which measures each job's wait and duration; ``gather`` reduces a
fan-out in the client, as most peers must, and not in a worker by `map_reduce`.
"""

from __future__ import annotations

import asyncio

from asyncworker import Engine
from asyncworker.cli import main as run_cli
from asyncworker.job import gather
from bench.peers.peer import Marks, Run, main

run = Run()
marks = Marks(run)
engine = Engine(run.url)


@engine.task(name="noop", **({} if run.results else {"result_ttl": 0}))
async def noop():
    if next(marks.calls) in marks.ends:
        marks.mark()
    if run.nap:
        await asyncio.sleep(run.nap)
    return 1


@engine.mapper
async def one(item, params):
    return item


@engine.reducer
class Total:
    def initial(self, params):
        return 0

    def fold(self, acc, value):
        return acc + value

    def merge(self, left, right):
        return left + right

    def finish(self, acc, params):
        return acc


class Ours:
    async def open(self):
        await engine.__aenter__()

    async def single(self, jobs):
        if run.variant == "blocking":
            for _ in range(jobs):
                self.job = noop.enqueue_blocking()
            return
        for _ in range(jobs):
            self.job = await noop.enqueue()

    async def bulk(self, jobs):
        self.job = (await noop.enqueue_many([()] * jobs))[-1]

    async def gathered(self, jobs):
        await asyncio.gather(*(noop.enqueue() for _ in range(jobs)))

    async def once(self):
        return await (await noop.enqueue()).result(timeout=60)

    async def fanned(self, jobs):
        if run.variant == "gather":
            return sum(await gather(await noop.enqueue_many([()] * jobs), timeout=60))
        job = await engine.map_reduce([1] * jobs, map=one, reduce=Total, partition_size=1)
        return (await job.result(timeout=60))["final_result"]

    async def left(self):
        # One script settles a job and writes its result.
        depth = await engine.broker.depth(["default"])
        return depth.queues["default"].queued + depth.running

    async def value(self):
        return await self.job.result(timeout=5)

    async def close(self):
        await engine.close()


def worker():
    more = ["--concurrency", str(run.concurrency)] if run.concurrency else []
    more += ["--metrics-port", "0"] if run.variant == "metrics" else []
    raise SystemExit(run_cli(["worker", "bench.peers.ours:engine", *more]))


if __name__ == "__main__":
    main(Ours, worker)

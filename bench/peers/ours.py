"""asyncworker as a user starts it: ``Engine(url)``, ``@engine.task()``, ``asyncworker worker module:engine``, all defaults.

``metrics`` as the variant adds ``--metrics-port``, which measures each job's wait and duration.
"""

from __future__ import annotations

from asyncworker import Engine
from asyncworker.cli import main as run_cli
from bench.peers.peer import Marks, Run, main

run = Run()
marks = Marks(run)
engine = Engine(run.url)


@engine.task(name="noop", **({} if run.results else {"result_ttl": 0}))
async def noop():
    if next(marks.calls) in marks.ends:
        marks.mark()
    return 1


class Ours:
    async def open(self):
        await engine.__aenter__()

    async def single(self, jobs):
        for _ in range(jobs):
            self.job = await noop.enqueue()

    async def bulk(self, jobs):
        self.job = (await noop.enqueue_many([()] * jobs))[-1]

    async def left(self):
        # One script settles a job and writes its result.
        depth = await engine.broker.depth(["default"])
        return depth.queues["default"].queued + depth.running

    async def value(self):
        return await self.job.result(timeout=5)

    async def close(self):
        await engine.close()


def worker():
    more = ["--metrics-port", "0"] if run.variant == "metrics" else []
    raise SystemExit(run_cli(["worker", "bench.peers.ours:engine", *more]))


if __name__ == "__main__":
    main(Ours, worker)

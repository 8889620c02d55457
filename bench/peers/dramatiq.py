"""dramatiq: a list of ids and a hash of messages, each verb a Lua script; threads.

It has no bulk call: a `group` enqueues one by one as well, so the bulk way is the plain loop. By default it
prefetches two messages a thread and then naps, which holds 8 threads at 2,000 jobs/s with the processor idle;
a prefetch of 100 lets them run at 5,000/s and more.
"""

from __future__ import annotations

import os
import time

os.environ.setdefault("dramatiq_queue_prefetch", "100")  # read when dramatiq is imported

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.cli import main as run_cli
from dramatiq.cli import make_argument_parser
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench.peers.peer import Marks, Run, main

run = Run()
marks = Marks(run)
broker = RedisBroker(url=run.url)
if run.results:
    broker.add_middleware(Results(backend=RedisBackend(url=run.url), store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="noop")
def noop():
    if next(marks.calls) in marks.ends:
        marks.mark()
    if run.nap:
        time.sleep(run.nap)
    return 1 if run.results else None


class Dramatiq:
    async def open(self):
        broker.client.ping()

    async def single(self, jobs):
        for _ in range(jobs):
            self.message = noop.send()

    async def bulk(self, jobs):
        await self.single(jobs)

    async def gathered(self, jobs):
        await self.single(jobs)

    async def once(self):
        return noop.send().get_result(block=True, timeout=60_000)

    async def fanned(self, jobs):
        made = dramatiq.group(noop.message() for _ in range(jobs)).run()
        return sum(made.get_results(block=True, timeout=60_000))

    async def left(self):
        # The result is stored before the message is acknowledged, which takes it out of this hash.
        return broker.client.hlen("dramatiq:default.msgs")

    async def value(self):
        return self.message.get_result()

    async def close(self):
        broker.client.close()


def worker():
    run_cli(make_argument_parser().parse_args(["bench.peers.dramatiq", "-p", "1", "-t", str(run.concurrency)]))


if __name__ == "__main__":
    main(Dramatiq, worker)

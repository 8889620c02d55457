"""Celery over Redis: a list of messages, a hash of what is not acknowledged, a key a result, published too.

Acknowledged late: Celery's default forgets a job before its body runs, which no other contender here does (but
taskiq's list), and leaves nothing in Redis that tells when the last one ended. A batch of kombu 5.7 is its bulk
way. ``threads`` as the variant is its pool of threads, for bodies that wait.
"""

from __future__ import annotations

import time

from celery import Celery, chord

from bench.peers.peer import Marks, Run, main

run = Run()
marks = Marks(run)
app = Celery("bench", broker=run.url, backend=run.url)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=not run.results,
    worker_prefetch_multiplier=64 if run.variant != "threads" else 4,
    worker_hijack_root_logger=False,
    result_expires=3600,
)


@app.task(name="noop")
def noop():
    if next(marks.calls) in marks.ends:
        marks.mark()
    if run.nap:
        time.sleep(run.nap)
    return 1


@app.task(name="total", ignore_result=False)
def total(values):
    return sum(values)


class CeleryClient:
    async def open(self):
        self.redis = app.connection_for_write().default_channel.client

    async def single(self, jobs):
        for _ in range(jobs):
            self.job = noop.delay()

    async def bulk(self, jobs):
        with app.producer_pool.acquire(block=True) as producer, producer.batch():
            for _ in range(jobs):
                self.job = noop.apply_async(producer=producer)

    async def gathered(self, jobs):
        await self.single(jobs)

    async def once(self):
        return noop.delay().get(timeout=60)

    async def fanned(self, jobs):
        return chord(noop.s() for _ in range(jobs))(total.s()).get(timeout=120)

    async def left(self):
        # Acknowledging is the last thing, after the result.
        return self.redis.llen("celery") + self.redis.hlen("unacked")

    async def value(self):
        return self.job.get(timeout=10)

    async def close(self):
        app.close()


def worker():
    pool = "threads" if run.variant == "threads" else "prefork"
    options = ["--pool", pool, "--concurrency", str(run.concurrency), "--loglevel", "WARNING"]
    app.worker_main(["worker", *options, "--without-gossip", "--without-mingle"])


if __name__ == "__main__":
    main(CeleryClient, worker)

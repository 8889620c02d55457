"""RQ with its SimpleWorker: a list of ids, a hash a job, a registry of what runs; one job at a time, no fork.

Tasks are named by their path, since RQ imports them so. ``enqueue_many`` is its bulk way, here a thousand a call.
A job may depend on others, so the reduce of a fan-out is a job that reads what the others returned.
"""

from __future__ import annotations

import logging
import time

from redis import Redis
from rq import Queue, SimpleWorker, get_current_job
from rq.job import Job

from bench.peers.peer import Marks, Run, main

run = Run()
marks = Marks(run)
redis = Redis.from_url(run.url)
queue = Queue(connection=redis)
NOOP, TOTAL = "bench.peers.rq.noop", "bench.peers.rq.total"
KEPT_S = 3600 if run.results else 0


def noop():
    if next(marks.calls) in marks.ends:
        marks.mark()
    if run.nap:
        time.sleep(run.nap)
    return 1


def total(ids):
    jobs = Job.fetch_many(ids, connection=get_current_job().connection)
    return sum(job.return_value() for job in jobs)


def many(jobs):
    made = []
    for start in range(0, jobs, 1_000):
        calls = [Queue.prepare_data(NOOP, result_ttl=KEPT_S) for _ in range(min(1_000, jobs - start))]
        made += queue.enqueue_many(calls)
    return made


def result(job):
    if (found := job.latest_result(timeout=60)) is None:
        raise TimeoutError(job.id)
    return found.return_value


class Rq:
    async def open(self):
        redis.ping()
        self.running = queue.started_job_registry.key

    async def single(self, jobs):
        for _ in range(jobs):
            self.job = queue.enqueue(NOOP, result_ttl=KEPT_S)

    async def bulk(self, jobs):
        self.job = many(jobs)[-1]

    async def gathered(self, jobs):
        await self.single(jobs)

    async def once(self):
        return result(queue.enqueue(NOOP, result_ttl=KEPT_S))

    async def fanned(self, jobs):
        made = many(jobs)
        return result(queue.enqueue(TOTAL, [job.id for job in made], depends_on=made, result_ttl=3600))

    async def left(self):
        # One MULTI writes the result and takes the job out of the registry of what runs.
        return redis.llen(queue.key) + redis.llen(queue.intermediate_queue_key) + redis.zcard(self.running)

    async def value(self):
        return result(self.job)

    async def close(self):
        redis.close()


def worker():
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    SimpleWorker([queue], connection=redis).work(logging_level="WARNING")


if __name__ == "__main__":
    main(Rq, worker)

"""How many bodies that wait 10 ms does one worker get through, of the 10,000 a second that 100 at once could be?

Null hypothesis: one asyncworker worker process, 100 jobs at once, drains no more of them a second than the best peer's.

    python -m bench.bench_sleepers                            # 3 rounds, everybody; about five minutes
    python -m bench.bench_sleepers --only asyncworker,bound,dramatiq --rounds 1
    python -m bench.bench_sleepers --small                    # a few seconds, nothing is installed

A turn enqueues in bulk, then starts one worker; timed as in `bench_queue`, results off, from the start of the first
body to the moment when the last job is settled (taskiq's list: the start of its last body). The ideal is
concurrency / 10 ms: what is missing was spent between two bodies of one slot, or on a processor that was full. A
peer that can hold 100 at once does (dramatiq and celery-threads in 100 threads). Celery's prefork holds 2 and RQ's
SimpleWorker 1, so they could never pass 200 and 100 a second; both are here as people run them. uvloop's timers
count whole milliseconds, so 10 ms are up to 11, and no asynchronous contender reaches the ideal.

``bound`` is our broker under a bare loop, a task for each body.
"""

from __future__ import annotations

import sys

from bench.interleaved import Question, Row, Setting, main
from bench.peers.roster import Peer
from bench.turn import staged

NAP_S = 0.01
AT_ONCE = 100
FEW = {"celery": 2, "rq": 1}
"""Who cannot hold `AT_ONCE`."""


async def turn(of: Setting) -> dict[str, float]:
    held = FEW.get(of.name, AT_ONCE)
    # So that nobody takes longer than the others' cap: those who hold few get few.
    jobs = min(of.jobs, 400) if of.name in FEW else of.jobs
    async with staged(of.name, of.peer, of.server, results=False, jobs=jobs, concurrency=held, nap=NAP_S) as stage:
        await stage.client.ask(do="bulk", jobs=jobs)
        drained = await stage.drained()
    rate = jobs / drained.seconds
    return {
        "rate": rate,
        "share": 100 * rate * NAP_S / AT_ONCE,
        "worker_us": 1e6 * drained.worker_s / jobs,
        "commands": drained.commands / jobs,
        "memory_mb": drained.memory_mb,
    }


def tell(name: str, peer: Peer) -> str:
    return f"{FEW.get(name, AT_ONCE)} at once" + (", 400 jobs at most" if name in FEW else "")


QUESTION = Question(
    "sleepers",
    __doc__,
    turn,
    (
        Row("rate", "jobs/s"),
        Row("share", "% of ideal", "", ".1f"),
        Row("worker_us", "worker us", ""),
        Row("commands", "commands", "", ".1f"),
        Row("memory_mb", "MB", ""),
    ),
    jobs=5_000,
    small=500,
    tell=tell,
)

if __name__ == "__main__":
    sys.exit(main(QUESTION))

"""How long do 1,000 jobs take that are fanned out, run by one worker and reduced to one value?

Null hypothesis: asyncworker's wall time is no lower than the best peer's.

    python -m bench.bench_fanout                              # 3 rounds, everybody; about five minutes
    python -m bench.bench_fanout --only asyncworker,asyncworker+gather,bound,celery --rounds 1
    python -m bench.bench_fanout --small                      # a few seconds, nothing is installed

The worker is up and warm. The clock runs from the call that fans out to the sum in the client's hands, which must be
right. Where the reduce is a job of its own in a worker, the row says so: asyncworker's `map_reduce` with partitions of
one item, Celery's chord, RQ's job that depends on the others. It survives the client. The rest have no such thing and
gather in the client, which is less: ``asyncworker+gather`` and ``bound`` (our broker under a bare loop) do the same, so
compare like with like. dramatiq's group can call back when all are done, but hands over no results.
"""

from __future__ import annotations

import sys

from bench.interleaved import Question, Row, Setting, main
from bench.peers.roster import Peer
from bench.turn import staged


async def turn(of: Setting) -> dict[str, float]:
    peer = of.peer
    async with (
        staged(of.name, peer, of.server, results=True, jobs=0, concurrency=peer.concurrency) as stage,
        stage.worker() as worker,
    ):
        await stage.ask(worker, do="once", jobs=1)  # the worker is up
        await stage.ask(worker, do="fanned", jobs=max(2, of.jobs // 50))
        calls = of.server.commands
        done = await stage.ask(worker, do="fanned", jobs=of.jobs)
        commands = of.server.commands - calls - 1
    if done["value"] != of.jobs:
        raise ValueError(f"the sum is {done['value']!r}, not {of.jobs}")
    return {"seconds": done["seconds"], "rate": of.jobs / done["seconds"], "commands": commands / of.jobs}


def tell(name: str, peer: Peer) -> str:
    return f"reduced in {'a worker' if peer.reduces == 'worker' else 'the client'}"


QUESTION = Question(
    "fanout",
    __doc__,
    turn,
    (Row("seconds", "wall s", "less", ".3f"), Row("rate", "jobs/s", ""), Row("commands", "commands", "", ".1f")),
    jobs=1_000,
    small=20,
    tell=tell,
)

if __name__ == "__main__":
    sys.exit(main(QUESTION))

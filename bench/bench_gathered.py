"""How fast do 1,000 gathered `enqueue` calls go in?

Null hypothesis: ``asyncio.gather`` over 1,000 single `enqueue` calls is no faster with asyncworker than with the best peer.

    python -m bench.bench_gathered                            # 3 rounds, everybody; about two minutes
    python -m bench.bench_gathered --only asyncworker,saq --rounds 1
    python -m bench.bench_gathered --small                    # a second or two, nothing is installed

This is what an application does that knows no bulk call: many coroutines, each enqueues one job. No worker runs. One
turn gathers a tenth once (connections are made, code is warm), then the whole number five times on an emptied server;
its figure is the median. dramatiq, Celery and RQ block in their call, so nothing can be gathered: they enqueue one by
one. There is no bound beside us: our client is the same whatever worker runs. Results are off.
"""

from __future__ import annotations

import statistics
import sys

from bench.interleaved import Question, Row, Setting, main
from bench.peers.roster import Peer
from bench.turn import staged

TIMES = 5
BLOCKING = {"celery", "dramatiq", "rq"}


async def turn(of: Setting) -> dict[str, float]:
    rates, cpu_us = [], []
    peer = of.peer
    async with staged(of.name, peer, of.server, results=False, jobs=0, concurrency=peer.concurrency) as stage:
        await stage.client.ask(do="gathered", jobs=max(1, of.jobs // 10))
        calls = of.server.commands
        for _ in range(TIMES):
            took = await stage.client.ask(do="gathered", jobs=of.jobs)
            rates.append(of.jobs / took["seconds"])
            cpu_us.append(1e6 * took["cpu_s"] / of.jobs)
        commands = (of.server.commands - calls - 1) / (TIMES * of.jobs)
        if not of.server.redis.dbsize():
            raise ValueError("nothing was enqueued")
    return {"rate": statistics.median(rates), "client_us": statistics.median(cpu_us), "commands": commands}


def tell(name: str, peer: Peer) -> str:
    return "one by one: its call blocks" if name in BLOCKING else "gathered"


QUESTION = Question(
    "gathered",
    __doc__,
    turn,
    (Row("rate", "jobs/s"), Row("client_us", "client us", ""), Row("commands", "commands", "", ".1f")),
    jobs=1_000,
    small=100,
    tell=tell,
    bound=False,
)

if __name__ == "__main__":
    sys.exit(main(QUESTION))

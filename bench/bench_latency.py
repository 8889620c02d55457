"""How long does one job take, from its enqueue to its result in the caller's hands, when the worker is idle?

Null hypothesis: asyncworker's median is no lower than the best peer's, at no fewer commands a second while idle.

    python -m bench.bench_latency                             # 3 rounds of 500, everybody; about ten minutes
    python -m bench.bench_latency --only asyncworker,bound,saq --rounds 1 --jobs 100
    python -m bench.bench_latency --small                     # a few seconds, nothing is installed

One worker, one client, one job at a time: enqueue, wait for the result in the quickest way that the peer offers,
pause for 5 to 15 ms (by chance, so that no poll keeps step with ours and the worker sleeps again), 500 times after a
few that do not count. Peers whose result must be polled are polled each millisecond (arq, SAQ, taskiq), which is the
best case for them; arq's worker looks for jobs each 5 ms instead of each 500, which its idle commands show. Then
nobody asks for anything; when all that the work has left to be written down is written, the commands that Redis runs meanwhile are counted: those of worker and client, in
scripts too, and beside them its reads from their connections, which are about the round trips: a script that runs
forty commands is cheaper than forty calls.

``bound`` is our client and broker with a bare loop for a worker.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from bench.interleaved import Question, Row, Setting, main
from bench.peers.roster import Peer, at_once
from bench.turn import staged

WARM_UP = 20
SETTLED_S = 12.0
QUIET_S = 20.0
"""A few periods of the slowest heartbeat that matters."""
SMALL = 20


async def turn(of: Setting) -> dict[str, float]:
    small = of.jobs <= SMALL
    peer = of.peer
    async with (
        staged(of.name, peer, of.server, results=True, jobs=0, concurrency=peer.concurrency) as stage,
        stage.worker() as worker,
    ):
        await stage.ask(worker, do="once", jobs=2 if small else WARM_UP)
        took = (await stage.ask(worker, do="once", jobs=of.jobs))["seconds"]
        await asyncio.sleep(0 if small else SETTLED_S)
        began, calls, reads = time.monotonic(), of.server.commands, of.server.reads
        await asyncio.sleep(QUIET_S / 6 if small else QUIET_S)
        quiet_s = time.monotonic() - began
        # Asking for a count is one, too: two of commands came between, and the reads' own.
        reads, calls = of.server.reads - reads - 1, of.server.commands - calls - 3
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    return {"p50_ms": 1e3 * cuts[49], "p99_ms": 1e3 * cuts[98], "idle": calls / quiet_s, "trips": reads / quiet_s}


def tell(name: str, peer: Peer) -> str:
    return f"concurrency {at_once(peer.concurrency)}"


QUESTION = Question(
    "latency",
    __doc__,
    turn,
    (
        Row("p50_ms", "p50 ms", "less", ".2f"),
        Row("p99_ms", "p99 ms", "less", ".2f"),
        Row("idle", "idle commands/s", "", ".1f"),
        Row("trips", "idle reads/s", "", ".1f"),
    ),
    jobs=500,
    small=SMALL,
    tell=tell,
)

if __name__ == "__main__":
    sys.exit(main(QUESTION))

"""What our broker alone carries: the same scripts and bytes, a bare loop where the worker is.

Not a peer and no product: no timeouts, retries, deadlines, events or drain, each body called in the loop itself,
one step under way while what the step before brought is worked off. What asyncworker's own rows lack of it is
what worker and runner cost.
"""

from __future__ import annotations

import asyncio
import os
import time

import uvloop

from asyncworker import Engine
from asyncworker.queue.codec import pack, unpack_call
from asyncworker.queue.job import Claimed, Op, Record, Settled, WorkerCard
from bench.peers.ours import Ours, marks, run
from bench.peers.peer import main

BATCH = 100
TTL_S = 3600 if run.results else 0


async def drain() -> None:
    async with Engine(run.url) as engine:
        broker, work = engine.broker, asyncio.Event()
        card = WorkerCard("bound", os.getpid(), ("default",), BATCH, 60.0, time.time())
        epoch = await broker.join(card, lambda _: work.set())
        settled: list[Settled] = []
        claimed = Claimed(0, -1, [])
        while True:
            work.clear()
            room = {"default": BATCH}
            step = asyncio.create_task(broker.step(epoch, settled, room, BATCH, idle=not claimed.deliveries))
            await asyncio.sleep(0)  # it is sent now, and answered while these are worked off
            settled = []
            for delivery in claimed.deliveries:
                unpack_call(delivery.payload)
                if next(marks.calls) in marks.ends:
                    marks.mark()
                record = pack(Record(task="noop", attempt=1, value=1)) if run.results else b""
                settled.append(Settled(delivery.id, Op.SUCCEEDED, "default", TTL_S, record, plain=delivery.plain))
            claimed = await step
            if not claimed.deliveries and not settled:
                await work.wait()


def worker() -> None:
    uvloop.run(drain())


if __name__ == "__main__":
    main(Ours, worker)

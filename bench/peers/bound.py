"""What our broker alone carries: the same scripts and bytes, a bare loop where the worker is.

Not a peer and no product: no timeouts, retries, deadlines, events or drain, each body called in the loop itself,
one step under way while what the step before brought is worked off. Bodies that sleep are tasks of their own, and
each step settles what has ended. What asyncworker's own rows lack of it is
what worker and runner cost.
"""

from __future__ import annotations

import asyncio
import os
import time

import uvloop

from asyncworker import Engine
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import pack, unpack_call
from asyncworker.queue.job import Claimed, Delivery, Op, Record, Settled, WorkerCard
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
        if run.nap:
            await doze(broker, epoch, work)
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


async def doze(broker: Broker, epoch: int, work: asyncio.Event) -> None:
    """Work for ever on bodies that sleep, `BATCH` at once."""
    ended: list[Settled] = []
    busy: dict[str, asyncio.Task[None]] = {}

    async def body(delivery: Delivery) -> None:
        unpack_call(delivery.payload)
        if next(marks.calls) in marks.ends:
            marks.mark()
        await asyncio.sleep(run.nap)
        record = pack(Record(task="noop", attempt=1, value=1)) if run.results else b""
        ended.append(Settled(delivery.id, Op.SUCCEEDED, "default", TTL_S, record, plain=delivery.plain))
        del busy[delivery.id]
        work.set()

    while True:
        work.clear()
        settled, ended[:] = ended[:], []
        room = BATCH - len(busy)
        claimed = await broker.step(epoch, settled, {"default": room}, room, idle=not busy)
        for delivery in claimed.deliveries:
            busy[delivery.id] = asyncio.create_task(body(delivery))
        if not claimed.deliveries and not ended:
            await work.wait()


def worker() -> None:
    uvloop.run(drain())


if __name__ == "__main__":
    main(Ours, worker)

"""Drain: wait until queues have nothing left that could run now."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence

import msgspec

from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.job import Depth, WorkerCard

SOON_S, LATE_S = 0.001, 0.05
"""How often is looked: at first, and in the end."""


class Drained(msgspec.Struct, frozen=True):
    """How many jobs of the queues ended meanwhile, and how many attempts are to be repeated."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    retried: int = 0


async def drained(broker: Broker, queues: Sequence[str]) -> Drained:
    """Return when nothing waits or is due in these queues, and nothing runs; others must do the work.

    Cost: two round trips a look, of which there are a thousand a second at first and twenty in the end.
    """
    before = await broker.depth(queues)
    card = WorkerCard(
        host=socket.gethostname(),
        pid=os.getpid(),
        queues=(),
        concurrency=0,
        lease_s=60.0,
        started_s=time.time(),
        role="drain",
    )
    epoch = await broker.join(card, lambda _: None)
    pause = SOON_S
    try:
        while True:
            # Claims nothing, for it takes 0 from each queue; but what is due moves, and the next date is told.
            looked = await broker.step(epoch, [], dict.fromkeys(queues, 0), 1)
            depth = await broker.depth(queues)
            due = 0 <= looked.next_due_ms <= looked.now_ms
            if (
                not due
                and not depth.running
                and not any(queue.queued + queue.blocked for queue in depth.queues.values())
            ):
                return _between(before, depth)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LATE_S)
    finally:
        await broker.reap(epoch, "", crashed=False)


def _between(before: Depth, after: Depth) -> Drained:
    def grown(name: str) -> int:
        return sum(getattr(now, name) - getattr(before.queues[queue], name) for queue, now in after.queues.items())

    return Drained(**{name: grown(name) for name in Drained.__struct_fields__})

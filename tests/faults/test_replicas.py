"""Redis on several servers: who owns the keys changes while work goes on."""

from __future__ import annotations

import asyncio
import time

from redis.crc import key_slot

from tests.faults.crew import crew
from tests.faults.ledger import Fault
from tests.faults.replicas import clustered, replicated

SLOT = key_slot(b"{asyncworker:0}:b")


async def test_a_slot_moves_to_another_node_of_the_cluster(seed: int) -> None:
    with clustered() as redis:
        async with crew(redis.url, patience=20.0) as running:
            for _ in range(2):
                running.start(lease_s=20.0)
            await running.joined(2)
            await running.put("work", *[(0.01,)] * 300)
            moving = asyncio.create_task(asyncio.to_thread(redis.move, SLOT))
            while not moving.done():
                await running.put("work", *[(0.01,)] * 10)
            await moving
            await running.put("work", *[(0.01,)] * 300)
            verdict = await running.judged("cluster", seed)
    verdict.check()
    assert verdict.duplicate == 0


async def test_f11_what_a_replica_has_outlives_the_master(seed: int) -> None:
    with replicated() as redis:
        async with crew(redis.url, patience=20.0) as running:
            for _ in range(2):
                running.start(lease_s=20.0)
            await running.joined(2)
            failing = None
            for number in range(60):
                if number == 20:
                    failing = asyncio.create_task(asyncio.to_thread(redis.fail_over))
                await running.put("work", *[(0.01,)] * 10, durable="replica" if number < 20 else "memory")
            assert failing is not None
            await failing
            promoted = redis.nodes[1].client
            left = frozenset(id.decode() for id in promoted.hkeys("{asyncworker:0}:e"))
            running.faults.append(Fault(time.monotonic(), left))
            verdict = await running.judged("F11", seed)
    verdict.check()

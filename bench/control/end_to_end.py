"""Tasks on a virtual event loop through the public gate, for as long as there is time."""

from __future__ import annotations

import asyncio

from asyncworker.tune.adaptive import AdaptiveLimiter
from asyncworker.tune.policies.usl import UslPolicy
from bench.control.simulation import HIGH, Capacity, Works
from bench.control.virtual_loop import Backend


async def mapped(capacity: Capacity, works: Works, seconds: float) -> int:
    """Return how many calls end in so many virtual seconds, of as many as `AdaptiveLimiter` lets begin."""
    backend = Backend(capacity, works)
    limiter = AdaptiveLimiter(UslPolicy(high=HIGH))

    async def crew() -> None:
        while True:
            async with limiter:
                await backend.call()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(crew()) for _ in range(HIGH)]
        await asyncio.sleep(seconds)
        completed = backend.completed
        for task in tasks:
            task.cancel()
    return completed

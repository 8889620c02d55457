"""The public map on a virtual event loop, for as long as there is time."""

from __future__ import annotations

import itertools

from asyncworker.optimizer import AsyncWorkerOptimizer
from bench.control.simulation import Capacity, Works
from bench.control.virtual_loop import Backend


async def mapped(capacity: Capacity, works: Works, seconds: float) -> int:
    """Return how many calls end in so many virtual seconds, of a map over items without end."""
    backend = Backend(capacity, works)

    async def call(_: int) -> None:
        await backend.call()

    results = AsyncWorkerOptimizer().map(call, itertools.count())
    async for _ in results:
        if backend.now() >= seconds:
            break
    completed = backend.completed
    await results.aclose()
    return completed

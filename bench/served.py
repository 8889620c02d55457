"""The engine of `bench_api`: one task that does nothing, with a result that is kept."""

from __future__ import annotations

from asyncworker import Engine

engine = Engine(queues=["default"], concurrency=100)


@engine.task(name="noop")
async def noop(number: int) -> int:
    return number

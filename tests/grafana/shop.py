"""A service in which all goes on that a dashboard can show: it works, waits, fails, leaks, is late and dies."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from asyncworker import ConnectionPoolOptimizer, Context, Engine, Limit, Retry


def made(url: str = "memory://", namespace: str = "asyncworker") -> Engine:
    """Return the engine: of the workers, and of who gives them work."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[ConnectionPoolOptimizer]:
        async with ConnectionPoolOptimizer(
            os.environ["SHOP_POSTGRES"], name="shop", min_size=1, max_size=4, leak_after=0.5
        ) as pool:
            yield engine.watch(pool)

    queues = ("mail", "bulk", "scheduled", "cpu_intensive")
    engine = Engine(url, namespace=namespace, lifespan=lifespan, queues=queues)

    @engine.task(queue="mail")
    async def send(number: int) -> int:
        await asyncio.sleep(0.002)
        return number

    @engine.task(queue="mail", max_attempts=1)
    async def bounce() -> None:
        raise ValueError("no such address")

    @engine.task(queue="mail", retry_backoff=0.05)
    async def flaky(ctx: Context) -> None:
        if ctx.attempt < 2:
            raise Retry(delay=0.05)

    @engine.task(queue="bulk")
    async def hold() -> None:
        time.sleep(0.15)  # noqa: ASYNC251 - holds the loop on purpose

    @engine.task(queue="bulk", limit=Limit(1))
    async def alone() -> None:
        await asyncio.sleep(0.2)

    @engine.task(queue="bulk")
    async def ask(ctx: Context) -> None:
        async with ctx.resources.acquire() as connection:
            await connection.fetch("SELECT pg_sleep(0.05)")

    @engine.task(queue="bulk")
    async def forget(ctx: Context) -> None:
        await ctx.resources.acquire()

    @engine.batch(max_size=20, queue="bulk")
    async def store(rows: list[int]) -> None:
        await asyncio.sleep(0.005)

    @engine.task(queue="mail", max_deliveries=2)
    async def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @engine.cron("0 3 * * *")
    async def nightly() -> None: ...

    @engine.mapper
    async def slowly(item: int, params: dict[str, float]) -> int:
        await asyncio.sleep(params["seconds"])
        return item

    @engine.mapper
    async def never(item: int, params: dict[str, float]) -> int:
        raise SystemError(item)

    return engine

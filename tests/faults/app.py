"""What the workers of the scenarios run; each run leaves a line in the process's ledger.

The folder of the ledgers is the variable ``FAULTS_LEDGER``.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import asyncpg

from asyncworker import Context, Engine, Limit
from tests.faults.ledger import Ledger
from tests.faults.total import HOLD, Sum, one

FOLDER = Path(os.environ["FAULTS_LEDGER"])

engine = Engine(queues=["default", "cpu_intensive"])
ledger = Ledger(FOLDER)
ledger.follow(engine.bus)


@engine.task(max_attempts=1, timeout=None)
async def work(seconds: float, ctx: Context) -> int:
    await asyncio.sleep(seconds)
    ledger.ran(ctx)
    return ctx.deliveries


@engine.task(max_attempts=1, timeout=None)
async def blocks_at_first(seconds: float, ctx: Context) -> int:
    """Keep the event loop from turning, but for those to whom the job comes after its first owner was given up."""
    if not ctx.deliveries:
        ledger.mark("blocking")
        time.sleep(seconds)  # noqa: ASYNC251 - the fault itself
    ledger.ran(ctx)
    return ctx.deliveries


@engine.task(max_attempts=1, timeout=None, limit=Limit(1, name="lock"))
async def locked(ctx: Context) -> list[int]:
    """Hold the lock for ever, but for those to whom the job comes after its first owner was given up."""
    ledger.mark("locked")
    if ctx.id in (FOLDER / HOLD).read_text("utf-8") and not ctx.deliveries:
        await asyncio.Event().wait()
    ledger.mark("unlocked")
    ledger.ran(ctx)
    return [ctx.deliveries, ctx.attempt]


@engine.task(max_attempts=1, timeout=None)
async def pays(dsn: str, seconds: float, ctx: Context) -> bool:
    """Write a row that is to be there once, and take a while before, within and after."""
    connection = await asyncpg.connect(dsn)
    try:
        await asyncio.sleep(seconds)
        async with ctx.effect(connection) as first:
            if first:
                await connection.execute("INSERT INTO paid VALUES ($1)", ctx.id)
            await asyncio.sleep(seconds)
        await asyncio.sleep(seconds)
    finally:
        await connection.close()
    ledger.ran(ctx)
    return bool(first)


@engine.task(result_ttl=60)
async def echoes(text: str, ctx: Context) -> str:
    ledger.ran(ctx)
    return text


@engine.task()
async def swallows() -> None:
    """Never end, however often it is told to."""
    ledger.mark("started")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ledger.mark("swallowed")


@engine.task()
async def catches_all() -> None:
    ledger.mark("started")
    while True:
        try:
            await asyncio.Event().wait()
        except BaseException:
            continue


@engine.task()
async def cleans_up_for_ever() -> None:
    async def source() -> Any:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    ledger.mark("started")
    async for _ in source():
        pass


@engine.task()
def hangs_in_a_thread() -> None:
    ledger.mark("started")
    threading.Event().wait()


engine.mapper(one)


@engine.reducer
class Total(Sum):
    """While the file `HOLD` is there, tell who reduces, and wait to be killed."""

    def finish(self, acc: int, params: Any) -> int:
        ledger.mark("reducing")
        while (FOLDER / HOLD).exists():
            time.sleep(0.01)
        ledger.mark("reduced")
        return super().finish(acc, params)

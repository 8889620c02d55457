"""Signed jobs from end to end: what somebody without the key puts into Redis is not run."""

from __future__ import annotations

import asyncio

import pytest

from asyncworker import Engine
from asyncworker.errors import TaskFailed
from asyncworker.queue.job import Reason

KEY, OLD = "k" * 32, "o" * 32


async def test_what_is_not_signed_is_not_run(redis_url: str, namespace: str):
    def engine(*keys: str) -> Engine:
        made = Engine(redis_url, namespace=namespace, signing_keys=keys)

        @made.task()
        async def double(number: int) -> int:
            ran.append(number)
            return 2 * number

        return made

    ran: list[int] = []
    async with engine(KEY, OLD) as ours, engine(OLD) as lagging, engine() as forger:
        run = asyncio.create_task(ours.run())
        good, late, forged = [await one.enqueue("double", 1 + n) for n, one in enumerate((ours, lagging, forger))]
        assert await good.result(timeout=20) == 2
        assert await late.result(timeout=20) == 4
        with pytest.raises(TaskFailed):
            await forged.result(timeout=20)
        assert (await forged.status()).reason == Reason.BAD_PAYLOAD
        assert ran == [1, 2]
        assert await ours.admin.dead() == [forged.id]
        job = await ours.map_reduce([{"text": "a b"}, {"text": "b"}], "word_count", params={"field": "text"})
        assert (await job.result(timeout=20))["total_successful"] == 2, "partitions are signed, too"
        ours.stop()
        await run

"""What is asked of a job between its claim and its first step is not lost."""

from __future__ import annotations

import asyncio

from asyncworker.queue.codec import Ids, pack_call
from asyncworker.queue.job import Delivery, Op
from asyncworker.queue.task import Tasks, options_of
from asyncworker.queue.worker.runner import Runner


def runner_with_a_job() -> tuple[Runner, Delivery]:
    async def work() -> None:
        await asyncio.Event().wait()

    tasks = Tasks()
    tasks.add("work", work, options_of({}))
    return Runner(tasks, asyncio.Event()), Delivery(Ids()(), "default", pack_call("work", (), {}))


async def test_a_job_cancelled_before_its_first_step_is_settled() -> None:
    runner, delivery = runner_with_a_job()
    runner.start([delivery])
    runner.cancel(delivery.id)
    async with asyncio.timeout(20):
        while runner.live:
            await asyncio.sleep(0)
    assert [settled.op for settled in runner.take(10)] == [Op.CANCELLED]


async def test_a_job_released_before_its_first_step_is_handed_back_at_once() -> None:
    runner, delivery = runner_with_a_job()
    runner.start([delivery])
    async with asyncio.timeout(1):
        assert await runner.release(patience_s=60) == 1
    assert [settled.op for settled in runner.take(10)] == [Op.RELEASE]
    assert runner.live == {}

"""What happens to jobs that run in batches: some fail, and only those are tried again."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from asyncworker import Engine
from asyncworker.errors import BadParameters, TaskFailed

BAD = {13, 57, 99}


@pytest.mark.parametrize("raises", [False, True], ids=["answers", "raises"])
async def test_f21_of_a_hundred_items_three_are_tried_again(raises: bool, redis_url: str, namespace: str) -> None:
    tries: Counter[int] = Counter()
    alone: Counter[int] = Counter()
    sizes: list[int] = []
    engine = Engine(redis_url, namespace=namespace)

    @engine.batch(max_size=20, max_wait=0.05, max_attempts=3, retry_backoff=0.01)
    async def store(rows: list[int]) -> list[int | Exception] | None:
        sizes.append(len(rows))
        await asyncio.sleep(0.01)
        bad = BAD & set(rows)
        if raises and bad:
            alone.update(bad if len(rows) == 1 else ())
            raise ValueError(bad)
        tries.update(rows)
        return [ValueError(row) if row in BAD else row for row in rows]

    async with engine:
        with pytest.raises(BadParameters):
            await store.enqueue("no number")  # type: ignore[arg-type]
        jobs = [await store.enqueue(row) for row in range(50)]
        jobs += await store.enqueue_many([(row,) for row in range(50, 100)])
        run = asyncio.create_task(engine.run(concurrency=50))
        ended = await asyncio.gather(*(job.result(timeout=40) for job in jobs), return_exceptions=True)
        engine.stop()
        await run
        counters = (await engine.broker.depth(["default"])).queues["default"]
    failed = {row for row, end in enumerate(ended) if isinstance(end, TaskFailed)}
    assert failed == BAD
    assert [end for end in ended if not isinstance(end, TaskFailed)] == [row for row in range(100) if row not in BAD]
    assert counters.retried == 2 * len(BAD), "neighbours were tried again, too"
    assert {row: (alone if raises else tries)[row] for row in BAD} == dict.fromkeys(BAD, 3)
    assert all(count == 1 for row, count in tries.items() if row not in BAD)
    assert max(sizes) <= 20
    assert max(sizes) > 1

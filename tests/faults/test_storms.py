"""Everything fails at once: what was asked of a dependency that is down is not asked again at one moment."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from asyncworker import Engine, Limit, Rate
from tests.faults.crew import QUEUE, crew
from tests.faults.server import TAG, server

STORM = 5000


async def test_f17_retries_of_a_storm_are_spread_over_all_of_their_backoff() -> None:
    backoff_s, buckets = 60.0, 20
    with server() as redis:
        async with crew(redis.url) as running:

            @running.task(max_attempts=2, retry_backoff=backoff_s)
            async def asks_what_is_down() -> None:
                raise ConnectionError

            began_s = time.time()
            await running.put("asks_what_is_down", *[()] * STORM)
            running.start(queues={QUEUE: 200}, concurrency=200)
            await running.until(lambda: int(redis.client.hget(f"{TAG}c", f"{QUEUE}:r") or 0) == STORM)
            seconds, _ = redis.client.time()
            dues = [due / 1000 for _, due in redis.client.zrange(f"{TAG}d:{QUEUE}", 0, -1, withscores=True)]
    left_s = began_s + backoff_s - seconds
    assert left_s > backoff_s / 2, "it took too long to see anything"
    ahead = [due - seconds for due in dues if 0 <= due - seconds < left_s]
    assert len(ahead) >= 0.9 * STORM * left_s / backoff_s
    counts = Counter(int(due * buckets / left_s) for due in ahead)
    assert max(counts.values()) <= 2 * len(ahead) / buckets


async def test_f17_a_dependency_is_asked_no_more_than_it_bears_however_many_try_again(
    redis_url: str, namespace: str
) -> None:
    """Attempts that are tried again pass the same gates: limit and rate of the task are its circuit."""
    at_once, rate, burst, jobs = 20, 1000.0, 50, 1500
    inside = most = 0
    asked: list[float] = []
    engine = Engine(redis_url, namespace=namespace)

    @engine.task(
        limit=Limit(at_once),
        rate=Rate(int(rate), per=1, burst=burst),
        max_attempts=2,
        retry_backoff=0.0,
        result_ttl=0,
    )
    async def asks(first: dict[str, int]) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        asked.append(time.monotonic())
        try:
            await asyncio.sleep(0.001)
            if len(asked) <= jobs:
                raise ConnectionError
        finally:
            inside -= 1

    async with engine:
        await asks.enqueue_many([({},)] * jobs)
        began = time.monotonic()
        run = asyncio.create_task(engine.run(concurrency=200, burst=True))
        await asyncio.wait_for(run, 60)
        counts = (await engine.broker.depth(["default"])).queues["default"]
    assert (counts.succeeded + counts.failed, counts.blocked, counts.queued) == (jobs, 0, 0)
    assert counts.retried >= jobs / 2, "nobody tried again"
    assert len(asked) == jobs + counts.retried
    assert most <= at_once
    early = [k for k, at in enumerate(asked) if at - began < (k - burst) / rate - 0.01]
    assert not early, "more was asked than the rate allows"

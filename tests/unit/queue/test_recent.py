"""What is recent is recorded whatever it is, bounded, and by nobody but the process itself."""

from __future__ import annotations

import redis

from asyncworker import Engine
from asyncworker.queue.recent import MOST


async def test_s34_failures_that_cannot_be_told_are_recorded_and_open_no_connection(
    redis_url: str, namespace: str
) -> None:
    engine = Engine(redis_url, namespace=namespace, queues=["default"])
    recent, connections = engine.recent, []
    with redis.Redis.from_url(redis_url) as client:

        @engine.task(max_attempts=1, result_ttl=0, failure_ttl=1)
        async def fail(number: int) -> None:
            if number in {0, MOST + 199}:
                connections.append(client.info("clients")["connected_clients"])
            raise ValueError(object(), {number: object()})

        async with engine:
            await fail.enqueue_many([(number,) for number in range(MOST + 200)])
            await engine.run(burst=True)
    assert len(recent.failures) == MOST
    assert {end.error.partition(":")[0] for end in recent.failures} == {"ValueError"}
    first, last = connections
    assert last <= first + 1

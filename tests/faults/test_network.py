"""What happens between workers and server: answers are lost, cut, sliced, late; lines are half open."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from random import Random

import pytest

from asyncworker.errors import BrokerDown
from asyncworker.queue.brokers.redis import RedisBroker
from asyncworker.queue.job import Job
from tests.faults.crew import crew, new_id
from tests.faults.server import server
from tests.faults.weather import Weather
from tests.support.proxy import proxy

MS = 0.001


async def weathers(scenario: str, seed: int, jobs: int, **shares: float) -> None:
    """Two workers and a producer in bad weather; who judges sits in the dry."""
    random = Random(seed)
    with server() as redis:
        async with proxy(redis.url, partial(Weather, random=random)) as storm, crew(redis.url) as running:
            for _ in range(2):
                running.start(storm.url, lease_s=10.0)
            await running.joined(2)  # who cannot join ends, as it should, and whoever supervises it starts another
            storm.shares.update(shares)
            producer = RedisBroker(storm.url, patience=1.0)
            try:
                for _ in range(jobs // 10):
                    await running.put("work", *[(random.uniform(0, 10) * MS,)] * 10, through=producer)
                verdict = await running.judged(scenario, seed)
                held = (await running.client.depth([])).running
            finally:
                await producer.close()
    verdict.check()
    print(dict(storm.faults))
    assert held == 0, "a job is stuck in a living worker's hands"
    assert verdict.duplicate == 0, "no lease was lost, so nothing may run twice"
    assert sum(storm.faults.values()) > 0


async def test_f05_bad_weather_neither_loses_nor_doubles(seed: int) -> None:
    await weathers("F5", seed, 1000, swallow=0.05, mute=0.005, reset=0.05, slice=0.1, delay=0.2)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_f05_a_long_storm_neither_loses_nor_doubles(seed: int) -> None:
    await weathers("F5-long", seed, 20_000, swallow=0.02, mute=0.002, reset=0.02, slice=0.1, delay=0.2)


async def test_f06_half_open_connections_end_in_time(seed: int) -> None:
    patience, lease_s = 1.0, 1.0
    with server() as redis:
        async with proxy(redis.url) as between, crew(redis.url, patience=patience) as running:
            running.start(between.url, lease_s=lease_s)
            running.start(between.url, lease_s=lease_s)
            await running.put("work", *[(0.3,)] * 20)
            await running.joined(2)
            await running.until(lambda: len(redis.held().held) == 20)
            running.faults.append(redis.held())
            caller = RedisBroker(between.url, patience=patience)
            await caller.depth([])
            between.freeze()
            began = time.monotonic()
            answers = await asyncio.gather(
                caller.enqueue([Job(new_id(), "elsewhere", b"")]),
                caller.depth([]),
                caller.find([new_id()]),
                caller.cancel(new_id()),
                caller.wait([new_id()], 10),
                return_exceptions=True,
            )
            assert [type(answer) for answer in answers] == [BrokerDown] * len(answers)
            assert time.monotonic() - began < 2 * patience + BUSY_S
            await running.until(lambda: len(running.story.lost) == 2)
            between.thaw()
            thawed = time.monotonic()
            await caller.close()
            await running.ends()
            took = time.monotonic() - thawed
            verdict = await running.judged("F6", seed)
    verdict.check()
    assert took < patience + lease_s + REJOIN_AND_RUN_S, f"it took {took:.2f} s to work again"


BUSY_S = 5.0
"""A busy machine has its own time."""
REJOIN_AND_RUN_S = 2.0 + BUSY_S
"""Workers come back within two seconds, not all at once."""

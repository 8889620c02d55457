"""What happens to workers: they are killed, rolled, frozen, blocked."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.faults.fleet import Fleet, fleet, until
from tests.faults.server import server

MS = 0.001


async def storm(fleet: Fleet, jobs: int, kills: int, restarts: int, seconds: tuple[float, float]) -> None:
    """Work through *jobs* while workers and server are killed at even distances, with work in flight at each of them."""
    faults = ["kill"] * kills
    for number in range(restarts):
        faults.insert((2 * number + 1) * kills // (2 * restarts) + number, "restart")
    share = jobs / (len(faults) + 1)
    feeding = asyncio.create_task(fleet.feed(jobs, seconds, allowed=lambda: (len(fleet.faults) + 3) * share))
    try:
        for number, fault in enumerate(faults, 1):

            async def its_turn(number: int = number) -> bool:
                return fleet.count("s") >= number * share

            await until(its_turn)
            if fault == "kill":
                await fleet.kill_one()
            else:
                await fleet.restart_server()
        await feeding
    finally:
        feeding.cancel()
    await fleet.over()


async def storms(scenario: str, seed: int, **how: Any) -> None:
    with server(durable=True) as redis:
        async with fleet(redis, seed, workers=4, lease="1.5s", concurrency="50") as running:
            await storm(running, **how)
            verdict = await running.judged(scenario)
            story = running.story
    verdict.check()
    assert all(fault.held for fault in running.faults), "a fault met nobody at work"
    assert story.leases_lost > 0


async def test_f01_killed_workers_and_a_killed_server_lose_nothing(seed: int) -> None:
    await storms("F1", seed, jobs=1500, kills=4, restarts=1, seconds=(20 * MS, 100 * MS))


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_f01_a_hundred_thousand_jobs_outlive_ninety_kills(seed: int) -> None:
    began = time.monotonic()
    await storms("F1-long", seed, jobs=100_000, kills=92, restarts=2, seconds=(20 * MS, 150 * MS))
    print(f"in {time.monotonic() - began:.0f} s")

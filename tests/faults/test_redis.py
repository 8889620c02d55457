"""What happens to the server: it forgets functions, drops clients, sleeps, is full of connections, jobs or bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from asyncworker.errors import BrokerDown, QueueFull, SettingsError
from asyncworker.queue.brokers.redis import RedisBroker
from asyncworker.queue.codec import pack_call
from asyncworker.queue.context import Context
from asyncworker.queue.job import Job
from tests.faults.crew import QUEUE, crew, new_id
from tests.faults.server import Server, server

MS = 0.001
KB, MB = 2**10, 2**20
RECOVERED_S = 5.0


def forget_functions(server: Server) -> None:
    server.client.execute_command("FUNCTION", "FLUSH", "SYNC")


def drop_clients(server: Server) -> None:
    for kind in ("normal", "pubsub"):
        server.client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


def sleep(server: Server) -> None:
    server.client.execute_command("DEBUG", "SLEEP", "0.4")


def take_no_clients(server: Server) -> None:
    """Take no new clients for a while, after all but one were dropped."""
    server.client.config_set("maxclients", 1)
    drop_clients(server)
    time.sleep(0.3)
    server.client.config_set("maxclients", 1000)


@pytest.mark.parametrize("fault", [forget_functions, drop_clients, sleep, take_no_clients], ids=lambda f: f.__name__)
async def test_f07_a_server_that_is_meddled_with(seed: int, fault: Callable[[Server], None]) -> None:
    with server() as redis_server:
        async with crew(redis_server.url) as running:
            running.start(lease_s=2.0)
            running.start(lease_s=2.0)
            await running.joined(2)
            for _ in range(2):
                await running.put("work", *[(20 * MS,)] * 100)
                await asyncio.to_thread(fault, redis_server)
                began = time.monotonic()
                await running.put("work", (0.0,))
                await running.ends()
                assert time.monotonic() - began < RECOVERED_S
            verdict = await running.judged(f"F7-{fault.__name__}", seed)
    verdict.check()
    assert verdict.duplicate == 0, "nothing of this ends a lease"


async def test_f09_a_full_server_refuses_producers_and_serves_workers(seed: int) -> None:
    payload = "x" * KB
    gate = asyncio.Event()
    with server() as redis_server:
        client = redis_server.client
        async with crew(redis_server.url) as running:

            @running.task(result_ttl=60)
            async def waits(text: str, ctx: Context) -> None:
                await gate.wait()
                running.ran(ctx)

            running.start(lease_s=1.0)
            running.start(lease_s=1.0)
            await running.joined(2)
            await running.put("waits", *[(payload,)] * 100)
            limit = client.info("memory")["used_memory"] + 2 * MB
            client.config_set("maxmemory", limit)

            async def fill() -> None:
                with suppress(QueueFull):
                    while True:
                        await running.put("waits", *[(payload,)] * 100)

            await fill()
            beaten = time.monotonic() + 2 * 1.0
            await running.until(lambda: time.monotonic() > beaten)  # full for longer than a lease
            await fill()
            gate.set()
            verdict = await running.judged("F9", seed)
            assert client.info("memory")["used_memory"] < 0.9 * limit
            await running.put("waits", (payload,))
            await running.ends()
    verdict.check()
    assert running.story.lost == [], "a full server ended a lease"
    assert verdict.tasks > 1000
    assert verdict.duplicate == 0


async def test_f09_a_server_that_evicts_is_refused() -> None:
    with server(maxmemory="100mb", maxmemory_policy="allkeys-lru") as redis_server:
        broker = RedisBroker(redis_server.url)
        with pytest.raises(SettingsError, match="noeviction"):
            await broker.enqueue([Job(new_id(), QUEUE, b"")])
        await broker.close()


async def test_f10_a_full_disk_stops_work_and_no_worker(seed: int) -> None:
    with server(durable=True) as redis_server:
        async with crew(redis_server.url, patience=0.5) as running:
            running.start(lease_s=1.0)
            running.start(lease_s=1.0)
            await running.put("work", *[(50 * MS,)] * 400)
            await running.until(lambda: len(running.story.runs) > 40)
            redis_server.limit_files(largest(redis_server.place) + 4 * KB)
            with suppress(BrokerDown):
                while True:
                    jobs = [Job(new_id(), QUEUE, pack_call("work", (0.0,), {})) for _ in range(10)]
                    await running.client.enqueue(jobs)
                    running.ids += [job.id for job in jobs]
            assert redis_server.client.info("persistence")["aof_last_write_status"] == "err"
            running.faults.append(redis_server.held())
            await running.until(lambda: len(running.story.lost) == 2)  # nobody can beat
            assert not any(run.done() for run in running.runs), "a worker is gone"
            outages = running.outages.copy()
            redis_server.limit_files(-1)
            verdict = await running.judged("F10", seed)
            assert redis_server.client.info("persistence")["aof_last_write_status"] == "ok"
    verdict.check()
    assert max(outages.values()) <= 3, "an outage is told of once, not with each call that fails"


def largest(place: Path) -> int:
    return max(path.stat().st_size for path in place.glob("appendonlydir/*.aof"))

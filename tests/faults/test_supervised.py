"""What happens to supervised workers: scaled, rolled, killed, and left alone by a supervisor that was killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psutil
import pytest

from asyncworker.errors import BadParameters
from asyncworker.fleet.manager import DynamicWorkerManager
from tests.faults.fleet import ROOT, Fleet, fleet, until
from tests.faults.server import Server, server

MS = 0.001
APP = "tests.faults.app:engine"


def environment(running: Fleet, **settings: str) -> dict[str, str]:
    own = {f"ASYNCWORKER_{name.upper()}": value for name, value in settings.items()}
    return {**os.environ, "FAULTS_LEDGER": str(running.folder), "ASYNCWORKER_BROKER": running.server.url, **own}


@asynccontextmanager
async def managed(running: Fleet, lease: str = "1.5s", **options: Any) -> AsyncIterator[DynamicWorkerManager]:
    """Supervise workers of the faults' application from within this process."""
    settings = {"lease": lease, "concurrency": "10", "grace_period": "10s", "queues": "default"}
    manager = DynamicWorkerManager(
        APP,
        running.engine.broker,
        queues=["default"],
        environment=environment(running, **settings),
        grace_period=10.0,
        cpu_threshold=1.0,  # the machine is the tests'
        **options,
    )
    async with manager:
        yield manager


def pids(manager: DynamicWorkerManager, stage: str = "working") -> list[int]:
    return [of["pid"] for of in manager.get_worker_stats()["workers"] if of["stage"] == stage]


async def working(manager: DynamicWorkerManager, count: int) -> None:
    async def there() -> bool:
        return len(pids(manager)) == count

    await until(there)


async def scales(scenario: str, seed: int, *, jobs: int, events: int) -> None:
    draw = random.Random(seed)
    with server() as redis:
        async with fleet(redis, seed, workers=0) as running:
            async with managed(running, "10s", min_workers=1, max_workers=4, interval=1000.0) as manager:
                await working(manager, 1)
                feeding = asyncio.create_task(running.feed(jobs, (5 * MS, 50 * MS)))
                done = 0
                while done < events:
                    if draw.random() < 0.5:
                        try:
                            await manager.start_worker()
                        except BadParameters:
                            continue
                    elif len(pids(manager)) > 1:
                        await manager.stop_worker()
                    else:
                        await asyncio.sleep(0.01)
                        continue
                    done += 1
                manager.restart()
                before = set(pids(manager))
                await feeding

                async def renewed() -> bool:
                    return not before & set(pids(manager)) and not pids(manager, "starting")

                await until(renewed)
                await running.over()
            verdict = await running.judged(scenario)
            story = running.story
    verdict.check()
    assert (verdict.lost, verdict.duplicate, story.leases_lost) == (0, 0, 0)
    assert len(set(story.joined.values())) > 2


async def test_f02_s28_scaling_up_and_down_under_load_loses_and_repeats_nothing(seed: int) -> None:
    await scales("F2-scaled", seed, jobs=1000, events=8)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_f02_s28_twenty_changes_over_ten_thousand_jobs(seed: int) -> None:
    await scales("F2-scaled-long", seed, jobs=10_000, events=20)


async def killed(scenario: str, seed: int, *, jobs: int, kills: int) -> None:
    draw = random.Random(seed)
    with server() as redis:
        async with fleet(redis, seed, workers=0) as running:
            async with managed(running, min_workers=4, max_workers=4) as manager:
                await working(manager, 4)
                feeding = asyncio.create_task(running.feed(jobs, (20 * MS, 80 * MS)))
                for number in range(kills):

                    async def its_turn(number: int = number) -> bool:
                        return running.count("s") >= number * jobs / (kills + 1)

                    await until(its_turn)
                    victim = draw.choice(pids(manager))
                    stop_and_kill(running, victim)

                    async def missed(victim: int = victim) -> bool:
                        return victim not in pids(manager)

                    await until(missed)
                await feeding
                await running.over()
                await working(manager, 4)
                stats = manager.get_worker_stats()
            verdict = await running.judged(scenario)
    verdict.check()
    assert stats["crashes"] == kills
    assert {of["name"] for of in stats["workers"]} == {f"worker-{number}" for number in range(1, 5)}


def stop_and_kill(running: Fleet, pid: int) -> None:
    """Kill a worker, and note what it held."""
    process = psutil.Process(pid)
    process.suspend()
    while process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
        pass
    running.server.client.ping()  # what it had sent before is done now
    running.faults.append(running.server.held(pid))
    process.kill()


async def test_f01_s30_killed_workers_are_replaced_and_nothing_is_lost(seed: int) -> None:
    await killed("E8", seed, jobs=800, kills=4)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_f01_s30_twenty_killed_workers_are_replaced(seed: int) -> None:
    await killed("E8-long", seed, jobs=8_000, kills=20)


# --- the command ------------------------------------------------------------------------------------------


@contextmanager
def daemon(running: Fleet, *words: str) -> Any:
    size = ("--min-workers", "2", "--max-workers", "2")
    served = ("--http", "off", "--metrics-port", "0")
    command = [sys.executable, "-m", "asyncworker", "daemon", APP, *size, *served, *words]
    log = (running.folder / "log").open("ab")
    own = environment(running, lease="2s", grace_period="20s", queues="default", cpu_threshold="100")
    process = subprocess.Popen(command, cwd=ROOT, env=own, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        log.close()


async def members(redis: Server, count: int) -> set[int]:
    async def there() -> set[int]:
        found = set(redis.epochs().values())
        return found if len(found) == count else set()

    return await until(there)


async def over(process: subprocess.Popen[bytes]) -> int:
    async def ended() -> bool:
        return process.poll() is not None

    await until(ended)
    return process.wait()


async def test_f23_s30_a_killed_daemons_workers_hand_back_and_are_gone_and_the_next_one_goes_on(seed: int) -> None:
    with server() as redis:
        async with fleet(redis, seed, workers=0) as running:
            with daemon(running) as first:
                workers = await members(redis, 2)
                await running.put("work", *((60.0,) for _ in range(3)), *((0.01,) for _ in range(20)))

                async def busy() -> bool:
                    return redis.held().held >= set(running.ids[:3])

                await until(busy)
                first.kill()

                async def gone() -> bool:
                    return not any(psutil.pid_exists(pid) for pid in workers)

                await until(gone, 20)

                async def back() -> bool:
                    return not redis.epochs() and running.count("n") == 23

                await until(back)
            assert running.count("g") == 0, "they were handed back, not given up"
            for id in running.ids[:3]:
                await running.engine.broker.cancel(id)
            with daemon(running) as second:
                await members(redis, 2)

                async def done() -> bool:
                    return running.count("s") == 20

                await until(done)
                second.terminate()
                assert await over(second) == 0, running.said


async def test_s31_e18_two_signals_end_it_fast_and_one_renews_its_workers(seed: int) -> None:
    with server() as redis:
        async with fleet(redis, seed, workers=0) as running:
            with daemon(running) as process:
                before = await members(redis, 2)
                said = [" ".join(psutil.Process(pid).cmdline()) for pid in before]
                assert not any(redis.url in words for words in said), "where the broker is stands in no command line"
                process.send_signal(signal.SIGHUP)

                async def renewed() -> bool:
                    now = set(redis.epochs().values())
                    return len(now) == 2 and not now & before

                await until(renewed)
                await running.put("work", (300.0,))

                async def busy() -> bool:
                    return redis.held().held == set(running.ids)

                await until(busy)
                process.terminate()

                async def drains() -> bool:
                    return "workers drain" in running.said

                await until(drains)
                process.terminate()
                assert await over(process) == 0, running.said
            assert "Traceback" not in running.said
            assert not redis.epochs()
            (job,) = await running.engine.broker.find(running.ids)
            assert (job.state, job.attempt, job.deliveries) == ("queued", 0, 0)


async def test_s26_the_first_job_of_a_fleet_of_nobody_is_done(seed: int) -> None:
    with server() as redis:
        async with fleet(redis, seed, workers=0) as running:
            async with managed(running, min_workers=0, max_workers=2) as manager:
                await running.put("work", (0.001,))
                await running.over()
                assert manager.get_worker_stats()["because"]
            verdict = await running.judged("S26")
    verdict.check()

"""What happens to workers: they are killed, rolled, frozen, blocked."""

from __future__ import annotations

import asyncio
import time
from math import inf
from typing import Any

import psutil
import pytest

from asyncworker.queue.codec import pack_call, unpack_record
from asyncworker.queue.job import MAX_DELIVERIES, Job, Receipt, State, Twin
from tests.faults.fleet import Fleet, WorkerProcess, fleet, new_id, until
from tests.faults.ledger import Fault
from tests.faults.server import server
from tests.faults.total import HOLD

MS = 0.001
MB = 2**20


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
            terminal, dead = sum(map(running.count, "sfce")), len(await running.engine.admin.dead())
            story = running.story
    verdict.check()
    apart = [run.deliveries for run in story.runs if run.apart]
    print(f"workers killed         {how['kills']:>8,}")
    print(f"server killed          {how['restarts']:>8,}")
    print(f"leases lost            {story.leases_lost:>8,}")
    print(f"terminal states        {terminal:>8,}")
    print(f"dead letters           {dead:>8,}")
    print(f"run apart, acquitted   {len(apart):>8,}  after {MAX_DELIVERIES} deaths beside others")
    assert (terminal, dead) == (how["jobs"], 0)
    assert all(deaths >= MAX_DELIVERIES for deaths in apart)
    assert all(fault.held for fault in running.faults), "a fault met nobody at work"
    assert story.leases_lost > 0


async def test_f01_killed_workers_and_a_killed_server_lose_nothing(seed: int) -> None:
    await storms("F1", seed, jobs=1500, kills=4, restarts=1, seconds=(20 * MS, 100 * MS))


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_f01_a_hundred_thousand_jobs_outlive_ninety_kills(seed: int) -> None:
    await storms("F1-long", seed, jobs=100_000, kills=92, restarts=2, seconds=(20 * MS, 150 * MS))


async def rolls(scenario: str, seed: int, *, jobs: int, rounds: int, workers: int) -> None:
    with server() as redis:
        async with fleet(redis, seed, workers=workers, lease="10s", concurrency="20", grace_period="10s") as running:
            feeding = asyncio.create_task(running.feed(jobs, (10 * MS, 50 * MS)))
            for _ in range(rounds * workers):
                old = running.workers.pop(0)
                (new,) = running.start()
                await running.joined(new)
                assert await old.leave() == 0, running.said
            await feeding
            await running.over()
            verdict = await running.judged(scenario)
            story = running.story
    verdict.check()
    assert (verdict.duplicate, verdict.bound, story.leases_lost) == (0, 0, 0)
    assert {run.deliveries for run in story.runs} == {0}, "a worker that leaves has not died"


async def test_f02_rolling_restarts_repeat_nothing(seed: int) -> None:
    await rolls("F2", seed, jobs=1200, rounds=1, workers=2)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_f02_many_rolling_restarts_repeat_nothing(seed: int) -> None:
    await rolls("F2-long", seed, jobs=30_000, rounds=5, workers=4)


async def freezes(scenario: str, seed: int, *, jobs: int, rounds: int) -> None:
    with server() as redis:
        async with fleet(redis, seed, workers=2, lease="0.7s", concurrency="20") as running:
            share = jobs / (rounds + 1)
            done = 0
            feeding = asyncio.create_task(running.feed(jobs, (20 * MS, 60 * MS), allowed=lambda: (done + 1) * share))
            zombies = {}
            for _ in range(rounds):
                worker, fault = await running.stop_one()

                async def given_up(fault: Fault = fault) -> bool:
                    return not fault.epochs & running.server.epochs().keys()

                await until(given_up)
                zombies |= dict.fromkeys(fault.epochs, time.monotonic())
                worker.go_on()

                async def rejoined(worker: WorkerProcess = worker) -> bool:
                    return worker.pid in running.server.epochs().values()

                await until(rejoined)
                done += 1
            await feeding
            await running.over()
            verdict = await running.judged(scenario)
            story = running.story
    verdict.check()
    late = [run for run in story.runs if run.at >= zombies.get(run.epoch, inf)]
    print(f"{len(late)} completions came too late, all refused: {verdict.duplicate} duplicates, none counted twice")
    assert verdict.duplicate >= len({run.id for run in late}), "what a zombie completed was not run by its new owner"


async def test_f03_zombies_are_refused(seed: int) -> None:
    await freezes("F3", seed, jobs=600, rounds=2)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_f03_twenty_zombies_are_refused(seed: int) -> None:
    await freezes("F3-long", seed, jobs=20_000, rounds=20)


async def test_f04_a_blocked_event_loop_loses_its_lease_and_its_word(seed: int) -> None:
    with server() as redis:
        async with fleet(redis, seed, workers=2, lease="0.6s", concurrency="1") as running:
            (job,) = await running.put("blocks_at_first", (1.8,))
            (ended,) = await running.engine.broker.wait([job], 30)
            assert ended is not None
            await until(lambda: running.seen(lambda story: len(story.runs) == 2))  # the one that was blocked ends, too
            neighbours = await running.put("work", *[(0.0,)] * 50)
            await running.joined()
            await running.over()
            verdict = await running.judged("F4")
            story = running.story
    verdict.check()
    assert unpack_record(ended.record).value == 1, "the second owner's word counts"
    first, second = sorted((run for run in story.runs if run.id == job), key=lambda run: run.deliveries)
    assert (first.deliveries, second.deliveries) == (0, 1)
    assert story.marks == [("blocking", first.pid)]
    assert verdict.duplicate == 1
    assert {run.id for run in story.runs} == {job, *neighbours}


async def test_f14_code_that_will_not_stop_does_not_stop_the_worker(seed: int) -> None:
    grace_s = 0.3
    with server() as redis:
        async with fleet(redis, seed, workers=1, grace_period=f"{grace_s}s") as running:
            tasks = ["swallows", "catches_all", "cleans_up_for_ever", "hangs_in_a_thread"]
            jobs = [job for task in tasks for job in await running.put(task, ())]
            await until(lambda: running.seen(lambda story: len(story.marks) >= len(jobs)))
            told = time.monotonic()
            assert await running.workers[0].leave() == 0, running.said
            took = time.monotonic() - told
            left = await running.engine.broker.find(jobs)
    assert took < grace_s + 2, f"it took {took:.2f} s to leave"
    assert [(job.state, job.attempt, job.deliveries) for job in left if job] == [(State.QUEUED, 0, 0)] * len(jobs)


async def test_f18_a_long_queue_does_not_grow_a_worker(seed: int) -> None:
    text = "x" * 1000
    with server() as redis:
        async with fleet(redis, seed, workers=0, concurrency="20") as running:
            for _ in range(20):
                await running.put("echoes", *[(text,)] * 1000)
            (worker,) = running.start()
            sizes = []
            for share in (0.1, 0.9):

                async def its_turn(share: float = share) -> bool:
                    return running.count("s") >= share * len(running.ids)

                await until(its_turn)
                assert len(redis.held().held) <= 20, "a worker claims what it has room for"
                sizes.append(psutil.Process(worker.pid).memory_info().rss)
            await running.over()
            verdict = await running.judged("F18")
    verdict.check()
    assert sizes[1] - sizes[0] < 8 * MB, f"it grew by {(sizes[1] - sizes[0]) / MB:.1f} MB over 16,000 jobs"


async def test_f24_whoever_held_a_lock_or_a_key_and_was_killed_holds_it_no_longer(seed: int) -> None:
    with server() as redis:
        async with fleet(redis, seed, workers=2, lease="1s", concurrency="10") as running:
            holder = Job(new_id(), "default", pack_call("locked", (), {}), options={"unique": "key"})
            twin = Job(new_id(), "default", pack_call("locked", (), {}), options={"unique": "key"})
            (running.folder / HOLD).write_text(holder.id, "utf-8")
            broker = running.engine.broker
            assert await broker.enqueue([holder]) == [Receipt.ACCEPTED]
            running.ids.append(holder.id)
            await until(lambda: running.seen(lambda story: story.marks[:1] != []))
            ((_, pid),) = running.story.marks
            waiting = await running.put("locked", *[()] * 30)

            async def all_wait() -> bool:
                counts = (await broker.depth(["default"])).queues["default"]
                return counts.blocked == len(waiting)

            await until(all_wait)
            assert await broker.enqueue([twin]) == [Twin(holder.id)], "the key is held"
            running.kill(pid)
            await running.over()
            assert await broker.enqueue([twin]) == [Receipt.ACCEPTED], "the key is free"
            running.ids.append(twin.id)
            await running.over()
            (ended,) = await broker.wait([holder.id], 0)
            counts = (await broker.depth(["default"])).queues["default"]
            verdict = await running.judged("F24")
            story = running.story
    verdict.check()
    assert ended is not None
    assert unpack_record(ended.record).value == [1, 1], "the next owner's fence is higher, and no attempt was spent"
    assert (counts.blocked, counts.queued, counts.scheduled) == (0, 0, 0)
    words = [word for word, marker in story.marks if marker != pid]
    assert words == ["locked", "unlocked"] * (len(waiting) + 2), "one at a time"

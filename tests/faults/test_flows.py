"""Jobs that wait for jobs, while those who run them die: between the end of one and the next there is no moment to die in."""

from __future__ import annotations

import asyncio

from asyncworker.queue.codec import pack_call
from asyncworker.queue.job import Job
from tests.faults.fleet import Fleet, fleet, new_id, until
from tests.faults.server import server

CHAINS, LENGTH = 30, 12


def graph() -> dict[str, Job]:
    """Return chains side by side and one job after all of them, each after those that it waits for."""
    jobs: dict[str, Job] = {}

    def add(*after: str) -> str:
        job = Job(new_id(), "default", pack_call("work", (0.02,), {}), after=after)
        jobs[job.id] = job
        return job.id

    ends = []
    for _ in range(CHAINS):
        last = add()
        for _ in range(LENGTH - 1):
            last = add(last)
        ends.append(last)
    add(*ends)
    return jobs


async def storm(running: Fleet, jobs: dict[str, Job]) -> None:
    await running.engine.broker.enqueue(list(jobs.values()))
    running.ids += jobs
    for number, fault in enumerate(["kill", "kill", "restart", "kill"], 1):

        async def its_turn(number: int = number) -> bool:
            return running.count("s") >= number * len(jobs) / 6

        await until(its_turn)
        await (running.kill_one() if fault == "kill" else running.restart_server())
    await running.over()


async def test_f01_flows_go_on_whoever_dies(seed: int) -> None:
    jobs = graph()
    with server(durable=True) as redis:
        async with fleet(redis, seed, workers=3, lease="1.5s", concurrency="20") as running:
            await asyncio.wait_for(storm(running, jobs), 120)
            verdict = await running.judged("F1-flows")
            runs = running.story.runs
    verdict.check()
    ended = {run.id: run.at for run in sorted(runs, key=lambda run: run.at, reverse=True)}  # when first
    assert all(ended[former] < ended[job.id] for job in jobs.values() for former in job.after), "it ran too early"

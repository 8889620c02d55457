"""What /metrics of a daemon says, held against the ledgers of its workers, while these are killed and renewed."""

from __future__ import annotations

import asyncio
import re
import signal
import urllib.request

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from asyncworker.fleet.report import BEAT_S
from tests.faults.fleet import Fleet, fleet, until
from tests.faults.server import server
from tests.faults.test_supervised import daemon, members, over, stop_and_kill

MS = 0.001
SLACK_S = 3.0
"""A beat may be late on a busy machine."""
Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(running: Fleet) -> Numbers:
    found = re.findall(r"http://127\.0\.0\.1:[0-9]+/metrics", (running.folder / "log").read_text())

    def get() -> str:
        with urllib.request.urlopen(found[-1], timeout=20) as answer:
            return str(answer.read(), "utf-8")

    families = text_string_to_metric_families(await asyncio.to_thread(get))
    return {
        (sample.name.removeprefix("asyncworker_"), frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if family.type in {"counter", "histogram"} or family.name.startswith("asyncworker_worker")
    }


def of(numbers: Numbers, name: str, **labels: str) -> float:
    """Return the sum of a metric over all series that have these labels."""
    return sum(
        value for (known, own), value in numbers.items() if known == name and labels.items() <= dict(own).items()
    )


def counters(numbers: Numbers) -> Numbers:
    return {key: value for key, value in numbers.items() if key[0].endswith(("_total", "_bucket", "_count", "_sum"))}


@pytest.mark.parametrize(("workers", "kills", "renew"), [(1, 1, True), (4, 1, True), (8, 2, False)])
async def test_counts_are_the_ledgers_after_kills_and_restarts(
    seed: int, workers: int, kills: int, renew: bool
) -> None:
    jobs, size = 400, ("--min-workers", str(workers), "--max-workers", str(workers))
    with server() as redis:
        async with fleet(redis, seed, workers=0) as running:
            with daemon(running, *size) as process:
                pids = await members(redis, workers)
                limit, killed, before = [100], [], await scrape(running)
                feeding = asyncio.create_task(running.feed(jobs, (5 * MS, 30 * MS), allowed=lambda: limit[0]))
                for turn in range(kills):

                    async def its_turn(turn: int = turn) -> bool:
                        return running.count("s") >= 50 * (turn + 1)

                    await until(its_turn)
                    victim = running.random.choice(sorted(pids))
                    stop_and_kill(running, victim)
                    killed.append(victim)
                    limit[0] += 100

                    async def replaced(victim: int = victim) -> bool:
                        now = set(redis.epochs().values())
                        return len(now) == workers and victim not in now

                    await until(replaced)
                    pids = set(redis.epochs().values())
                    after = await scrape(running)
                    assert all(after[key] >= value for key, value in counters(before).items()), "nothing ever goes down"
                    before = after
                if renew:
                    process.send_signal(signal.SIGHUP)

                    async def renewed(old: frozenset[int] = frozenset(pids)) -> bool:
                        return len(now := set(redis.epochs().values())) == workers and not now & old

                    await until(renewed)
                limit[0] = jobs
                await feeding
                await running.over()
                story = running.story
                last_beats = sum(
                    run.pid in killed and fault.at - run.at < BEAT_S + SLACK_S
                    for run in story.runs
                    for fault, pid in zip(running.faults, killed, strict=True)
                    if pid == run.pid
                )

                async def told() -> Numbers | None:
                    now = await scrape(running)
                    all_in = of(now, "job_duration_seconds_count") >= len(story.runs) - last_beats
                    return now if all_in and of(now, "workers", state="working") == workers else None

                now = await until(told)
                assert all(now[key] >= value for key, value in counters(before).items())
                assert of(now, "jobs_total") == of(now, "jobs_total", status="succeeded") == jobs
                assert of(now, "jobs_enqueued_total") == jobs == len({run.id for run in story.runs})
                assert of(now, "jobs_redelivered_total") == running.count("d")
                assert of(now, "job_duration_seconds_count") <= len(story.runs), "none is counted twice"
                assert of(now, "job_attempts_total") == of(now, "job_duration_seconds_count")
                assert of(now, "worker_crashes_total", reason="SIGKILL") == of(now, "worker_crashes_total") == kills
                assert of(now, "worker_starts_total") == workers * (1 + renew) + kills
                assert of(now, "worker_info", state="working") == workers
                process.terminate()
                assert await over(process) == 0, running.said
            verdict = await running.judged(f"metrics-{workers}")
            assert not any(psutil.pid_exists(pid) for pid in pids)
    verdict.check()

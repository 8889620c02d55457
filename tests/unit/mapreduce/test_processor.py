"""DistributedProcessor: the seed's methods, keys and words, over jobs that need nobody to poll them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asyncworker.errors import BadParameters, JobNotFound, SourceError, UnknownName
from asyncworker.mapreduce import processor
from asyncworker.mapreduce.processor import DistributedProcessor
from asyncworker.queue.codec import Ids
from tests.support.mapreduce import PATIENCE, Fleet

SEED_KEYS = {"job_id", "status", "partitions", "start_time", "dataset_id", "processing_function", "progress"}
STATS = {
    "total_jobs",
    "successful_jobs",
    "failed_jobs",
    "total_processing_time",
    "average_processing_time",
    "success_rate",
    "active_jobs",
    "historical_jobs",
}


class Handle(msgspec.Struct):
    id: str


class SmallEngine:
    """As much of an engine as a processor asks for; it keeps what it was asked."""

    def __init__(self, fleet: Fleet) -> None:
        self.broker = fleet.broker
        self._fleet = fleet
        self.feeding: set[asyncio.Task[None]] = set()
        self.asked: list[dict[str, Any]] = []
        self.known = ""

    async def map_reduce(self, source: Any, function: str | None = None, **options: Any) -> Handle:
        self.asked.append(options)
        if options["cache"] and self.known:
            return Handle(self.known)
        size = 1000 if options["partition_size"] == "auto" else options["partition_size"]
        workers = options["workers"]
        job_id, feeding = await self._fleet.submit(
            source,
            function or "",
            params=options["params"],
            partition_size=size,
            ahead=10,
            in_flight=None if workers == "auto" else workers,
        )
        self.feeding.add(feeding)
        feeding.add_done_callback(self.feeding.discard)
        return Handle(job_id)


async def over(jobs: DistributedProcessor, fleet: Fleet, job_id: str) -> None:
    """Wait until a job has left the active ones by itself."""
    async with asyncio.timeout(PATIENCE):
        await fleet.broker.wait([job_id], None)
        while job_id in jobs.active_jobs:
            await asyncio.sleep(0)


async def test_a_job_from_its_submission_to_its_result() -> None:
    fleet = Fleet()
    async with DistributedProcessor(SmallEngine(fleet)) as jobs:
        job_id = await jobs.process_large_dataset([*range(20), {"await": "go"}], "collect", {"x": 1}, 10)
        pending = await jobs.get_job_status(job_id)
        assert pending.keys() == SEED_KEYS | {"state"}
        assert (pending["status"], pending["state"]) == ("pending", "queued")
        async with fleet.working():
            await fleet.reached(job_id, done=2)
            running = await jobs.get_job_status(job_id)
            assert (running["status"], running["partitions"]) == ("running", 3)
            assert running["progress"] == {"completed_partitions": 2, "total_partitions": 3, "percentage": 66}
            assert jobs.active_jobs[job_id].status == "running"
            known = await jobs.get_job(job_id)
            assert (known.dataset_id, known.parameters, len(known.partitions)) == ("list in memory", {"x": 1}, 3)
            assert known.partitions[2].data_range == (20, 21)
            fleet.collect.gate("go").set()
            await over(jobs, fleet, job_id)
        done = await jobs.get_job_status(job_id)
        assert done.keys() == SEED_KEYS | {"state", "result", "end_time", "duration"}
        assert (done["status"], done["state"], done["progress"]["percentage"]) == ("completed", "succeeded", 100)
        assert done["result"]["total_processed"] == 21
        assert done["duration"] == pytest.approx(done["end_time"] - done["start_time"])
        assert (done["dataset_id"], done["processing_function"]) == ("list in memory", "collect")
        (past,) = jobs.job_history
        assert past["result"]["total_processed"] == 21
        assert past["result"]["final_result"] is None  # the history does not hold results


async def test_s07_jobs_end_and_are_counted_without_anybody_asking() -> None:
    fleet = Fleet()
    async with DistributedProcessor(SmallEngine(fleet)) as jobs, fleet.working():
        good = await jobs.process_large_dataset([1], "collect", {})
        bad = await jobs.process_large_dataset([{"await": "never"}], "collect", {})
        async with asyncio.timeout(PATIENCE):
            while fleet.collect.mapped < 2:
                await asyncio.sleep(0)
        fleet.collect.initial = lambda: 1 / 0  # type: ignore[method-assign,return-value]
        worse = await jobs.process_large_dataset([1], "collect", {})
        await over(jobs, fleet, worse)
        assert await jobs.cancel_job(bad)
        await over(jobs, fleet, bad)
        await over(jobs, fleet, good)
        stats = await jobs.get_performance_stats()
        assert stats.keys() >= STATS
        assert (stats["total_jobs"], stats["active_jobs"], stats["historical_jobs"]) == (3, 0, 3)
        assert stats["successful_jobs"] + stats["failed_jobs"] + stats["cancelled_jobs"] == 3
        assert stats["cancelled_jobs"] == 1
        assert {past["job_id"] for past in jobs.job_history} == {good, bad, worse}


async def test_s07_many_pollers_do_not_count_a_job_twice_and_the_end_is_the_jobs_own() -> None:
    fleet = Fleet()
    async with DistributedProcessor(SmallEngine(fleet)) as jobs, fleet.working():
        job_id = await jobs.process_large_dataset([1, 2], "collect", {})

        async def poll() -> dict[str, Any]:
            while (status := await jobs.get_job_status(job_id))["status"] != "completed":
                await asyncio.sleep(0)
            return status

        async with asyncio.timeout(PATIENCE):
            polled = await asyncio.gather(*(poll() for _ in range(10)))
        later = await jobs.get_job_status(job_id)
        assert all(status == later for status in polled)
        stats = await jobs.get_performance_stats()
        assert (stats["successful_jobs"], stats["historical_jobs"]) == (1, 1)
        assert stats["total_processing_time"] == later["duration"] == stats["average_processing_time"]
        assert stats["success_rate"] == 100.0


async def test_s09_a_failed_job_says_why() -> None:
    fleet = Fleet()
    fleet.collect.initial = lambda: 1 / 0  # type: ignore[method-assign,return-value]
    async with DistributedProcessor(SmallEngine(fleet)) as jobs, fleet.working():
        job_id = await jobs.process_large_dataset([1], "collect", {})
        await over(jobs, fleet, job_id)
        status = await jobs.get_job_status(job_id)
    assert (status["status"], status["state"]) == ("failed", "failed")
    assert "division by zero" in status["error"]
    assert "result" not in status
    assert status["end_time"] >= status["start_time"]


async def test_s13_a_cancelled_job_stays_cancelled() -> None:
    fleet = Fleet()
    async with DistributedProcessor(SmallEngine(fleet)) as jobs, fleet.working():
        job_id = await jobs.process_large_dataset([{"await": "go"}] * 3, "collect", {}, 1)
        other = await jobs.process_large_dataset([1, {"await": "go"}], "collect", {}, 1)
        await fleet.reached(other, done=1)
        assert await jobs.cancel_job(job_id) is True
        assert (await jobs.get_job_status(job_id))["status"] == "cancelled"
        fleet.collect.gate("go").set()
        await over(jobs, fleet, other)
        assert await jobs.cancel_job(job_id) is False
        assert (await jobs.get_job_status(job_id))["status"] == "cancelled"
        assert (await jobs.get_job_status(other))["status"] == "completed"
        assert await jobs.cancel_job(other) is False


async def test_unknown_ids_raise() -> None:
    jobs = DistributedProcessor(SmallEngine(Fleet()))
    for job_id in ("dataset_001", Ids()()):
        with pytest.raises(JobNotFound):
            await jobs.get_job_status(job_id)
        with pytest.raises(JobNotFound):
            await jobs.cancel_job(job_id)


async def test_s06_another_process_sees_the_job_and_its_end(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text("1\n2\n")
    fleet = Fleet()
    async with DistributedProcessor(SmallEngine(fleet)) as first:
        job_id = await first.process_large_dataset(path, "collect", {"x": 1})
        await asyncio.gather(*first._engine.feeding)  # type: ignore[attr-defined]
    second = DistributedProcessor(SmallEngine(fleet))
    seen = await second.get_job_status(job_id)
    assert (seen["status"], seen["dataset_id"], seen["processing_function"]) == ("pending", str(path), "collect")
    async with fleet.working():
        await fleet.end(job_id)
    seen = await second.get_job_status(job_id)
    assert (seen["status"], seen["dataset_id"], seen["result"]["total_processed"]) == ("completed", str(path), 2)
    assert second.active_jobs == {}
    assert (await second.get_performance_stats())["total_jobs"] == 0


async def test_s06_the_history_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "HISTORY", 3)
    fleet = Fleet()
    async with DistributedProcessor(SmallEngine(fleet)) as jobs, fleet.working():
        ids = [await jobs.process_large_dataset([1], "collect", {}) for _ in range(5)]
        for job_id in ids:
            await over(jobs, fleet, job_id)
        assert len(jobs.job_history) == 3
        stats = await jobs.get_performance_stats()
        assert (stats["successful_jobs"], stats["historical_jobs"]) == (5, 3)


async def test_s03_what_is_wrong_is_told_to_the_caller_and_no_job_is_counted() -> None:
    jobs = DistributedProcessor(SmallEngine(Fleet()))
    with pytest.raises(SourceError):
        await jobs.process_large_dataset("no/such.jsonl", "collect", {})
    with pytest.raises(UnknownName):
        await jobs.process_large_dataset([1], "colect", {})
    with pytest.raises(BadParameters):
        await jobs.process_large_dataset([1], "collect", {"wrong": 1})
    assert jobs.active_jobs == {}
    assert (await jobs.get_performance_stats())["total_jobs"] == 0


async def test_s21_every_knob_does_something(tmp_path: Path) -> None:
    fleet = Fleet()
    engine = SmallEngine(fleet)
    path = tmp_path / "numbers.jsonl"
    path.write_text("1\n")
    async with DistributedProcessor(engine, database="postgresql://db") as jobs, fleet.working():
        await jobs.process_large_dataset([1], "collect", {})
        await jobs.process_large_dataset([1], "collect", {}, 5000)
        await jobs.process_large_dataset([1], "collect", {}, dynamic_partitioning=False)
        await jobs.process_large_dataset([1], "collect", {}, max_workers=3)
        await jobs.process_large_dataset([1], "collect", {}, adaptive_worker_count=False)
        assert [asked["partition_size"] for asked in engine.asked] == ["auto", 5000, 10_000, "auto", "auto"]
        assert [asked["workers"] for asked in engine.asked[:4]] == ["auto", "auto", "auto", 3]
        assert engine.asked[4]["workers"] >= 1
        assert {asked["database"] for asked in engine.asked} == {"postgresql://db"}
        with pytest.raises(BadParameters, match="load_balancing"):
            await jobs.process_large_dataset([1], "collect", {}, load_balancing=False)
        assert not any(asked["cache"] for asked in engine.asked)
        one = await jobs.process_large_dataset(str(path), "collect", {"x": 1}, caching_enabled=True)
        assert engine.asked[-1]["cache"] is True
        engine.known = one
        total = (await jobs.get_performance_stats())["total_jobs"]
        assert await jobs.process_large_dataset(str(path), "collect", {"x": 1}, caching_enabled=True) == one
        assert (await jobs.get_performance_stats())["total_jobs"] == total
        await jobs.process_large_dataset([1], "collect", {}, caching_enabled=True)
        assert engine.asked[-1]["cache"] is False, "what only this process has is no dataset to know again"
        for job_id in list(jobs.active_jobs):
            await over(jobs, fleet, job_id)

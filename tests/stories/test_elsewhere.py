"""The same run, on a server of its own and on workers elsewhere, sums up to the same."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parents[2]
RUN = [
    *("run", "examples/data/flights-2013-01.csv.gz", "--missing", "NA", "--function", "data_validation"),
    *("--params", "examples/flights-rules.json", "--json"),
    *("--partition-size", "3000"),  # else as many as take a second, on whatever they run
]
OF_THIS_RUN = {"job_id", "processing_stats", "completed_at"}


async def asyncworker(*arguments: str) -> dict[str, Any]:
    """Run the command and return the one document that it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "asyncworker", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    document: dict[str, Any] = msgspec.json.decode(out)
    return document


@asynccontextmanager
async def workers(url: str, count: int) -> AsyncIterator[None]:
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "asyncworker", "worker", "--broker", url),
            cwd=ROOT,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        assert [await asyncio.wait_for(process.wait(), 30) for process in processes] == [0] * count


async def test_a_run_sums_up_the_same_here_and_on_workers_elsewhere(fresh_redis_url: str) -> None:
    here = await asyncworker(*RUN, "--workers", "2")
    async with workers(fresh_redis_url, 2):
        there = await asyncworker(*RUN, "--broker", fresh_redis_url)
    assert here["job_id"] != there["job_id"]
    for summary in (here, there):
        assert summary["total_processed"] == 27_004
        for key in OF_THIS_RUN:
            del summary[key]
    assert here == there

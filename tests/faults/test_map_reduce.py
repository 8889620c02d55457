"""What happens to a map/reduce job whose reducer dies again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from asyncworker.mapreduce.job import Progress
from asyncworker.queue.job import State
from tests.faults.fleet import fleet, until
from tests.faults.server import server
from tests.faults.total import HOLD, Sum, one


class Total(Sum):
    """The workers' own, which the client knows by name."""


async def reduces(tmp_path: Path, seed: int, *, partitions: int, kills: int) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_text("".join(f'{{"n": {n}}}\n' for n in range(partitions)))
    with server() as redis:
        async with fleet(redis, seed, workers=2, lease="0.5s") as running:
            hold = running.folder / HOLD
            hold.touch()
            engine = running.engine
            engine.mapper(one)
            engine.reducer(Total)
            job = await engine.map_reduce(rows, map="one", reduce="Total", partition_size=1, to=str(out))
            seen: list[Progress] = []

            async def look() -> None:
                seen.extend([now async for now in job.progress(every=0.05)])

            looking = asyncio.create_task(look())
            try:
                dead: set[int] = set()
                while len(dead) < kills:

                    async def reducing() -> set[int]:
                        return {pid for word, pid in running.story.marks if word == "reducing"} - dead

                    (pid,) = await until(reducing)
                    running.kill(pid)
                    dead.add(pid)
                    running.start()
                    assert not out.exists()
                hold.unlink()
                summary = await job.result(timeout=30)
                await looking
            finally:
                looking.cancel()
            depth = (await engine.broker.depth(["cpu_intensive"])).queues["cpu_intensive"]
            words = [word for word, _ in running.story.marks]
    print(f"F15 seed={seed} partitions={partitions} kills={kills} looks={len(seen)} redelivered={depth.redelivered}")
    assert (summary["total_processed"], summary["partitions_processed"]) == (partitions, partitions)
    assert [msgspec.json.decode(line) for line in out.read_text().splitlines()] == [partitions]
    assert depth.succeeded == partitions + 1, "each partition ends once, and the reduction does"
    assert (depth.failed, depth.queued) == (0, 0)
    assert words.count("reducing") == kills + 1
    assert words.count("reduced") == 1
    assert monotone([now.done for now in seen])
    assert monotone([now.items for now in seen])
    assert (seen[-1].state, seen[-1].ratio) == (State.SUCCEEDED, 1.0)


def monotone(values: Sequence[float]) -> bool:
    return list(values) == sorted(values)


async def test_f15_a_reducer_that_is_killed_reduces_once(tmp_path: Path, seed: int) -> None:
    await reduces(tmp_path, seed, partitions=1000, kills=2)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_f15_a_reducer_that_is_killed_ten_times_reduces_once(tmp_path: Path, seed: int) -> None:
    await reduces(tmp_path, seed, partitions=5000, kills=10)

"""A job that failed is resumed: what succeeded is not run again, and what is left is cut where it was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.errors import BadParameters, JobNotFound
from asyncworker.mapreduce.job import Partial, read
from asyncworker.mapreduce.planner import FIRST, GRAIN, sizes_of
from asyncworker.mapreduce.resume import resume
from asyncworker.mapreduce.sources.several import several
from asyncworker.queue.codec import Ids, pack, pack_call, unpack_record
from asyncworker.queue.job import Job, Op, Record, Settled, State, WorkerCard, child_id
from tests.support.mapreduce import Collect, Fleet

PATIENCE = 20.0


class Breaks(Collect):
    """Fails partitions that hold one of these items, until it is mended."""

    def __init__(self, *items: Any) -> None:
        super().__init__()
        self.broken = set(items)
        self.seen: list[Any] = []

    def map(self, item: Any) -> Any:
        self.seen.append(item)
        if item in self.broken:
            raise asyncio.CancelledError(f"{item} breaks")
        return item


async def two() -> int:
    return 2


async def mended(fleet: Fleet, job_id: str, source: Any = None) -> tuple[State, Record]:
    feeding = await resume(fleet.broker, job_id, fleet.find, source, openings=fleet.openings, ahead=two)
    assert feeding is not None
    async with fleet.working():
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([feeding])
        await asyncio.gather(feeding, return_exceptions=True)
        return await fleet.end(job_id)


def numbers(path: Path, count: int) -> str:
    path.write_text("".join(f"{number}\n" for number in range(count)))
    return str(path)


@pytest.mark.parametrize("size", [10, "auto"])
async def test_what_succeeded_is_not_run_again(tmp_path: Path, size: Any) -> None:
    breaks = Breaks(2 * FIRST + 1)
    fleet = Fleet(breaks=breaks)
    source = numbers(tmp_path / "rows.jsonl", 5 * FIRST)
    state, record = await fleet.run(source, "breaks", partition_size=size, partition_attempts=1)
    assert state is State.FAILED
    job_id = record.detail["partial"]["job_id"]
    parts = [child_id(job_id, part) for part in range(len(breaks.seen))]
    done = [
        read(Partial, unpack_record(found.record).value).items
        for found in await fleet.broker.find(parts)
        if found is not None and found.state is State.SUCCEEDED
    ]
    assert sum(done) >= record.detail["partial"]["total_processed"] > 0, (
        "what was under way then may have succeeded since"
    )
    breaks.broken.clear()
    breaks.seen.clear()
    state, record = await mended(fleet, job_id)
    assert state is State.SUCCEEDED
    assert record.value["final_result"]["items"] == list(range(5 * FIRST))
    assert record.value["total_processed"] == 5 * FIRST
    assert len(breaks.seen) == len({*breaks.seen}) == 5 * FIRST - sum(done)


async def test_a_table_that_was_cut_as_it_was_measured(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        await connection.execute("CREATE TABLE counted AS SELECT n AS id FROM generate_series(0, 4999) AS n")
    finally:
        await connection.close()

    class Rows(Breaks):
        def map(self, item: Any) -> Any:
            return super().map(item["id"])

    breaks = Rows(3 * GRAIN)
    fleet = Fleet(breaks=breaks)
    url = f"{postgres_dsn}?table=counted&key=id"
    state, record = await fleet.run(url, "breaks", partition_size="auto", partition_attempts=1)
    assert state is State.FAILED
    breaks.broken.clear()
    state, record = await mended(fleet, record.detail["partial"]["job_id"])
    assert (state, record.value["final_result"]["items"]) == (State.SUCCEEDED, list(range(5000)))


async def test_a_table_that_was_cut_by_its_pages(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        await connection.execute("CREATE TABLE paged AS SELECT n, repeat('x', 900) FROM generate_series(0, 2999) AS n")
    finally:
        await connection.close()

    class Rows(Breaks):
        def map(self, item: Any) -> Any:
            return super().map(item["n"])

    breaks = Rows(2500)
    fleet = Fleet(breaks=breaks)
    url = f"{postgres_dsn}?table=paged&key=ctid"
    state, record = await fleet.run(url, "breaks", partition_size="auto", partition_attempts=1)
    assert (state, record.detail["partial"]["total_processed"] > 0) == (State.FAILED, True)
    breaks.broken.clear()
    breaks.seen.clear()
    state, record = await mended(fleet, record.detail["partial"]["job_id"])
    assert (state, record.value["final_result"]["items"]) == (State.SUCCEEDED, list(range(3000)))
    assert 0 < len(breaks.seen) == len({*breaks.seen}) < 3000


async def test_ranges_of_a_file_that_has_changed_are_not_taken_for_what_they_were(tmp_path: Path) -> None:
    breaks = Breaks(25)
    fleet = Fleet(breaks=breaks)
    path = tmp_path / "rows.jsonl"
    job_id = await fleet.sealed(f"{numbers(path, 40)}?cut=bytes", "breaks", partition_attempts=1)
    async with fleet.working(queues={"default": 1}, concurrency=1):
        assert (await fleet.end(job_id))[0] is State.FAILED
    path.write_text(path.read_text().replace("7", "8"))
    state, record = await mended(fleet, job_id)
    assert (state, "not cut as it was" in record.error_text) == (State.FAILED, True)


@pytest.mark.parametrize("size", [10, "auto"])
async def test_several_sources_are_resumed_or_that_is_refused(tmp_path: Path, size: Any) -> None:
    breaks = Breaks(3500)
    fleet = Fleet(breaks=breaks)
    for part in range(2):
        lines = "".join(f"{n}\n" for n in range(2000 * part, 2000 * (part + 1)))
        (tmp_path / f"{part}.jsonl").write_text(lines)
    source = several(*(f"{tmp_path}/{part}.jsonl?cut=bytes" for part in range(2)))
    state, record = await fleet.run(source, "breaks", partition_size=size, partition_attempts=1)
    assert state is State.FAILED
    breaks.broken.clear()
    state, record = await mended(fleet, record.detail["partial"]["job_id"])
    if size == "auto" and state is State.FAILED:
        assert "submit the job again" in record.error_text
    else:
        assert (state, record.value["final_result"]["items"]) == (State.SUCCEEDED, list(range(4000)))


async def test_items_that_only_the_submitter_has_are_given_once_more() -> None:
    fleet = Fleet(breaks=Breaks(25))
    state, record = await fleet.run(range(40), "breaks", partition_attempts=1)
    assert state is State.FAILED
    job_id = record.detail["partial"]["job_id"]
    with pytest.raises(BadParameters, match="source="):
        await resume(fleet.broker, job_id, fleet.find, openings=fleet.openings, ahead=two)
    fleet.functions["breaks"].broken.clear()
    state, record = await mended(fleet, job_id, range(40))
    assert (state, record.value["final_result"]["items"]) == (State.SUCCEEDED, list(range(40)))


async def test_a_job_whose_submitter_died_goes_on_where_it_was() -> None:
    fleet, go_on = Fleet(), asyncio.Event()

    async def items() -> Any:
        for number in range(30):
            if number == 20:
                await go_on.wait()
            yield number

    async with fleet.working():
        job_id, feeding = await fleet.submit(items())
        await fleet.reached(job_id, done=1)
        (epoch,) = [epoch for epoch, card in (await fleet.broker.depth([])).workers.items() if card.role == "feeder"]
        await fleet.broker.reap(epoch, "", crashed=True)
        assert (await fleet.end(job_id))[0] is State.FAILED
        go_on.set()
        await feeding
    before = fleet.collect.mapped
    state, record = await mended(fleet, job_id, range(30))
    assert (state, record.value["final_result"]["items"]) == (State.SUCCEEDED, list(range(30)))
    assert fleet.collect.mapped <= 30 + 10
    assert before >= 10


@pytest.mark.parametrize("attempts", [1, 4])
async def test_partitions_are_tried_as_often_as_was_asked_for_also_when_they_are_resumed(
    tmp_path: Path, attempts: int
) -> None:
    fleet, path = Fleet(), tmp_path / "rows.jsonl"

    async def tried() -> int:
        """Return how often the partition is tried whose file has gone."""
        path.unlink()
        async with fleet.working():
            assert (await fleet.end(job_id))[0] is State.FAILED
        (found,) = await fleet.broker.find([child_id(job_id, 0)])
        assert found is not None
        return unpack_record(found.record).attempt

    job_id = await fleet.sealed(numbers(path, 5), partition_attempts=attempts)
    assert await tried() == attempts
    numbers(path, 5)
    feeding = await resume(fleet.broker, job_id, fleet.find, openings=fleet.openings, ahead=two)
    assert feeding is not None
    await feeding
    assert await tried() == attempts


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
async def test_auto_over_byte_ranges_and_row_groups_is_resumed(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        table = pyarrow.table({"n": list(range(5000))})
        pyarrow.parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=250)
    else:
        head = "n\n" if kind == "csv" else ""
        line = "{}\n" if kind == "csv" else '{{"n": {}}}\n'
        (tmp_path / f"rows.{kind}").write_text(head + "".join(line.format(n) for n in range(5000)))

    class Numbers(Breaks):
        def map(self, item: Any) -> Any:
            return super().map(int(item["n"]))

    breaks = Numbers(4000)
    fleet = Fleet(breaks=breaks)
    url = f"{tmp_path}/rows.{kind}{'' if kind == 'parquet' else '?cut=bytes'}"
    state, record = await fleet.run(url, "breaks", partition_size="auto", partition_attempts=1)
    assert state is State.FAILED
    done = record.detail["partial"]["total_processed"]
    breaks.broken.clear()
    breaks.seen.clear()
    state, record = await mended(fleet, record.detail["partial"]["job_id"])
    assert (state, record.value["final_result"]["items"]) == (State.SUCCEEDED, list(range(5000)))
    assert record.value["total_processed"] == 5000
    assert len(breaks.seen) == len({*breaks.seen}) <= 5000 - done


async def test_it_may_fail_again_and_be_resumed_again(tmp_path: Path) -> None:
    breaks = Breaks(5, 25)
    fleet = Fleet(breaks=breaks)
    state, record = await fleet.run(numbers(tmp_path / "rows.jsonl", 40), "breaks", partition_attempts=1)
    job_id = record.detail["partial"]["job_id"]
    breaks.broken.discard(5)
    state, record = await mended(fleet, job_id)
    assert state is State.FAILED
    breaks.broken.clear()
    state, record = await mended(fleet, job_id)
    assert (state, record.value["final_result"]["items"]) == (State.SUCCEEDED, list(range(40)))


@pytest.mark.parametrize("left", [15, 5])
async def test_a_source_that_has_changed_is_told_of(tmp_path: Path, left: int) -> None:
    breaks = Breaks(25)
    fleet = Fleet(breaks=breaks)
    source = numbers(tmp_path / "rows.jsonl", 35)
    job_id = await fleet.sealed(source, "breaks", partition_attempts=1)
    async with fleet.working(queues={"default": 1}, concurrency=1):
        assert (await fleet.end(job_id))[0] is State.FAILED
    numbers(tmp_path / "rows.jsonl", left)
    breaks.broken.clear()
    state, record = await mended(fleet, job_id)
    assert state is State.FAILED
    assert "submit the job again" in record.error_text


async def test_what_cannot_be_resumed_is_refused_and_what_need_not_be_is_left() -> None:
    fleet, new_id = Fleet(), Ids()

    async def none_left(job_id: str) -> asyncio.Task[None] | None:
        return await resume(fleet.broker, job_id, fleet.find, openings=fleet.openings, ahead=two)

    with pytest.raises(JobNotFound):
        await none_left(new_id())
    with pytest.raises(JobNotFound):
        await none_left("no id")
    running = await fleet.sealed([1])
    assert await none_left(running) is None
    await fleet.broker.cancel(running)
    with pytest.raises(BadParameters, match="for good"):
        await none_left(running)
    async with fleet.working():
        done = await fleet.sealed([1])
        await fleet.end(done)
    assert await none_left(done) is None
    card = WorkerCard("here", 1, ("q",), 1, 9.0, 0.0)
    epoch = await fleet.broker.join(card, lambda _: None)
    job = Job(new_id(), "q", pack_call("plain", (), {}))
    await fleet.broker.enqueue([job])
    await fleet.broker.step(epoch, (), {"q": 1}, 1)
    await fleet.broker.step(epoch, [Settled(job.id, Op.FAILED, "q", 60, pack(Record(task="plain")))], {}, 0)
    with pytest.raises(BadParameters, match="no map/reduce job"):
        await none_left(job.id)


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), max_size=20), st.sampled_from([1, GRAIN]))
def test_known_partitions_are_cut_where_they_were(parts: list[tuple[int, bool]], grain: int) -> None:
    def starts(sizes: list[int]) -> Iterator[tuple[int, int]]:
        at = 0
        for size in sizes:
            yield at, size
            at += size

    places = list(starts([grain * items for items, _ in parts]))
    known = {part: place for part, (place, (_, done)) in enumerate(zip(places, parts, strict=True)) if done}
    again = list(starts(sizes_of(known)))
    assert all(again[part] == place for part, place in known.items())
    assert len(again) == max(known, default=-1) + 1
    assert all(size > 0 for _, size in again)
    assert grain == 1 or all(size % GRAIN == 0 for _, size in again)

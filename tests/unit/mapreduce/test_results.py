from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from asyncworker.errors import SourceError
from asyncworker.mapreduce.results import ResultTable
from tests.support.datasets import connected, unique


def summary(job_id: str, **more: Any) -> Any:
    return {
        "job_id": job_id,
        "dataset_id": "dataset_001",
        "processing_function": "data_validation",
        "total_processed": 200,
        "success_rate": 99.5,
        "completed_at": 1_700_000_000.25,
        "final_result": {"é": [1, None]},
        **more,
    }


async def rows(dsn: str, job_id: str) -> list[Any]:
    async with connected(dsn) as connection:
        query = "SELECT *, extract(epoch FROM completed_at) AS at FROM distributed_processing_results WHERE job_id = $1"
        return await connection.fetch(query, job_id)


async def test_s10_a_reduce_that_is_run_again_leaves_one_row(each_postgres_dsn: str):
    job = unique("job")
    for total in (1, 200):
        table = ResultTable(f"{each_postgres_dsn}?dataset=x")
        await table.save(summary(job, total_processed=total))
        await table.close()
    (row,) = await rows(each_postgres_dsn, job)
    assert (row["dataset_id"], row["processing_function"]) == ("dataset_001", "data_validation")
    assert (row["total_processed"], row["success_rate"], float(row["at"])) == (200, 99.5, 1_700_000_000.25)
    assert msgspec.json.decode(row["result_data"])["final_result"] == {"é": [1, None]}


async def test_s10_many_at_once_make_one_table_and_a_row_each(each_postgres_dsn: str):
    async with connected(each_postgres_dsn) as connection:
        await connection.execute("DROP TABLE IF EXISTS distributed_processing_results")
    jobs = [unique("job") for _ in range(4)] * 2
    tables = [ResultTable(each_postgres_dsn) for _ in jobs]
    await asyncio.gather(*(table.save(summary(job)) for table, job in zip(tables, jobs, strict=True)))
    await asyncio.gather(*(table.close() for table in tables))
    assert [len(await rows(each_postgres_dsn, job)) for job in jobs] == [1] * 8


async def test_a_table_of_before_needs_a_job_id_and_says_how(postgres_dsn: str):
    async with connected(postgres_dsn) as connection:
        await connection.execute("""
            DROP TABLE IF EXISTS distributed_processing_results;
            CREATE TABLE distributed_processing_results (id serial, dataset_id varchar(99), processing_function text,
            result_data json, total_processed integer, success_rate numeric, completed_at timestamp);
            INSERT INTO distributed_processing_results (dataset_id) VALUES ('old')
        """)
    table = ResultTable(postgres_dsn)
    with pytest.raises(SourceError, match="has no job_id") as told:
        await table.save(summary("a"))
    async with connected(postgres_dsn) as connection:
        await connection.execute(str(told.value).partition("; ")[2])
    for _ in range(2):
        await table.save(summary("a"))
    await table.close()
    assert len(await rows(postgres_dsn, "a")) == 1

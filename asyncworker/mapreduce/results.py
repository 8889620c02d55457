"""The table of results: a row for each map/reduce job that ended, however often its end was run."""

from __future__ import annotations

import msgspec

from asyncworker.errors import SourceError
from asyncworker.mapreduce.database import Database, address
from asyncworker.mapreduce.job import Summary
from asyncworker.mapreduce.sources.source import Source

RESULTS = "distributed_processing_results"
COLUMNS = {
    "job_id": "text PRIMARY KEY",
    "dataset_id": "text",
    "processing_function": "text",
    "result_data": "jsonb",
    "total_processed": "bigint",
    "success_rate": "double precision",
    "completed_at": "timestamptz",
}
_SAVE = """
    INSERT INTO {table} (job_id, dataset_id, processing_function, result_data, total_processed, success_rate, completed_at)
    VALUES ($1, $2, $3, $4::jsonb, $5::int8, $6::float8, to_timestamp($7))
    ON CONFLICT (job_id) DO UPDATE SET dataset_id = EXCLUDED.dataset_id,
        processing_function = EXCLUDED.processing_function, result_data = EXCLUDED.result_data,
        total_processed = EXCLUDED.total_processed, success_rate = EXCLUDED.success_rate,
        completed_at = EXCLUDED.completed_at
"""


class ResultTable:
    """``distributed_processing_results`` in the database of a DSN (a source's URL is one); made where it is not there."""

    def __init__(self, dsn: str) -> None:
        self._database, self._own = Database(address(dsn)), True
        self.label = self._database.label

    def join(self, other: Source) -> bool:
        """Write through the connections of *other*, if it reads from the same server as the same user; returns whether it does."""
        shared = getattr(other, "database", None)
        if not (isinstance(shared, Database) and shared.dsn == self._database.dsn):
            return False
        self._database, self._own = shared, False
        return True

    async def save(self, summary: Summary) -> None:
        """Write a job's row, in place of an earlier one of the same job.

        Raises:
            SourceError: the database cannot be reached or written to, or has another table of this name.
        """
        table = await self._database.ensure(RESULTS, [f"{name} {kind}" for name, kind in COLUMNS.items()])
        if "job_id" not in table.types:
            raise SourceError(
                f"{self.label}: {table.name} has no job_id to know a job's row by; "
                f"ALTER TABLE {table.schema}.{table.name} ADD COLUMN job_id text UNIQUE"
            )
        async with self._database.transaction(write=True) as connection:
            await connection.execute(
                _SAVE.format(table=table),
                summary["job_id"],
                summary["dataset_id"],
                summary["processing_function"],
                msgspec.json.encode(summary),
                summary["total_processed"],
                summary["success_rate"],
                summary["completed_at"],
            )

    async def close(self) -> None:
        if self._own:
            await self._database.close()

"""Failed items on their way to where people look after them: as rows, with their errors, in the order of partitions.

A row has ``key error_type error_text item``. They are written whether the job succeeds or fails, and are there all
together or not at all. A partition sends its own ahead in chunks.
"""

from __future__ import annotations

from collections.abc import Sequence

from asyncworker.mapreduce.dataset import open_sink
from asyncworker.mapreduce.row import unpack_rows
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.codec import unpack

FIRST = 1_000_000
"""The number of the first chunk that holds rejected items."""
ROWS = 1000


async def write_rejects(broker: Broker, to: str, job_id: str, rejected: Sequence[tuple[str, int]]) -> str:
    """Write failed items; returns where they went, for people.

    Args:
        rejected: partitions by their job ids, and how many chunks each sent.

    Raises:
        SourceError: they cannot be written.
    """
    sink = open_sink(to, job_id=f"{job_id}-failed")
    try:
        for child, chunks in rejected:
            found = [await broker.wait([f"{child}:{number}"], 0) for number in range(FIRST, FIRST + chunks)]
            rows = unpack_rows(unpack(b"".join(chunk.record for (chunk,) in found if chunk)))
            for start in range(0, len(rows), ROWS):
                await sink.write(rows[start : start + ROWS])
        await sink.commit()
    except BaseException:
        await sink.abort()
        raise
    return sink.label

"""The shortest way through the whole house, in one process: a task, and a map/reduce job."""

from __future__ import annotations

from asyncworker import Engine


async def test_a_task_and_a_dataset_over_memory() -> None:
    engine = Engine("memory://")

    @engine.task()
    async def double(number: int) -> int:
        return 2 * number

    async with engine:
        jobs = await double.enqueue_many([(number,) for number in range(50)])
        assert [await job.result(timeout=10) for job in jobs] == [2 * number for number in range(50)]
        lines = [{"text": "how many at once"}, {"text": "many"}] * 10
        job = await engine.map_reduce(lines, "word_count", params={"field": "text"}, partition_size=6)
        summary = await job.result(timeout=20)
    assert summary["total_successful"] == 20
    assert "many" in str(summary["final_result"])

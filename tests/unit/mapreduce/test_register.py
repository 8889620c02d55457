from __future__ import annotations

from asyncworker import Engine
from asyncworker.daemon.views import Views
from asyncworker.errors import KeepError
from asyncworker.mapreduce.register import LOG, note, noted
from asyncworker.queue.codec import Ids
from asyncworker.queue.keeps.memory import open as open_memory
from tests.support.brokers import until


async def test_jobs_are_noted_youngest_first() -> None:
    keep = open_memory("memory://", namespace="x")
    ids = [Ids()() for _ in range(3)]
    for job_id in (*ids, ids[0]):
        await note(keep, job_id)
    await keep.append(LOG, [b"\xff", b"nobody"], 1000)  # another version's
    assert await noted(keep) == sorted(ids, reverse=True)


async def test_nobody_waits_for_a_keep_that_is_away() -> None:
    class Away:
        async def append(self, *_: object) -> None:
            raise KeepError("away")

    await note(None, "x")
    await note(Away(), "x")


async def test_runs_are_found_among_many_other_jobs(redis_url: str, namespace: str) -> None:
    async with Engine(redis_url, namespace=namespace) as engine:

        @engine.task(name="noop")
        async def noop(number: int) -> None: ...

        views = Views(engine)
        params = {"field": "text"}
        runs = [(await engine.map_reduce([{"text": "a"}], "word_count", params=params)).id for _ in range(3)]
        await noop.with_options(delay=100).enqueue_many([(number,) for number in range(4_500)])
        await engine.job(runs[0]).cancel()
        first = await views.runs(limit=2)
        rest = await views.runs(cursor=first.cursor)
        assert [of.id for of in first.runs + rest.runs] == runs[::-1]
        assert rest.cursor == ""

        async def over() -> bool:
            return [of.id for of in (await views.runs(["cancelled"])).runs] == runs[:1]

        await until(over)
        assert [of.id for of in (await views.runs(["queued"])).runs] == runs[:0:-1]
        for job_id in runs[1:]:
            await engine.job(job_id).cancel()

"""What a type checker tells those who use asyncworker: `mypy --strict` reads this file; nobody runs it.

An ignored error is an error that must stay one: mypy complains of an ignore that is not needed.
"""

from __future__ import annotations

from typing import Any, assert_type

from asyncworker import (
    AsyncBatchProcessor,
    Context,
    Engine,
    Flow,
    JobFailed,
    JobHandle,
    JobStatus,
    PerformanceProfiler,
    ResourcePool,
    Retry,
    TaskFailed,
    chain,
    group,
)

engine = Engine("redis://localhost:6379/0")


@engine.task(queue="io_intensive", timeout=30, max_attempts=5)
async def fetch(url: str, retries: int = 3) -> int:
    raise Retry(url, delay=retries)


@engine.task()
def shout(text: str) -> str:
    return text.upper()


@engine.task()
async def total(numbers: list[int], by: int = 1) -> float:
    return sum(numbers) / by


@engine.cron("*/5 * * * *", tz="Europe/Berlin")
async def report() -> None: ...


@engine.on_start
async def warm_up() -> None: ...


@engine.before_task
def look(ctx: Context) -> None: ...


@engine.on_failure
async def complain(ctx: Context, error: BaseException) -> None: ...


async def use() -> None:
    await warm_up()
    assert_type((await engine.drain()).succeeded, int)
    assert_type([end.error for end in engine.recent.failures], list[str])
    pages = group(fetch.bind(url) for url in "abc")
    assert_type(pages, Flow[list[int]])
    assert_type(pages.then(total, by=2), Flow[float])
    assert_type(chain(pages, total), Flow[float])
    assert_type(await (await (await pages.enqueue()).then(total)).result(), float)
    pages.then(total, by="2")  # type: ignore[arg-type]
    fetch.bind("a").then(total)  # type: ignore[arg-type]
    chain(fetch.bind("a"), total)  # type: ignore[misc]
    fetch.bind(1)  # type: ignore[arg-type]
    await (await fetch.enqueue("a")).then(total)  # type: ignore[arg-type]
    job = await fetch.enqueue("https://example.org", retries=1)
    assert_type(job, JobHandle[int])
    assert_type(await job.result(timeout=5), int)
    assert_type(await job.status(), JobStatus)
    assert_type(await job.cancel(), bool)
    assert_type(await fetch.enqueue_many([("a",), {"url": "b"}]), list[JobHandle[int]])
    assert_type(await fetch.with_options(delay=10, priority=9).enqueue("a"), JobHandle[int])
    assert_type(await (await shout.enqueue("a")).result(), str)
    assert_type(await report.enqueue(), JobHandle[None])
    assert_type(await engine.enqueue("fetch", "https://example.org"), JobHandle[Any])

    await fetch.enqueue(1)  # type: ignore[arg-type]
    await fetch.enqueue("a", retry=1)  # type: ignore[call-arg]
    await shout.enqueue()  # type: ignore[call-arg]


async def map_and_reduce() -> None:
    async with engine as opened:
        assert_type(opened, Engine)
        job = await opened.map_reduce("flights.csv", "data_validation", params={"validation_rules": {}})
        async for now in job.progress(every=1.0):
            assert_type(now.items, int)
        try:
            await job.result()
        except JobFailed as exc:
            assert_type(exc.partial, object)
        except TaskFailed as exc:
            assert_type(exc.job_id, str)


profiler = PerformanceProfiler()


@profiler.profile_async
async def charge(order: int, amount: float = 0.0) -> str:
    return f"{order} {amount}"


async def profile() -> None:
    with profiler as running:
        assert_type(running, PerformanceProfiler)
        assert_type(await charge(1, amount=2.5), str)
        await charge("a")  # type: ignore[arg-type]
    assert_type(profiler.speedscope(), bytes)


async def lengths(words: list[str]) -> list[int]:
    return [len(word) for word in words]


async def batches() -> None:
    async with AsyncBatchProcessor(lengths, max_batch_size=10) as processor:
        assert_type(await processor.add_item("a"), int)
        assert_type(await (await processor.submit("a")), int)
        await processor.add_item(1)  # type: ignore[arg-type]


async def length(word: str) -> int:
    return len(word)


async def pools() -> None:
    async with ResourcePool(1, 4, policy="levels") as pool:
        assert_type(await pool.run(length, "a"), int)
        assert_type(await pool.submit(length, word="a"), int)
        await pool.run(length, 1)  # type: ignore[arg-type]

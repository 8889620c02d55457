"""A worker that sleeps starts a job that is handed to it at once, and tells its end at once; else the fetcher has its turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncworker import Engine
from asyncworker.events import WorkerIdled
from asyncworker.queue.worker.fetcher import Fetcher

PATIENCE = 20.0


class Counted:
    """How many jobs went the short way in and out, and a worker that can be seen asleep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started = self.settled = 0
        self.asleep = asyncio.Event()
        hand, settle = Fetcher.hand, Fetcher.settle

        def handed(fetcher: Fetcher) -> bool:
            started = hand(fetcher)
            self.started += started
            return started

        def ended(fetcher: Fetcher) -> None:
            settle(fetcher)
            self.settled += fetcher._begun is not None

        monkeypatch.setattr(Fetcher, "hand", handed)
        monkeypatch.setattr(Fetcher, "settle", ended)

    def idled(self, event: WorkerIdled) -> None:
        (self.asleep.set if event.idle else self.asleep.clear)()

    async def sleeps(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.asleep.wait()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@pytest.fixture
async def engine(redis_url: str, namespace: str, counted: Counted) -> AsyncIterator[Engine]:
    async with Engine(redis_url, namespace=namespace) as engine:
        engine.bus.listen(WorkerIdled, counted.idled)
        yield engine


async def test_jobs_one_by_one_go_the_short_way(engine: Engine, counted: Counted) -> None:
    @engine.task()
    async def double(number: int) -> int:
        return 2 * number

    @engine.task(max_attempts=2, retry_backoff=0)
    async def fails() -> None:
        raise ValueError("no")

    work = asyncio.create_task(engine.run())
    async with asyncio.timeout(PATIENCE):
        for number in range(20):
            await counted.sleeps()
            assert await (await double.enqueue(number)).result() == 2 * number
        await counted.sleeps()
        job = await fails.enqueue()
        with pytest.raises(Exception, match="no"):
            await job.result()
        assert (await job.status()).attempt == 2
    assert counted.started >= 10
    assert counted.settled >= 10
    engine.stop()
    await work


async def test_what_comes_while_it_runs_runs_beside_it(engine: Engine, counted: Counted) -> None:
    first, second = asyncio.Event(), asyncio.Event()

    @engine.task()
    async def opens() -> None:
        first.set()
        await second.wait()

    @engine.task()
    async def follows() -> str:
        await first.wait()
        second.set()
        return "both"

    work = asyncio.create_task(engine.run())
    async with asyncio.timeout(PATIENCE):
        for _ in range(5):
            first.clear()
            second.clear()
            await counted.sleeps()
            job = await opens.enqueue()
            await first.wait()
            assert await (await follows.enqueue()).result() == "both"
            await job.result()
    engine.stop()
    await work


async def test_what_wakes_it_while_its_step_is_under_way_makes_it_look_again(
    engine: Engine, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, step = Fetcher.settle, Fetcher.step
    begun, again = asyncio.Event(), asyncio.Event()

    def ended(fetcher: Fetcher) -> None:
        settle(fetcher)
        if fetcher._begun is not None:
            begun.set()
            fetcher._wake.set()  # a message, perhaps, that the loop reads before the fetcher has its turn

    async def stepped(fetcher: Fetcher, *args: Any) -> Any:
        if begun.is_set() and (len(args) < 4 or args[3] is None):
            again.set()
        return await step(fetcher, *args)

    monkeypatch.setattr(Fetcher, "settle", ended)
    monkeypatch.setattr(Fetcher, "step", stepped)

    @engine.task()
    async def noop() -> None:
        pass

    work = asyncio.create_task(engine.run())
    async with asyncio.timeout(PATIENCE):
        while not begun.is_set():
            await counted.sleeps()
            await (await noop.enqueue()).result()
        await again.wait()
    engine.stop()
    await work


@pytest.mark.parametrize("now", [False, True])
async def test_who_stops_while_it_runs_loses_nothing(engine: Engine, counted: Counted, now: bool) -> None:
    runs, may_end = asyncio.Event(), asyncio.Event()

    @engine.task()
    async def waits() -> str:
        runs.set()
        await may_end.wait()
        return "done"

    async with asyncio.timeout(PATIENCE):
        work = asyncio.create_task(engine.run())
        await counted.sleeps()
        job = await waits.enqueue()
        await runs.wait()
        engine.stop(now=now)
        if not now:
            may_end.set()
        await work
        may_end.set()
        again = asyncio.create_task(engine.run(burst=True))
        assert await job.result() == "done"
        await again


async def test_a_worker_that_ends_with_a_step_under_way_settles_again(
    engine: Engine, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []
    settle = Fetcher.settle

    def ended(fetcher: Fetcher) -> None:
        settle(fetcher)
        if fetcher._begun is not None:
            begun.append(fetcher._begun)
            work.cancel()

    monkeypatch.setattr(Fetcher, "settle", ended)

    @engine.task()
    async def noop() -> str:
        return "done"

    async with asyncio.timeout(PATIENCE):
        work = asyncio.create_task(engine.run())
        await counted.sleeps()
        job = await noop.enqueue()
        await asyncio.wait([work])
        if not begun:
            pytest.fail("it did not go the short way")
        again = asyncio.create_task(engine.run(burst=True))
        assert await job.result() == "done"
        await again

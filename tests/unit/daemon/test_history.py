from __future__ import annotations

import asyncio

import pytest

from asyncworker.daemon.history import KEPT, History
from asyncworker.errors import BrokerDown
from asyncworker.queue.job import Depth, QueueDepth, WorkerCard
from tests.support.brokers import until
from tests.support.clock import FrozenClock

CARD = WorkerCard("here", 7, ("mail",), 3, 10.0, 0.0)


class Counts:
    """A broker's counts: *rate* more jobs each time."""

    def __init__(self, rate: int = 0) -> None:
        self.looks = self.enqueued = 0
        self.rate = rate
        self.away = False

    async def __call__(self) -> Depth:
        self.looks += 1
        if self.away:
            raise BrokerDown("away")
        self.enqueued += self.rate
        queues = {
            "mail": QueueDepth(queued=3, oldest_s=4.0, enqueued=self.enqueued, succeeded=self.enqueued // 2),
            "bulk": QueueDepth(queued=1, oldest_s=2.0, failed=self.enqueued),
        }
        return Depth(queues, 5, {"a": CARD, "b": WorkerCard("here", 8, (), 0, 10.0, 0.0, role="feeder")})


async def test_rates_are_of_the_last_ten_seconds() -> None:
    clock, counts = FrozenClock(), Counts(100)
    history = History(counts, clock)
    assert history.rates("mail", "enqueued") == 0
    for rate in (*[100] * 20, *[10] * 10):
        counts.rate = rate
        await history.sample()
        clock.advance(1.0)
    assert history.rates("mail", "enqueued") == pytest.approx(10)
    assert history.rates("mail", "enqueued", "succeeded") == pytest.approx(15)
    assert history.rates("nobody", "enqueued") == 0


async def test_charts_are_columns_of_one_length() -> None:
    clock, counts = FrozenClock(), Counts(4)
    history = History(counts, clock)
    for _ in range(KEPT + 50):
        await history.sample()
        clock.advance(1.0)
    series = history.series()
    columns = [getattr(series, name) for name in series.__struct_fields__]
    assert {len(column) for column in columns} == {KEPT - 1}
    assert set(series.in_per_s) == {4.0}
    assert set(series.succeeded_per_s) == {2.0}
    assert set(series.failed_per_s) == {4.0}
    assert (series.queued[-1], series.running[-1], series.workers[-1], series.oldest_s[-1]) == (4, 5, 1, 4.0)
    assert len(history.series(10.0).at_s) == 10


async def test_counts_that_begin_anew_are_no_rate_below_nothing() -> None:
    clock, counts = FrozenClock(), Counts(4)
    history = History(counts, clock)
    for _ in range(3):
        await history.sample()
        clock.advance(1.0)
    counts.enqueued = 0
    await history.sample()
    assert history.series().in_per_s[-1] == 0
    assert history.rates("mail", "enqueued") == 0


async def test_many_who_ask_at_once_cost_one_look() -> None:
    clock, counts = FrozenClock(), Counts()
    history = History(counts, clock)
    await asyncio.gather(*(history.fresh() for _ in range(50)))
    assert counts.looks == 1
    clock.advance(5.0)
    await history.fresh()
    assert counts.looks == 2


async def test_while_the_broker_is_away_there_are_no_samples(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asyncworker.daemon.history.EVERY_S", 0.001)
    counts = Counts()
    counts.away = True
    history = History(counts, FrozenClock())
    running = asyncio.create_task(history.run())

    async def looked() -> bool:
        return counts.looks > 3

    await until(looked)
    assert caplog.text.count("no counts from the broker") == 1
    with pytest.raises(BrokerDown):
        await history.fresh()
    counts.away = False

    async def seen() -> bool:
        return len(history.series().at_s) > 2

    await until(seen)
    running.cancel()
    await asyncio.wait([running])

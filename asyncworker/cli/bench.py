"""``asyncworker bench``: measures this installation, on the broker that is set.

One process is client and worker, one after the other but for the latency. ``bound`` is the same broker under a bare loop
that claims and settles and runs nothing: what is between it and us buys timeouts, retries, cancellation and checked arguments.
"""

from __future__ import annotations

import asyncio
import os
import platform
import random
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import msgspec

from asyncworker.cli.command import Call, command
from asyncworker.cli.line import count, duration
from asyncworker.cli.progress import bar
from asyncworker.cli.table import show_table
from asyncworker.engine import Engine
from asyncworker.queue.brokers.broker import Broker
from asyncworker.queue.brokers.embedded import EmbeddedBroker
from asyncworker.queue.codec import Ids, pack_call
from asyncworker.queue.job import Job, Op, Settled, WorkerCard
from asyncworker.queue.trial import Trial, namespace
from asyncworker.secret import mask_url

QUEUE = "bench"
JOBS = 20_000
ONE_BY_ONE = 2_000
ROUND_TRIPS = 300
A_STEP = 200
RESULT_S = 60
LEASE_S = 600.0
PAUSE_S = 0.005


class Figures(msgspec.Struct):
    """What was measured: jobs a second, seconds, commands that the server ran for one drained job (None: there is no server)."""

    one_by_one: float = 0.0
    bulk: float = 0.0
    drain: float = 0.0
    drain_results: float = 0.0
    bound: float = 0.0
    p50_s: float = 0.0
    p99_s: float = 0.0
    commands: float | None = None
    commands_results: float | None = None


PHASES = ("one by one", "in bulk", "drain", "drain with results", "the bound", "latency")


async def body(call: Call) -> None:
    """Measure this installation on your broker; without --broker on a server of our own.

    No-op jobs go into a queue of a namespace of its own, which is removed afterwards; who else uses the server is
    disturbed meanwhile, and counts. Jobs a second, but for the latency: from one enqueue to its result, by an idle worker.
    """
    url = call.settings.broker or "embedded://"
    jobs, concurrency = call.settings.jobs, call.settings.concurrency
    async with AsyncExitStack() as opened:
        engine = await opened.enter_async_context(_quiet(url))
        broker = engine.broker
        trial = None
        if url != "memory://":
            at = broker.url if isinstance(broker, EmbeddedBroker) else url
            trial = await opened.enter_async_context(Trial(at, engine.namespace, QUEUE))
        server = await trial.version() if trial else "this process"
        bench = Bench(engine, trial, jobs, concurrency)
        with _shown(call, f"{mask_url(url)}, {server}") as tell:
            async for done, phase in bench.run():
                tell(done, phase)
    _show(call, bench.figures, mask_url(url), server, jobs)


class Bench:
    """The phases, one after the other; ``figures`` grow meanwhile."""

    def __init__(self, engine: Engine, trial: Trial | None, jobs: int, concurrency: Any) -> None:
        self.figures = Figures()
        self._engine, self._trial, self._jobs, self._concurrency = engine, trial, jobs, concurrency
        self._began = 0.0
        self._noop = engine.task(name="noop", queue=QUEUE, result_ttl=0)(self._run)
        self._kept = engine.task(name="kept", queue=QUEUE, result_ttl=RESULT_S)(self._run)

    async def _run(self, number: int) -> int:
        self._began = self._began or time.perf_counter()
        return number

    async def run(self) -> AsyncIterator[tuple[int, str]]:
        """Run all phases; yields how many are done and what is next."""
        figures = self.figures
        await self._noop.enqueue_many([(0,)])  # connections, functions: not measured
        await self._drain(1)
        yield 0, PHASES[0]
        few = min(self._jobs, ONE_BY_ONE)
        began = time.perf_counter()
        for number in range(few):
            await self._noop.enqueue(number)
        figures.one_by_one = few / (time.perf_counter() - began)
        await self._drain(few)
        yield 1, PHASES[1]
        figures.bulk = await self._fill(self._noop)
        yield 2, PHASES[2]
        figures.drain, figures.commands = await self._drain(self._jobs)
        await self._fill(self._kept)
        yield 3, PHASES[3]
        figures.drain_results, figures.commands_results = await self._drain(self._jobs)
        yield 4, PHASES[4]
        figures.bound = await self._bound(self._engine.broker)
        yield 5, PHASES[5]
        figures.p50_s, figures.p99_s = await self._latency()
        yield 6, ""

    async def _fill(self, task: Any) -> float:
        calls = [(number,) for number in range(self._jobs)]
        began = time.perf_counter()
        await task.enqueue_many(calls)
        return self._jobs / (time.perf_counter() - began)

    async def _drain(self, jobs: int) -> tuple[float, float | None]:
        """Work until the queue is empty; returns jobs a second from the start of the first, and commands a job."""
        before = await self._trial.commands() if self._trial else 0
        self._began = 0.0
        await self._engine.run(concurrency=self._concurrency, burst=True)
        rate = jobs / (time.perf_counter() - self._began)
        return rate, (await self._trial.commands() - before) / jobs if self._trial else None

    async def _bound(self, broker: Broker) -> float:
        """Claim and settle as many jobs with nothing in between."""
        new_id, payload = Ids(), pack_call("noop", (1,), {})
        for start in range(0, self._jobs, 1000):
            await broker.enqueue([Job(new_id(), QUEUE, payload) for _ in range(min(1000, self._jobs - start))])
        card = WorkerCard("bench", os.getpid(), (QUEUE,), A_STEP, LEASE_S, time.time())
        epoch = await broker.join(card, lambda _: None)
        try:
            began = time.perf_counter()
            settled: list[Settled] = []
            while True:
                claimed = await broker.step(epoch, settled, {QUEUE: A_STEP}, A_STEP)
                settled = [Settled(one.id, Op.SUCCEEDED, QUEUE, plain=one.plain) for one in claimed.deliveries]
                if not settled:
                    return self._jobs / (time.perf_counter() - began)
        finally:
            await broker.reap(epoch, "", crashed=False)

    async def _latency(self) -> tuple[float, float]:
        """Ask an idle worker for one result after the other; returns the median, and what 1 of 100 exceeds."""
        working = asyncio.create_task(self._engine.run(concurrency=self._concurrency))
        try:
            took = []
            for number in range(-ROUND_TRIPS // 10, min(self._jobs, ROUND_TRIPS)):
                await asyncio.sleep(PAUSE_S * (1 + random.random()))
                began = time.perf_counter()
                await (await self._kept.enqueue(number)).result()
                if number >= 0:
                    took.append(time.perf_counter() - began)
        finally:
            self._engine.stop()
            await working
        cuts = statistics.quantiles(took, n=100, method="inclusive")
        return cuts[49], cuts[98]


@asynccontextmanager
async def _quiet(url: str) -> AsyncIterator[Engine]:
    """Open an engine in a namespace of its own; on ``memory://`` it works when told to, as on others."""
    engine = Engine(url, namespace=namespace(), queues=[QUEUE], lease=LEASE_S)
    engine.broker  # noqa: B018 - it is opened when first asked for; `async with` would begin to work on memory://
    try:
        yield engine
    finally:
        await engine.close()


@contextmanager
def _shown(call: Call, title: str) -> Iterator[Any]:
    """Give a function that shows how many phases are done, and which is next."""
    if not call.live:
        call.say(f"measuring {title}")
        yield lambda _done, _phase: None
        return
    progress = bar(call.err, colour=call.colour)
    row = progress.add_task(title, total=len(PHASES), words="")
    with progress:
        yield lambda done, phase: progress.update(row, completed=done, words=phase, refresh=True)


def _show(call: Call, figures: Figures, url: str, server: str, jobs: int) -> None:
    about = {
        "broker": url,
        "server": server,
        "jobs": jobs,
        "concurrency": call.settings.concurrency,
        "python": platform.python_version(),
        "processors": os.cpu_count(),
    }
    if call.settings.json:
        call.document({**about, "figures": figures})
        return
    rates = {
        "enqueue one by one": (figures.one_by_one, None),
        "enqueue in bulk": (figures.bulk, None),
        "drain, no results": (figures.drain, figures.commands),
        "drain, results stored": (figures.drain_results, figures.commands_results),
        "the bound: a bare loop": (figures.bound, None),
    }
    rows = [
        (
            name,
            count(rate),
            f"{rate / figures.bound:.0%}" if "drain" in name else "",
            "" if commands is None else f"{commands:.2g}",
        )
        for name, (rate, commands) in rates.items()
    ]
    show_table(call, ("", "jobs/s", "of the bound", "commands a job"), rows)
    call.show(f"\nfrom enqueue to result: {duration(figures.p50_s)} (median), {duration(figures.p99_s)} (p99)")
    call.show(", ".join(f"{name} {value}" for name, value in about.items()))


COMMAND = command(
    "bench",
    body,
    flags=("broker", "jobs", "concurrency", "json"),
    examples="""
  asyncworker bench
  asyncworker bench --broker redis://localhost:6379/0 --jobs 100000
  asyncworker bench --broker memory:// --json""",
)

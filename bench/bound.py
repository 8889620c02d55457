"""How fast can jobs go through the script at all, and what does the broker's Python cost on top?

Two clients of one private server, on a unix socket, one process each: ``script`` calls the functions of
``brokers/lua`` with arguments that a loop strings together, and looks at nothing that comes back; ``broker`` goes
through `RedisBroker` with its structs. Nobody runs a job: a batch that was claimed is settled with the next step.
So the first is the bound of any worker on this data model, and the difference is what our own code takes of it;
what worker and runner add, `bench/bench_queue.py` tells.

    python -m bench.bound                      # half a minute
    python -m bench.bound --jobs 200000 --rounds 5
    python -m bench.bound --json

Rates are medians of the rounds. ``client`` is this process' CPU, ``server`` what Redis says its functions took, each
in microseconds a job; ``script ms`` is what one call took in the server, during which nobody else is served: the
reason why a worker settles and claims no more than 200 at once (`MOST` in ``queue/worker/fetcher.py``).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from statistics import median
from typing import Any

import msgspec
import uvloop

from asyncworker.queue import server
from asyncworker.queue.body import pack_body
from asyncworker.queue.brokers.redis import TEXT, RedisBroker
from asyncworker.queue.codec import Ids, pack, pack_call
from asyncworker.queue.job import Job, Op, Record, Settled, WorkerCard
from asyncworker.queue.script import name_of
from asyncworker.queue.wire import Address, Wire

RECORD = pack(Record(task="noop", attempt=1, started_s=1.5, ended_s=2.5, value=1))
PAYLOAD = pack_call("noop", (1,), {})
LIBRARY = name_of(TEXT)
KEY = "{bound:0}:b"
PATIENCE_S = 60.0
new_id = Ids()


class Row(msgspec.Struct):
    """One measured way: jobs a second, and what a job costs."""

    what: str
    client: str
    batch: int
    per_s: float
    client_us: float
    server_us: float
    script_ms: float


def jobs(count: int) -> list[Job]:
    return [Job(new_id(), "io", PAYLOAD) for _ in range(count)]


class Script:
    """Calls the functions, and no more."""

    def __init__(self, url: str) -> None:
        self.wire = Wire(Address(url))
        self.seq = 0

    async def call(self, verb: str, *args: Any) -> Any:
        return await self.wire("FCALL", f"{LIBRARY}_{verb}", 1, KEY, 0, *args, timeout=PATIENCE_S)

    async def enqueue(self, batch: list[Job]) -> None:
        self.seq += 1
        words: list[Any] = []
        for job in batch:
            words += (job.id, pack_body(job))
        await self.call("enqueue", "lane", self.seq, "io", 5, len(batch), *words)

    async def drain(self, size: int, ttl_s: int) -> None:
        card = pack(WorkerCard("bound", 1, ("io",), size, 60.0, 0.0))
        await self.call("join", "epoch", card, 60_000)
        seq, held = 0, []
        while True:
            seq += 1
            run: list[Any] = []
            for job_id in held:
                run += (job_id, RECORD)
            settled = [1, "io", ttl_s, len(held), *run] if held else [0]
            answer = await self.call("step", "epoch", seq, size, 0, 0, 1, "io", size, 0, *settled)
            if not (held := answer[3]) and not run:
                return


class Broker:
    """Goes through the broker."""

    def __init__(self, url: str) -> None:
        self.broker = RedisBroker(url, namespace="bound")

    async def enqueue(self, batch: list[Job]) -> None:
        await self.broker.enqueue(batch)

    async def drain(self, size: int, ttl_s: int) -> None:
        epoch = await self.broker.join(WorkerCard("bound", 1, ("io",), size, 60.0, 0.0), lambda _: None)
        settled: list[Settled] = []
        while True:
            claimed = await self.broker.step(epoch, settled, {"io": size}, size)
            if not claimed.deliveries and not settled:
                return
            settled = [Settled(one.id, Op.SUCCEEDED, one.queue, ttl_s, RECORD, one.plain) for one in claimed.deliveries]


class Bench:
    """A server, and a stop-watch for three clocks."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.admin = Wire(Address(url))

    async def ask(self, *command: Any) -> Any:
        return await self.admin(*command, timeout=PATIENCE_S)

    async def timed(self, what: str, client: str, batch: int, count: int, work: Callable[[], Awaitable[None]]) -> Row:
        """Do the work, which handles *count* jobs, and return what it took."""
        await self.ask("CONFIG", "RESETSTAT")
        wall, cpu = time.perf_counter(), time.process_time()
        await work()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        lines = (await self.ask("INFO", "commandstats")).decode().splitlines()
        (stats,) = (line.partition(":")[2] for line in lines if line.startswith("cmdstat_fcall:"))
        said = dict(word.split("=") for word in stats.split(","))
        each = 1e6 / count
        return Row(
            what, client, batch, count / wall, cpu * each, int(said["usec"]) / count, float(said["usec_per_call"]) / 1e3
        )

    async def round(self, count: int, batches: list[int]) -> Iterator[Row]:
        rows: list[Row] = []
        broker = RedisBroker(self.url, namespace="warm")
        await broker.enqueue(jobs(1))  # loads the functions
        for name, make in (("script", Script), ("broker", Broker)):
            await self.ask("FLUSHALL")
            client = make(self.url)
            await client.enqueue(jobs(1))
            some = [[job] for job in jobs(count // 20)]
            rows.append(await self.timed("enqueue", name, 1, len(some), lambda: each(client.enqueue, some)))  # noqa: B023 - awaited at once
            for size in (100, 1000):
                many = jobs(count)
                parts = [many[start : start + size] for start in range(0, count, size)]
                rows.append(await self.timed("enqueue", name, size, count, lambda: each(client.enqueue, parts)))  # noqa: B023 - awaited at once
            for what, ttl_s in (("drain, no results", 0), ("drain, results", 3600)):
                for size in batches:
                    await self.ask("FLUSHALL")
                    client = make(self.url)
                    many = jobs(count)
                    for start in range(0, count, 1000):
                        await client.enqueue(many[start : start + 1000])
                    rows.append(await self.timed(what, name, size, count, lambda: client.drain(size, ttl_s)))  # noqa: B023 - awaited at once
        await broker.close()
        return iter(rows)


async def each(act: Callable[[list[Job]], Awaitable[None]], batches: list[list[Job]]) -> None:
    for batch in batches:
        await act(batch)


async def measure(args: argparse.Namespace) -> list[Row]:
    running = server.start()
    try:
        bench = Bench(running.url)
        rounds = [list(await bench.round(args.jobs, args.batch)) for _ in range(args.rounds)]
    finally:
        running.stop()
    return [
        Row(*(same[0].what, same[0].client, same[0].batch), *(median(values) for values in figures(same)))
        for same in zip(*rounds, strict=True)
    ]


def figures(rows: tuple[Row, ...]) -> Iterator[list[float]]:
    for name in ("per_s", "client_us", "server_us", "script_ms"):
        yield [getattr(row, name) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=40_000, help="jobs a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 20, 100, 200, 500], help="jobs a step")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = uvloop.run(measure(args))
    if args.json:
        print(json.dumps([msgspec.to_builtins(row) for row in rows], indent=2))
        return
    print(f"{'':18} {'':7} {'batch':>6} {'jobs/s':>9} {'client us':>10} {'server us':>10} {'script ms':>10}")
    for row in sorted(rows, key=lambda row: (row.what, row.batch, row.client), reverse=False):
        costs = f"{row.client_us:10.2f} {row.server_us:10.2f} {row.script_ms:10.3f}"
        print(f"{row.what:18} {row.client:7} {row.batch:6} {row.per_s:9,.0f} {costs}")


if __name__ == "__main__":
    main()

"""What does a busy API cost the worker beside it?

Null hypothesis: 200 requests a second at a daemon's API, listing, searching and looking at single jobs of 100,000 in
store, take 15 % or more of what its one worker drains.

    python -m bench.bench_api                                 # 5 rounds of 100,000 jobs; two minutes
    python -m bench.bench_api --stored 5000 --jobs 10000 --rounds 1

One `asyncworker daemon` with one worker process runs throughout, on a server that the bench starts. First the store is
filled: jobs that were run, and whose results are kept. In each round jobs are enqueued into a paused queue, and drained
twice, in an order that rotates: quietly, and while requests come at an even pace, whatever their answers take. A drain
counts from when the queue is resumed to when the broker has counted the last job, in steps of 20 ms. The client is this
process and costs about as much as the API itself: on few processors it takes from the worker, too, so processor time is
told beside the rates: the worker's a job, and that of supervisor and server a request (what they took beyond the quiet
drain of the same round).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import aiohttp
import psutil

from asyncworker import Engine
from asyncworker.task import Call
from bench import served
from bench.child import started
from bench.report import Machine, told
from bench.server import Server

QUEUE = "default"
PACE_S = 0.02
ASKED = 0.15
BATCH = 5_000
HOW = Call.of(served.engine.tasks["noop"].options)


@dataclass
class Drain:
    """One drain: jobs a second, and what it cost."""

    rate: float
    worker_us: float
    supervisor_s: float
    server_s: float
    requests: int
    errors: int
    p50_ms: float
    p99_ms: float


class Load:
    """Requests at an even pace, as long as the context is open."""

    def __init__(self, url: str, a_second: float, ids: Sequence[str]) -> None:
        self._url, self._every = f"{url}/api/v1", 1 / a_second
        self._ids = itertools.cycle(ids)
        self.times: list[float] = []
        self.errors = 0

    async def run(self, session: aiohttp.ClientSession) -> None:
        due = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for path in itertools.cycle(("list", "search", "detail")):
                group.create_task(self._ask(session, self._path(path)))
                due += self._every
                await asyncio.sleep(max(0.0, due - time.perf_counter()))

    def _path(self, kind: str) -> str:
        if kind == "list":
            return "/jobs?limit=50"
        if kind == "search":
            return f"/jobs?state=succeeded&task=noop&since={time.time() - 3600}&limit=20"
        return f"/jobs/{next(self._ids)}"

    async def _ask(self, session: aiohttp.ClientSession, path: str) -> None:
        began = time.perf_counter()
        async with session.get(self._url + path) as answer:
            await answer.read()
            self.errors += answer.status != 200
        self.times.append(time.perf_counter() - began)


class Bench:
    def __init__(self, server: Server, engine: Engine, url: str, pid: int) -> None:
        self._server, self._engine, self._url = server, engine, url
        self._supervisor = psutil.Process(pid)

    @property
    def _worker_s(self) -> float:
        return sum(_cpu(process) for process in self._supervisor.children(recursive=True))

    async def fill(self, stored: int) -> list[str]:
        """Run so many jobs, and return the ids of some."""
        ids = await self._enqueue(stored)
        await self._drained()
        return ids[:: max(1, len(ids) // 500)]

    async def drain(self, jobs: int, load: Load | None) -> Drain:
        admin = self._engine.admin
        await admin.pause(QUEUE)
        await self._enqueue(jobs)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:
            asking = None if load is None else asyncio.create_task(load.run(session))
            await asyncio.sleep(0.5)  # it has come to its pace
            worker, supervisor, server = self._worker_s, _cpu(self._supervisor), self._server.cpu_s
            known = len(load.times) if load else 0
            began = time.perf_counter()
            await admin.resume(QUEUE)
            await self._drained()
            seconds = time.perf_counter() - began
            spent = self._worker_s - worker, _cpu(self._supervisor) - supervisor, self._server.cpu_s - server
            if asking is not None:
                asking.cancel()
                await asyncio.wait([asking])
        times = sorted(load.times[known:]) if load else []
        return Drain(
            rate=jobs / seconds,
            worker_us=1e6 * spent[0] / jobs,
            supervisor_s=spent[1],
            server_s=spent[2],
            requests=len(times),
            errors=load.errors if load else 0,
            p50_ms=1e3 * median(times) if times else 0.0,
            p99_ms=1e3 * times[int(0.99 * len(times))] if times else 0.0,
        )

    async def _enqueue(self, jobs: int) -> list[str]:
        ids: list[str] = []
        for start in range(0, jobs, BATCH):
            calls = [((number,), {}) for number in range(start, min(start + BATCH, jobs))]
            ids += [handle.id for handle in await self._engine.calls.send("noop", calls, HOW)]
        return ids

    async def _drained(self) -> None:
        while True:
            depth = await self._engine.broker.depth([QUEUE])
            of = depth.queues[QUEUE]
            if of.succeeded >= of.enqueued:
                return
            await asyncio.sleep(PACE_S)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def measure(given: argparse.Namespace) -> list[tuple[Drain, Drain]]:
    rounds = []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with Server() as server, tempfile.TemporaryDirectory(prefix="bench-api-") as place:
        command = (sys.executable, "-m", "asyncworker", "daemon", "bench.served", "--broker", server.url)
        words = (*command, "--min-workers", "1", "--max-workers", "1", "--http", address)
        log = Path(place) / "log"
        async with started(words, {}, log) as daemon, Engine(server.url) as engine:
            async with asyncio.timeout(30):
                while not all(word in log.read_text() for word in (f"http://{address}", "tasks noop")):  # noqa: ASYNC110 - a log file
                    await asyncio.sleep(0.05)
            bench = Bench(server, engine, f"http://{address}", daemon.process.pid)
            ids = await bench.fill(given.stored)
            await bench.drain(given.jobs, None)  # the first is for warming up
            for number in range(given.rounds):
                kinds = [None, Load(bench._url, given.requests, ids)]
                order = kinds if number % 2 == 0 else kinds[::-1]
                done = {load is not None: await bench.drain(given.jobs, load) for load in order}
                rounds.append((done[False], done[True]))
                print(json.dumps([asdict(done[False]), asdict(done[True])]), file=sys.stderr)
    return rounds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--requests", type=float, default=200.0)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    machine = Machine()
    machine.probe()
    rounds = asyncio.run(measure(given))
    machine.probe()
    cost = [1 - loaded.rate / quiet.rate for quiet, loaded in rounds]
    more = [loaded.worker_us / quiet.worker_us - 1 for quiet, loaded in rounds]
    each = [
        (loaded.supervisor_s - quiet.supervisor_s, loaded.server_s - quiet.server_s, loaded.requests)
        for quiet, loaded in rounds
        if loaded.requests
    ]
    print(f"{given.stored:,} jobs in store; {given.requests:g} requests a second asked for\n")
    print("jobs a second, quiet       ", told([quiet.rate for quiet, _ in rounds]))
    print("jobs a second, loaded      ", told([loaded.rate for _, loaded in rounds]))
    print("what the load took         ", told([100 * share for share in cost], ".1f"), "%")
    print("worker, processor us a job ", told([quiet.worker_us for quiet, _ in rounds], ".1f"), "quiet")
    print("                           ", told([loaded.worker_us for _, loaded in rounds], ".1f"), "loaded")
    print("                           ", told([100 * share for share in more], "+.1f"), "%")
    print("supervisor, ms a request   ", told([1e3 * own / requests for own, _, requests in each], ".2f"))
    print("server, ms a request       ", told([1e3 * server / requests for _, server, requests in each], ".2f"))
    print("answers, ms p50            ", told([loaded.p50_ms for _, loaded in rounds], ".1f"))
    print("answers, ms p99            ", told([loaded.p99_ms for _, loaded in rounds], ".1f"))
    print("errors                     ", sum(loaded.errors for _, loaded in rounds))
    print(f"\n{machine}")
    holds = median(cost) < ASKED
    print(f"{'less' if holds else 'not less'} than {ASKED:.0%}, as was asked")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())

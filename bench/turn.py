"""One turn of one peer: enqueue one by one, enqueue in bulk, drain with one worker; everything ended afterwards."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.child import ChildError, started
from bench.environment import python
from bench.peers.roster import Peer
from bench.server import Server


@dataclass(frozen=True)
class Figures:
    """What one turn measured. Rates per second; CPU in microseconds a job; commands a job, polls not counted."""

    single: float
    bulk: float
    drain: float
    worker_us: float
    server_us: float
    commands: float
    start_s: float

    def plain(self) -> dict[str, Any]:
        return asdict(self)


async def turn(
    name: str, peer: Peer, server: Server, *, results: bool, jobs: int, single: int, concurrency: int, cap: float
) -> Figures:
    """Measure one peer once, from an empty server.

    Raises:
        ChildError: one of its processes died, or gave a wrong result. TimeoutError: the cap is over.
    """
    interpreter = await asyncio.to_thread(python, peer.module, peer.pins)
    with tempfile.TemporaryDirectory(prefix="bench-turn-") as home:
        marks, log = Path(home) / "marks", Path(home) / "log"
        command = [interpreter, "-m", f"bench.peers.{peer.module}"]
        env = {
            "BENCH_URL": server.url,
            "BENCH_RESULTS": str(int(results)),
            "BENCH_JOBS": str(jobs),
            "BENCH_CONCURRENCY": str(concurrency),
            "BENCH_VARIANT": peer.variant,
            "BENCH_MARKS": str(marks),
        }
        server.reset()
        async with asyncio.timeout(cap), started([*command, "client"], env, log, talks=True) as client:
            one = await client.ask(do="single", jobs=single)
            server.empty()
            many = await client.ask(do="bulk", jobs=jobs)
            if not (await client.ask(do="left"))["left"]:
                raise ChildError(f"{name}: nothing is left to do before the worker started")
            calls = server.commands
            await client.ask(do="left")
            a_poll = server.commands - calls - 1  # asking for the count is a command, too
            calls, cpu_s, clock = server.commands, server.cpu_s, time.monotonic()
            async with started([*command, "worker"], env, log) as worker:
                dying = asyncio.ensure_future(worker.died())
                waiting = asyncio.ensure_future(client.ask(do="wait"))
                try:
                    await asyncio.wait([dying, waiting], return_when=asyncio.FIRST_COMPLETED)
                    ended = (waiting if waiting.done() else dying).result()
                finally:
                    dying.cancel()
                    waiting.cancel()
                began = json.loads(marks.read_text().splitlines()[0])
                worker_s = sum(psutil.Process(began["pid"]).cpu_times()[:2]) - began["cpu_s"]
                server_s, commands = server.cpu_s - cpu_s, server.commands - calls - a_poll * ended["polls"]
                if results and (value := (await client.ask(do="value"))["value"]) != 1:
                    raise ChildError(f"{name}: the last result is {value!r}, not 1")
    return Figures(
        single=single / one["seconds"],
        bulk=jobs / many["seconds"],
        drain=jobs / (ended["at"] - began["at"]),
        worker_us=1e6 * worker_s / jobs,
        server_us=1e6 * server_s / jobs,
        commands=commands / jobs,
        start_s=began["at"] - clock,
    )

"""One turn of one peer: its client, its worker, what both did; everything ended afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.child import Child, ChildError, started
from bench.environment import python
from bench.peers.roster import Peer
from bench.server import Server


@dataclass(frozen=True)
class Figures:
    """What one turn measured. Rates per second; CPU in microseconds a job; commands a job, polls not counted;
    memory is the peak of all the worker's processes, added up, so pages they share count in each."""

    single: float
    bulk: float
    drain: float
    worker_us: float
    server_us: float
    commands: float
    start_s: float
    memory_mb: float

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Drained:
    """One worker process that emptied the queue. Seconds; CPU of all its processes from the first body on."""

    seconds: float
    start_s: float
    worker_s: float
    server_s: float
    commands: int
    memory_mb: float


@dataclass
class Stage:
    """One peer on an empty server: its client runs, its worker can be started."""

    name: str
    server: Server
    client: Child
    marks: Path
    _command: list[str]
    _env: dict[str, str]
    _log: Path

    def worker(self) -> AbstractAsyncContextManager[Child]:
        """Run one worker process while the block runs."""
        return started([*self._command, "worker"], self._env, self._log)

    async def ask(self, worker: Child, **what: Any) -> dict[str, Any]:
        """Ask the client for what needs the worker. Raises ChildError when that one dies first."""
        dying = asyncio.ensure_future(worker.died())
        answer = asyncio.ensure_future(self.client.ask(**what))
        try:
            await asyncio.wait([dying, answer], return_when=asyncio.FIRST_COMPLETED)
            return (answer if answer.done() else dying).result()
        finally:
            dying.cancel()
            answer.cancel()

    async def drained(self) -> Drained:
        """Start a worker and wait until nothing is left to do."""
        if not (await self.client.ask(do="left"))["left"]:
            raise ChildError(f"{self.name}: nothing is left to do before the worker started")
        calls = self.server.commands
        await self.client.ask(do="left")
        a_poll = self.server.commands - calls - 1  # asking for the count is a command, too
        calls, cpu_s, clock = self.server.commands, self.server.cpu_s, time.monotonic()
        async with self.worker() as worker:
            supervisors = asyncio.ensure_future(self._supervised(worker.process.pid))
            try:
                ended = await self.ask(worker, do="wait")
            finally:
                supervisors.cancel()
                before = (await asyncio.gather(supervisors, return_exceptions=True))[0]
            marks = [json.loads(line) for line in self.marks.read_text().splitlines()]
            # A process that ran bodies told its CPU itself when its first began; others were looked at then.
            before = dict(before) if isinstance(before, dict) else {}
            for mark in reversed(marks):
                before[mark["pid"]] = mark["cpu_s"]
            now = {process.pid: cpu for process, cpu in _cpu(worker.process.pid)}
            worker_s = sum(cpu - before.get(pid, cpu) for pid, cpu in now.items())
            memory_mb = sum(_peak_mb(pid) for pid in now)
            server_s, commands = self.server.cpu_s - cpu_s, self.server.commands - calls - a_poll * ended["polls"]
        began = min(mark["at"] for mark in marks)
        return Drained(ended["at"] - began, began - clock, worker_s, server_s, commands, memory_mb)

    async def _supervised(self, pid: int) -> dict[int, float]:
        """Return the CPU seconds of the worker's processes at about the start of the first body."""
        while not self.marks.exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
        return {process.pid: cpu for process, cpu in _cpu(pid)}


def _cpu(pid: int) -> list[tuple[psutil.Process, float]]:
    """Return each process of a family with its CPU seconds so far."""
    found = []
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append((process, sum(process.cpu_times()[:2])))
    return found


def _peak_mb(pid: int) -> float:
    """Return the most memory that a process ever had: VmHWM, or what it has now where there is no /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, IndexError):
        return float(psutil.Process(pid).memory_info().rss) / 2**20


@asynccontextmanager
async def staged(
    name: str, peer: Peer, server: Server, *, results: bool, jobs: int, concurrency: int, nap: float = 0
) -> AsyncIterator[Stage]:
    """Empty the server and run a peer's client while the block runs; *nap* is what each body sleeps, in seconds."""
    interpreter = await asyncio.to_thread(python, peer.module, peer.pins)
    with tempfile.TemporaryDirectory(prefix="bench-turn-") as home:
        marks, log = Path(home) / "marks", Path(home) / "log"
        command = [interpreter, "-m", f"bench.peers.{peer.module}"]
        env = {
            "BENCH_URL": server.url,
            "BENCH_RESULTS": str(int(results)),
            "BENCH_JOBS": str(jobs),
            "BENCH_CONCURRENCY": str(concurrency),
            "BENCH_NAP": str(nap),
            "BENCH_VARIANT": peer.variant,
            "BENCH_MARKS": str(marks),
            "PYTHONDONTWRITEBYTECODE": "",  # a worker that compiles all it imports is larger for good
        }
        server.reset()
        async with started([*command, "client"], env, log, talks=True) as client:
            yield Stage(name, server, client, marks, command, env, log)


async def turn(
    name: str, peer: Peer, server: Server, *, results: bool, jobs: int, single: int, concurrency: int, cap: float
) -> Figures:
    """Measure one peer once, from an empty server: enqueue one by one, enqueue in bulk, drain with one worker.

    Raises:
        ChildError: one of its processes died, or gave a wrong result. TimeoutError: the cap is over.
    """
    async with (
        asyncio.timeout(cap),
        staged(name, peer, server, results=results, jobs=jobs, concurrency=concurrency) as stage,
    ):
        one = await stage.client.ask(do="single", jobs=single)
        server.empty()
        many = await stage.client.ask(do="bulk", jobs=jobs)
        drained = await stage.drained()
        if results and (value := (await stage.client.ask(do="value"))["value"]) != 1:
            raise ChildError(f"{name}: the last result is {value!r}, not 1")
    return Figures(
        single=single / one["seconds"],
        bulk=jobs / many["seconds"],
        drain=jobs / drained.seconds,
        worker_us=1e6 * drained.worker_s / jobs,
        server_us=1e6 * drained.server_s / jobs,
        commands=drained.commands / jobs,
        start_s=drained.start_s,
        memory_mb=drained.memory_mb,
    )

"""A fleet of worker processes on a server of its own, and the faults that can be done to it, each by pid."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import TypeVar

import psutil

from asyncworker import Engine
from asyncworker.errors import BrokerDown
from asyncworker.queue.codec import Ids, pack_call
from asyncworker.queue.job import Ended, Job, Receipt, State
from tests.faults import ledger
from tests.faults.ledger import Fault, Story, Verdict, judge
from tests.faults.server import TAG, Server

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0
A_BATCH = 100


async def until(look: Callable[[], Awaitable[T]], patience: float = PATIENCE) -> T:
    """Look a hundred times a second until there is something to see, and return it: workers need the processor."""
    deadline = time.monotonic() + patience
    while not (seen := await look()):
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)
    return seen


class WorkerProcess:
    """``asyncworker worker tests.faults.app:engine``."""

    def __init__(self, url: str, folder: Path, options: Sequence[str]) -> None:
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "asyncworker", "worker", "tests.faults.app:engine", "--broker", url, *options],
                cwd=ROOT,
                env={**os.environ, "FAULTS_LEDGER": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self.process.pid

    def stop(self) -> None:
        """Stop it in its tracks, and return when it stands."""
        self.process.send_signal(signal.SIGSTOP)
        seen = psutil.Process(self.pid)
        while seen.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            time.sleep(0.001)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def leave(self, patience: float = PATIENCE) -> int:
        """Tell it to drain, and return its exit code."""
        self.process.terminate()
        return await self.left(patience)

    async def left(self, patience: float = PATIENCE) -> int:
        """Wait until it is over, and return its exit code."""

        async def over() -> bool:
            return self.process.poll() is not None

        await until(over, patience)
        return self.process.wait()


class Fleet:
    """Workers, a server, and an engine that asks for work; ``faults`` is what was done so far."""

    def __init__(self, server: Server, folder: Path, engine: Engine, seed: int, options: dict[str, str]) -> None:
        self.server = server
        self.folder = folder
        self.engine = engine
        self.random = random.Random(seed)
        self.seed = seed
        self.workers: list[WorkerProcess] = []
        self._started: list[WorkerProcess] = []
        self.faults: list[Fault] = []
        self.ids: list[str] = []
        self._began = time.monotonic()
        self._options = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]

    def start(self, count: int = 1) -> list[WorkerProcess]:
        """Start workers; see `joined` for when they are there."""
        new = [WorkerProcess(self.server.url, self.folder, self._options) for _ in range(count)]
        self.workers += new
        self._started += new
        return new

    async def joined(self, *workers: WorkerProcess) -> None:
        """Return when these workers (or all) are members of the fleet."""

        async def all_there() -> bool:
            there = set(self.server.epochs().values())
            for worker in workers or self.workers:
                assert worker.process.poll() is None, self.said
            return {worker.pid for worker in workers or self.workers} <= there

        await until(all_there, PATIENCE)

    @property
    def said(self) -> str:
        """The end of what the workers logged."""
        return (self.folder / "log").read_text("utf-8", "replace")[-5000:]

    @property
    def story(self) -> Story:
        return ledger.read(self.folder)

    async def seen(self, look: Callable[[Story], bool]) -> bool:
        return look(self.story)

    # --- asking ---------------------------------------------------------------------------------------------

    async def put(self, task: str, *calls: tuple[object, ...]) -> list[str]:
        """Enqueue calls however long that takes, and note the jobs as acknowledged."""
        jobs = [Job(new_id(), "default", pack_call(task, call, {})) for call in calls]
        while True:
            try:
                receipts = await self.engine.broker.enqueue(jobs)
            except BrokerDown:
                continue
            assert set(receipts) <= {Receipt.ACCEPTED, Receipt.KNOWN}
            self.ids += [job.id for job in jobs]
            return self.ids[-len(jobs) :]

    async def feed(
        self, jobs: int, seconds: tuple[float, float], *, allowed: Callable[[], float] = lambda: inf
    ) -> None:
        """Enqueue so many runs of ``work``, each of a time between *seconds*, as far as they are *allowed* by now."""
        for start in range(0, jobs, A_BATCH):

            async def its_turn(start: int = start) -> bool:
                return start < allowed()

            await until(its_turn, 10 * PATIENCE)
            await self.put("work", *((self.random.uniform(*seconds),) for _ in range(min(A_BATCH, jobs - start))))

    def count(self, letter: str) -> int:
        """Return one of the broker's own counters: n enqueued, s succeeded, f c e ended otherwise; 0 while it is away."""
        try:
            return int(self.server.client.hget(f"{TAG}c", f"default:{letter}") or 0)
        except (OSError, self.server.errors):
            return 0

    async def over(self, patience: float = PATIENCE) -> None:
        """Return when all acknowledged jobs have ended."""

        async def none_left() -> bool:
            return sum(map(self.count, "sfce")) >= len(self.ids)

        await until(none_left, patience)

    # --- faults ---------------------------------------------------------------------------------------------

    async def stop_one(self) -> tuple[WorkerProcess, Fault]:
        """Stop a worker at a moment when it holds work, and return what."""

        async def caught() -> tuple[WorkerProcess, Fault] | None:
            worker = self.random.choice(self.workers)
            worker.stop()
            self.server.client.ping()  # what it had sent before is done now
            fault = self.server.held(worker.pid)
            if fault.held:
                return worker, fault
            worker.go_on()
            return None

        worker, fault = await until(caught)
        self.faults.append(fault)
        return worker, fault

    async def kill_one(self) -> None:
        """Kill a worker while it holds work, and start another."""
        worker, _ = await self.stop_one()
        self.kill(worker.pid)
        self.start()

    def kill(self, pid: int) -> None:
        """Kill a worker of the fleet."""
        (worker,) = [worker for worker in self.workers if worker.pid == pid]
        worker.kill()
        self.workers.remove(worker)

    async def restart_server(self) -> None:
        """Kill the server between two commands, and start it again."""
        client = self.server.client
        client.execute_command("CLIENT", "PAUSE", "10000", "WRITE")  # so that nobody claims between look and kill
        fault = self.server.held()
        self.faults.append(Fault(fault.at, fault.held))
        self.server.kill()
        await asyncio.to_thread(self.server.start)

    def look(self) -> str:
        """Say where everything is, for whoever must find out what went wrong."""
        held = {pid: self.server.held(pid).held for pid in self.server.epochs().values()}
        counts = {letter: self.count(letter) for letter in "nsfcerdg"}
        ready = self.server.client.llen(f"{TAG}r:default:5")
        alive = [worker.pid for worker in self.workers if worker.process.poll() is None]
        return f"asked {len(self.ids)}, counted {counts}, ready {ready}, held {held}, alive {alive}"

    # --- judging --------------------------------------------------------------------------------------------

    async def judged(self, scenario: str) -> Verdict:
        """Look how each job ended, and judge."""
        completed = 0
        for start in range(0, len(self.ids), 1000):
            ends = await self.engine.broker.wait(self.ids[start : start + 1000], 0)
            completed += sum(isinstance(end, Ended) and end.state is State.SUCCEEDED for end in ends)
        assert self.count("n") == len(self.ids), "what was enqueued again was counted again"
        assert (self.count("s"), *map(self.count, "fce")) == (completed, 0, 0, 0), (
            "an end was counted twice, or is none"
        )
        elapsed = time.monotonic() - self._began
        return judge(scenario, self.seed, self.ids, self.story, self.faults, completed=completed, elapsed=elapsed)

    def close(self) -> None:
        for worker in self._started:
            worker.kill()


@asynccontextmanager
async def fleet(server: Server, seed: int, workers: int, **options: str) -> AsyncIterator[Fleet]:
    """Run a fleet; ``options`` are flags of ``asyncworker worker``. All workers have joined."""
    with tempfile.TemporaryDirectory(prefix="ledger-") as folder:
        async with Engine(server.url) as engine:
            running = Fleet(server, Path(folder), engine, seed, options)
            try:
                running.start(workers)
                await running.joined()
                yield running
            except BaseException:
                print(running.said, running.look())
                raise
            finally:
                running.close()


new_id = Ids()

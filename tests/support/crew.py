"""The crew of the conformance suite: worker processes over a Redis of their own, and what is done to them on the way."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from asyncworker import Engine
from tests.faults.server import server
from tests.support import servers
from tests.support.conformance import FOLDER, make

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 40.0
WORKERS = 4


async def until(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (seen := look()):
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)
    return seen


class Crew:
    """Worker processes; *folder* is theirs and ours (`tests.support.conformance`)."""

    def __init__(self, url: str, folder: Path, env: dict[str, str]) -> None:
        self.url = url
        self.folder = folder
        self.complete = False
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._env = env
        self._lives = ExitStack()

    def start(self, count: int = 1) -> None:
        command = [sys.executable, "-m", "asyncworker", "worker", "tests.support.conformance:make"]
        env = {**os.environ, **self._env, "ASYNCWORKER_BROKER": self.url, FOLDER: str(self.folder)}
        for _ in range(count):
            with (self.folder / "log").open("ab") as log:
                options = ["--lease", "1s", "--grace-period", "0s"]
                process = subprocess.Popen([*command, *options], cwd=ROOT, env=env, stdout=log, stderr=log)
            self.processes[process.pid] = process
            self._lives.enter_context(servers.long_lived(process.pid))

    def kill(self, pid: int) -> None:
        process = self.processes.pop(pid)
        process.kill()
        process.wait()

    def close(self) -> None:
        for pid in list(self.processes):
            self.kill(pid)
        self._lives.close()

    @contextmanager
    def told(self, name: str, text: str = "") -> Iterator[Path]:
        """Have a file of this name in the folder, for the workers to see."""
        path = self.folder / name
        path.write_text(text)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def crew(folder: Path, count: int = WORKERS, **env: str) -> Iterator[Crew]:
    with server() as redis:
        running = Crew(redis.url, folder, env)
        try:
            running.start(count)
            yield running
        finally:
            running.close()
            print((folder / "log").read_text("utf-8", "replace")[-3000:])


@asynccontextmanager
async def client(crew: Crew) -> AsyncIterator[Engine]:
    """Yield an engine that asks the crew, once all of it has joined; who takes a dead one's place may come later."""
    async with make(crew.url) as engine:
        async with asyncio.timeout(PATIENCE):
            while not crew.complete and len((await engine.broker.depth([])).workers) < len(crew.processes):
                await asyncio.sleep(0.02)
        crew.complete = True
        yield engine

"""What a peer's program is: a client that answers one JSON line with one JSON line, and a worker with one no-op task.

``python -m bench.peers.arq client`` and ``… worker`` run in the peer's own environment, so this page needs
nothing but the standard library. What a run is about comes in `Run`, through the environment.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

CHUNK = 20
"""How many single enqueues are gathered where a peer has no bulk call of its own."""


class Run:
    """What one run is about, as `bench/turn.py` says it."""

    def __init__(self) -> None:
        self.url = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")
        self.results = os.environ.get("BENCH_RESULTS") == "1"
        self.jobs = int(os.environ.get("BENCH_JOBS", "0"))
        self.concurrency = int(os.environ.get("BENCH_CONCURRENCY", "0"))
        self.nap = float(os.environ.get("BENCH_NAP", "0"))
        """Seconds that each body sleeps; 0 for a no-op."""
        self.variant = os.environ.get("BENCH_VARIANT", "")
        self.marks = Path(os.environ.get("BENCH_MARKS", os.devnull))


class Marks:
    """What the no-op leaves behind, from inside the worker: when its first and its last call began.

    ``if next(calls) in ends: mark()`` is all the body does (50 ns a call, the same for everyone; `itertools.count`
    is atomic, so threads may share it).
    """

    def __init__(self, run: Run) -> None:
        self.calls = itertools.count()
        self.ends = (0, run.jobs - 1)
        self._path = run.marks

    def mark(self) -> None:
        line = {"at": time.monotonic(), "pid": os.getpid(), "cpu_s": time.process_time()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class Client(Protocol):
    """Asks for jobs and watches them end, by the peer's own ways."""

    async def open(self) -> None: ...

    async def single(self, jobs: int) -> None:
        """Enqueue one by one, each awaited before the next."""
        ...

    async def bulk(self, jobs: int) -> None:
        """Enqueue in the best way the peer has."""
        ...

    async def gathered(self, jobs: int) -> None:
        """Enqueue by gathering the single call; where that call blocks, one by one."""
        ...

    async def once(self) -> Any:
        """Enqueue one job and return its result as soon as the peer can tell it."""
        ...

    async def fanned(self, jobs: int) -> Any:
        """Enqueue that many jobs, each of which returns 1, and return the sum of their results."""
        ...

    async def left(self) -> int:
        """Return how many jobs are not settled yet (or just not 0), at a price that does not depend on how many."""
        ...

    async def value(self) -> Any:
        """Return the result of the job that was enqueued last, read by the peer's own call."""
        ...

    async def close(self) -> None: ...


async def answer(client: Client, asked: dict[str, Any]) -> dict[str, Any]:
    """Do one thing that was asked for, timed."""
    match asked["do"]:
        case "single" | "bulk" | "gathered" as way:
            began, cpu = time.perf_counter(), time.process_time()
            await getattr(client, way)(asked["jobs"])
            return {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
        case "wait":
            polls = 1
            began = time.monotonic()
            while await client.left():
                # A poll may come late by its pause: half a percent of the time that it measures.
                await asyncio.sleep(min(max(0.005 * (time.monotonic() - began), 0.001), 0.02))
                polls += 1
            return {"at": time.monotonic(), "polls": polls}
        case "fanned":
            began = time.perf_counter()
            value = await client.fanned(asked["jobs"])
            return {"seconds": time.perf_counter() - began, "value": value}
        case "once":
            took, pauses = [], random.Random(1)
            for _ in range(asked["jobs"]):
                # The worker is idle again before the next, and no poll of its own keeps step with ours.
                await asyncio.sleep(pauses.uniform(0.005, 0.015))
                began = time.perf_counter()
                if (value := await client.once()) != 1:
                    raise ValueError(f"the result is {value!r}, not 1")
                took.append(time.perf_counter() - began)
            return {"seconds": took}
        case "left":
            return {"left": await client.left()}
        case "value":
            return {"value": await client.value()}
    raise ValueError(asked)


async def serve(client: Client) -> None:
    await client.open()
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await answer(client, json.loads(line))), flush=True)
    finally:
        await client.close()


def main(client: Callable[[], Client], worker: Callable[[], None]) -> None:
    """Be what the first argument says."""
    if sys.argv[1:] == ["worker"]:
        worker()
    elif sys.argv[1:] == ["client"]:
        try:
            import uvloop  # noqa: PLC0415 - a peer's environment may lack it
        except ImportError:
            asyncio.run(serve(client()))
        else:
            uvloop.run(serve(client()))
    else:
        sys.exit(f"usage: python -m bench.peers.{Path(sys.argv[0]).stem} client|worker")

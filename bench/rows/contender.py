"""One turn of one contender: ``python contender.py NAME DSN BROKER ROWS SIZE``; prints start-up, wall time and the answer.

Runs in the contender's own environment, from the repository's root. The clock of the wall time runs from the call to the
answer, with all processes up and warm.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.rows import rule

NAME, DSN, BROKER = sys.argv[1:4] if len(sys.argv) > 3 else ("", "", "")
ROWS, SIZE = (int(word) for word in sys.argv[4:6]) if len(sys.argv) > 5 else (0, 1)
PATIENCE = 60.0


def ranges() -> list[tuple[int, int]]:
    return [(first, min(first + SIZE, ROWS)) for first in range(0, ROWS, SIZE)]


def spent() -> float:
    """Return the processor time, in s, that this process and all that come from it have taken and still run."""
    parents, times = {}, {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            words = place.read_text().rpartition(")")[2].split()
            pid = int(place.parent.name)
            parents[pid], times[pid] = int(words[1]), (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    ours, found = {os.getpid()}, True
    while found:
        found = {pid for pid, parent in parents.items() if parent in ours} - ours
        ours |= found
    return sum(times.get(pid, 0.0) for pid in ours)


def timed(began: float, warm: Callable[[], object], work: Callable[[], int]) -> dict[str, Any]:
    warm()
    up, cpu = time.perf_counter(), spent()
    answer = work()
    wall = time.perf_counter() - up
    return {"startup": up - began, "wall": wall, "cpu": spent() - cpu, "answer": answer}


def sql(began: float, *, parallel: bool) -> dict[str, Any]:
    """Ask for one value, as one writes it; a driver that asks for one row alone gets no parallel plan of PostgreSQL."""

    async def count() -> int:
        rows = await connection.fetch(rule.QUERY) if parallel else [[await connection.fetchval(rule.QUERY)]]
        return int(rows[0][0])

    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(rule.connect(DSN))
    return timed(began, lambda: None, lambda: loop.run_until_complete(count()))


def plain_loop(began: float) -> dict[str, Any]:
    """The loop that somebody writes in five minutes: rows as text, json, the same rules."""

    async def count() -> int:
        text = rule.SELECT.replace("SELECT data", "SELECT data::text")
        valid = 0
        for first, last in ranges():
            valid += sum(rule.valid(json.loads(data)) for (data,) in await connection.fetch(text, first, last))
        return valid

    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(rule.connect(DSN))
    return timed(began, lambda: None, lambda: loop.run_until_complete(count()))


def pool(began: float) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(2) as workers:
        return timed(
            began,
            lambda: workers.starmap(rule.part, [(DSN, 0, 1)] * 8, chunksize=1),
            lambda: sum(workers.starmap(rule.part, [(DSN, *one) for one in ranges()], chunksize=1)),
        )


def ray(began: float) -> dict[str, Any]:
    import ray as engine  # noqa: PLC0415 - each contender has its own environment

    engine.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    task = engine.remote(rule.part)
    return timed(
        began,
        lambda: engine.get([task.remote(DSN, 0, 1) for _ in range(8)]),
        lambda: sum(engine.get([task.remote(DSN, *one) for one in ranges()])),
    )


def dask(began: float) -> dict[str, Any]:
    from distributed import Client, LocalCluster  # noqa: PLC0415 - each contender has its own environment

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:

        def run(some: list[tuple[int, int]]) -> int:
            return sum(client.gather([client.submit(rule.part, DSN, *one, pure=False) for one in some]))

        return timed(began, lambda: run([(0, 1)] * 8), lambda: run(ranges()))


def celery(began: float) -> dict[str, Any]:
    os.environ["ROWS_BROKER"] = BROKER
    command = [sys.executable, "-m", "celery", "-A", "bench.rows.celery_app", "worker", "-c", "2", "-l", "ERROR"]
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    from celery import chord  # noqa: PLC0415 - each contender has its own environment

    from bench.rows.celery_app import app, part, total  # noqa: PLC0415 - as above

    app.conf.update(broker_url=BROKER, result_backend=BROKER)

    def run(some: list[tuple[int, int]]) -> int:
        return int(chord([part.s(DSN, *one) for one in some])(total.s()).get(timeout=PATIENCE))

    try:
        return timed(began, lambda: run([(0, 1)] * 8), lambda: run(ranges()))
    finally:
        worker.terminate()
        worker.wait()


def ours(began: float, processes: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "asyncworker", "worker", "--broker", BROKER, "--log-level", "error"]
    workers = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(processes)]
    from asyncworker import Engine  # noqa: PLC0415 - each contender has its own environment

    async def run() -> dict[str, Any]:
        try:
            async with Engine(BROKER) as engine:
                while len((await engine.broker.depth([])).workers) < processes:  # noqa: ASYNC110 - nobody tells of it
                    await asyncio.sleep(0.01)
                warm = await engine.map_reduce(
                    f"{DSN}?dataset=few", "data_validation", params=rule.RULES, partition_size=1
                )
                await warm.result(PATIENCE)
                up, cpu = time.perf_counter(), spent()
                job = await engine.map_reduce(
                    f"{DSN}?dataset=rows", "data_validation", params=rule.RULES, partition_size=SIZE
                )
                summary: Any = await job.result(PATIENCE)
                wall, cpu = time.perf_counter() - up, spent() - cpu
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()
        return {"startup": up - began, "wall": wall, "cpu": cpu, "answer": summary["final_result"]["valid_count"]}

    return asyncio.run(run())


CONTENDERS: dict[str, Callable[[float], dict[str, Any]]] = {
    "asyncworker, 1 worker": lambda began: ours(began, 1),
    "asyncworker, 2 workers": lambda began: ours(began, 2),
    "one SQL query": lambda began: sql(began, parallel=False),
    "one SQL query, parallel plan": lambda began: sql(began, parallel=True),
    "asyncpg and json, a loop": plain_loop,
    "multiprocessing.Pool(2)": pool,
    "celery chord, prefork 2": celery,
    "dask futures, 2 processes": dask,
    "ray tasks, 2 processes": ray,
}

if __name__ == "__main__":
    print(json.dumps(CONTENDERS[NAME](time.perf_counter())), flush=True)

"""One plan, one result: in a plain loop, in this process, and over Redis with four worker processes, to the byte.

The same coroutines, the same items, the same injected failures. What is done to the processes, the jobs and the
database in between leaves no trace either.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import psutil
import pytest

from asyncworker import Engine
from asyncworker.errors import JobFailed, JobNotFound, ResultExpired
from asyncworker.queue.job import Job, Receipt, child_id
from tests.faults.server import server
from tests.support import servers
from tests.support.conformance import HOLD, compared, make, plain

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 40.0
WORKERS = 4
GROUPS = {"aggregation_config": {"group_by": ["c"], "aggregate_fields": {"v": ["sum", "avg", "max"]}}}
PLANS: dict[str, dict[str, Any]] = {
    "own": {"map": "weigh", "reduce": "Scales"},
    "own, in a tree": {"map": "weigh", "reduce": "Scales", "fan_in": 3},
    "own, by keys": {"map": "weigh", "reduce": "Letters"},
    "groups": {"function": "data_aggregation", "params": GROUPS},
    "groups, shared out": {"function": "data_aggregation", "params": GROUPS, "reducers": 4},
    "words": {"function": "word_count", "params": {"field": "c", "top": 7}, "fan_in": 2},
    "mapped": {"map": "weigh"},
}


def write(path: Path, count: int) -> str:
    """Write items of which some are no JSON, and some break the function."""
    draw = random.Random(count)
    with path.open("w") as file:
        for n in range(1, count + 1):
            if n % 101 == 0:
                file.write("{no json\n")
            else:
                row = {"n": n, "v": draw.uniform(-1, 1) * 10 ** draw.randrange(-12, 12), "c": f"c {n % 17}"}
                file.write(msgspec.json.encode(row).decode() + "\n")
    return str(path)


async def until(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (seen := look()):
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)
    return seen


class Crew:
    """Worker processes over a Redis of their own."""

    def __init__(self, url: str, folder: Path, env: dict[str, str]) -> None:
        self.url = url
        self.complete = False
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._folder, self._env = folder, env
        self._lives = ExitStack()

    def start(self, count: int = 1) -> None:
        command = [sys.executable, "-m", "asyncworker", "worker", "tests.support.conformance:make"]
        env = {**os.environ, **self._env, "ASYNCWORKER_BROKER": self.url}
        for _ in range(count):
            with (self._folder / "log").open("ab") as log:
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


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    with crew(tmp_path_factory.mktemp("fleet")) as running:
        yield running


@pytest.fixture
async def far(fleet: Crew) -> AsyncIterator[Engine]:
    async with client(fleet) as engine:
        yield engine


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("source") / "items.jsonl", 1200)


async def expected(source: str, plan: dict[str, Any], size: int = 50) -> bytes:
    engine = make()
    name = engine.functions.name(plan.get("function"), plan.get("map"), plan.get("reduce"))
    function, fan_in = engine.functions.find(name), plan.get("fan_in", 0)
    return compared(await plain(source, function, plan.get("params", {}), size, fan_in))


async def done(engine: Engine, source: str, plan: dict[str, Any], **options: Any) -> bytes:
    job = await engine.map_reduce(source, **({"partition_size": 50, "speculate": False} | plan | options))
    return compared(await job.result(timeout=PATIENCE))


@pytest.mark.parametrize("name", PLANS)
async def test_a_plan_comes_to_the_same_everywhere(far: Engine, source: str, name: str, tmp_path: Path) -> None:
    plan = PLANS[name]
    wanted = await expected(source, plan)
    assert len(wanted) > 300
    async with make() as alone:
        assert await done(alone, source, plan) == wanted
        assert await done(far, source, plan) == wanted
        written = []
        for engine in (alone, far):
            out = tmp_path / f"{len(written)}.jsonl"
            await done(engine, source, plan, to=str(out))
            written.append(out.read_bytes())
    assert written[0] == written[1] != b""


async def test_partitions_that_fail_for_good_fail_the_job_everywhere(far: Engine, source: str) -> None:
    told = []
    async with make() as alone:
        for engine in (alone, far):
            job = await engine.map_reduce(source, partition_size=50, **PLANS["own"], max_failures=4)
            with pytest.raises(JobFailed, match=r"partitions failed for good; partition .*more than 4 items failed"):
                await job.result(timeout=PATIENCE)
            job = await engine.map_reduce(source, partition_size=50, **PLANS["own"], max_failures=0.05)
            with pytest.raises(JobFailed) as caught:
                await job.result(timeout=PATIENCE)
            told.append((str(caught.value).replace(job.id, ""), compared(caught.value.partial)))
    assert told[0] == told[1]
    assert told[0][1] == await expected(source, PLANS["own"])


@pytest.mark.parametrize("name", ["own, in a tree", "own, by keys"])
async def test_f1_s12_workers_that_die_on_the_way_leave_no_trace(
    fleet: Crew, far: Engine, source: str, name: str
) -> None:
    plan = PLANS[name] | {"params": {"sleep": 0.1}} | ({"reducers": 4} if name == "own, by keys" else {})
    wanted = await expected(source, PLANS[name])
    job = await far.map_reduce(source, partition_size=50, **plan)
    deaths = [1, 8, 15]
    async for now in job.progress(every=0.02):
        if deaths and deaths[0] <= now.done:
            del deaths[0]
            fleet.kill(next(iter(fleet.processes)))
            fleet.start()
    assert deaths == []
    assert compared(await job.result(timeout=PATIENCE)) == wanted


async def reduces(fleet: Crew, far: Engine, source: str, folder: Path, kills: int) -> None:
    """Kill whoever reduces, again and again, and enqueue all there is of the job a second time meanwhile."""
    plan = PLANS["own"]
    marks, hold = folder / "marks", folder / HOLD
    hold.touch()
    params = {"folder": str(folder)}
    job = await far.map_reduce(source, partition_size=5, **plan, params=params)
    seen: list[int] = []

    async def look() -> None:
        seen.extend([now.done async for now in job.progress(every=0.05)])

    looking = asyncio.create_task(look())
    dead: set[int] = set()

    def finishing() -> set[int]:
        return {int(line.split()[1]) for line in _lines(marks)} - dead

    try:
        while len(dead) < kills:
            (pid,) = await until(finishing)
            fleet.kill(pid)
            dead.add(pid)
            fleet.start()
            again = [Job(name, "cpu_intensive", b"") for name in (child_id(job.id, 0), child_id(job.id, 7), job.id)]
            assert set(await far.broker.enqueue(again)) == {Receipt.KNOWN}
        hold.unlink()
        summary = await job.result(timeout=PATIENCE)
        await looking
    finally:
        looking.cancel()
    assert compared(summary) == await expected(source, plan, 5)
    words = [line.split()[0] for line in _lines(marks)]
    assert (words.count("finishing"), words.count("finished")) == (kills + 1, 1)
    assert seen == sorted(seen)
    assert seen[-1] == summary["partitions_processed"] == 240


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def test_f15_who_reduces_is_killed_and_jobs_are_enqueued_twice(
    fleet: Crew, far: Engine, source: str, tmp_path: Path
) -> None:
    await reduces(fleet, far, source, tmp_path, 2)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_f15_who_reduces_is_killed_ten_times(fleet: Crew, far: Engine, source: str, tmp_path: Path) -> None:
    await reduces(fleet, far, source, tmp_path, 10)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL of our own, for it is going to crash."""
    with contextmanager(servers.postgres)() as dsn:
        yield f"{dsn}postgres"


async def restarts(far: Engine, database: str, crashes: int) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE TABLE IF NOT EXISTS items (n bigint PRIMARY KEY, v double precision, c text)")
    rows = [(n, n * 1.1 ** (n % 300 - 150), f"c {n % 17}") for n in range(1, 801)]
    await connection.executemany("INSERT INTO items VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", rows)
    await connection.close()
    table = f"{database}?table=public.items&key=n"
    wanted = await expected(table, PLANS["own"], 20)
    job = await far.map_reduce(
        table, partition_size=20, **PLANS["own"], params={"sleep": 0.2}, database=database, speculate=False
    )
    await until(lambda: not far._own)  # it is sealed: from here on the workers are alone with the database
    looking = aiter(job.progress(every=0.05))
    for crash in range(crashes):
        async for now in looking:
            if now.done > crash or now.state.terminal:
                break
        connection = await _connected(database)
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        psutil.Process(connection.get_server_pid()).kill()  # PostgreSQL ends all its processes and recovers
        connection.terminate()
    summary = await job.result(timeout=PATIENCE)
    assert compared(summary) == wanted
    connection = await _connected(database)

    async def few_are_left() -> bool:
        """Whether no more connections are there than partitions at once: those of before a crash go when they are idle."""
        asked = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        return int(await connection.fetchval(asked)) <= 2 * WORKERS + 1

    async with asyncio.timeout(PATIENCE):
        while not await few_are_left():
            await asyncio.sleep(0.05)
    saved = await connection.fetch("SELECT result_data FROM distributed_processing_results WHERE job_id = $1", job.id)
    await connection.close()
    assert [msgspec.json.decode(row["result_data"])["final_result"] for row in saved] == [summary["final_result"]]


async def _connected(database: str) -> asyncpg.Connection:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await asyncpg.connect(database)
            except (OSError, asyncpg.PostgresError):  # it recovers
                await asyncio.sleep(0.05)


async def test_f8_the_database_crashes_on_the_way(far: Engine, database: str) -> None:
    await restarts(far, database, 2)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_f8_the_database_crashes_again_and_again(far: Engine, database: str) -> None:
    await restarts(far, database, 8)


async def test_f20_results_that_live_shorter_than_the_job(source: str, tmp_path: Path) -> None:
    plan = PLANS["own, in a tree"]
    with crew(tmp_path, 2, CONFORMANCE_TTL="1") as brief:
        async with client(brief) as engine, asyncio.timeout(PATIENCE):
            began = time.monotonic()
            job = await engine.map_reduce(source, partition_size=50, **plan, params={"sleep": 0.5})
            assert compared(await job.result()) == await expected(source, plan)
            assert time.monotonic() - began > 1, "or nothing was shown"
            while (await engine.broker.find([job.id]))[0] is not None:
                await asyncio.sleep(0.05)
            with pytest.raises((JobNotFound, ResultExpired)):
                await job.result()

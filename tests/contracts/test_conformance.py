"""One plan, one result: in a plain loop, in this process, and over Redis with four worker processes, to the byte.

The same coroutines, the same items, the same injected failures. What is done to the processes, the jobs and the
database in between leaves no trace either: in each run every plan meets one fault, another one in another run
(``CONFORMANCE_SEED=…`` plays one again); with ``--long`` every plan meets them all.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import msgspec
import psutil
import pytest

from asyncworker import Engine
from asyncworker.errors import JobFailed, JobNotFound, ResultExpired
from asyncworker.queue.job import Job, Receipt, State, child_id
from tests.support import servers
from tests.support.conformance import HOLD, MARKS, SLOW, compared, make, plain
from tests.support.crew import PATIENCE, WORKERS, Crew, client, crew, until

GROUPS = {"aggregation_config": {"group_by": ["c"], "aggregate_fields": {"v": ["sum", "avg", "max"]}}}
PLANS: dict[str, dict[str, Any]] = {
    "own": {"map": "weigh", "reduce": "Scales"},
    "own, in a tree": {"map": "weigh", "reduce": "Scales", "fan_in": 3},
    "own, by keys": {"map": "weigh", "reduce": "Letters", "reducers": 4},
    "groups": {"function": "data_aggregation", "params": GROUPS},
    "groups, shared out": {"function": "data_aggregation", "params": GROUPS, "reducers": 4},
    "words": {"function": "word_count", "params": {"field": "c", "top": 7}, "fan_in": 2},
    "words, shared out": {"function": "word_count", "params": {"field": "c", "top": 7}, "reducers": 3},
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


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    with crew(tmp_path_factory.mktemp("fleet")) as running:
        yield running


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Workers whose results are gone after a second."""
    with crew(tmp_path_factory.mktemp("brief"), 2, CONFORMANCE_TTL="1") as running:
        yield running


@pytest.fixture
async def far(fleet: Crew) -> AsyncIterator[Engine]:
    async with client(fleet) as engine:
        yield engine


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("source") / "items.jsonl", 1200)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL of our own, for it is going to crash."""
    with contextmanager(servers.postgres)() as dsn:
        yield f"{dsn}postgres"


class Stage(NamedTuple):
    """Whom faults meet."""

    fleet: Crew
    brief: Crew
    database: str


@pytest.fixture(scope="module")
def stage(fleet: Crew, brief: Crew, database: str) -> Stage:
    return Stage(fleet, brief, database)


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


async def test_s13_a_cancelled_job_frees_its_workers_at_once_and_leaves_others_alone(
    fleet: Crew, far: Engine, source: str
) -> None:
    plan = PLANS["groups"]
    with fleet.told(SLOW, "120"):  # far longer than anybody here waits
        job = await far.map_reduce(source, partition_size=50, speculate=False, **plan)
        async with asyncio.timeout(PATIENCE):
            while len(await far.broker.running(job.id)) < 2 * WORKERS:
                await asyncio.sleep(0.01)
            assert await job.cancel()
            since = time.monotonic()
            while await far.broker.running(job.id):
                await asyncio.sleep(0.005)
        print(f"free again after {time.monotonic() - since:.3f} s")
    assert await done(far, source, plan) == await expected(source, plan)
    assert (await job.status()).state is State.CANCELLED
    assert (await far.broker.depth(["cpu_intensive"])).queues["cpu_intensive"].queued == 0


# --- what is done to a job on its way --------------------------------------------------------------------------


async def workers_die(stage: Stage, far: Engine, source: str, plan: dict[str, Any]) -> None:
    """Kill workers while partitions are under way."""
    fleet = stage.fleet
    with fleet.told(SLOW, "0.06"):
        job = await far.map_reduce(source, partition_size=50, speculate=False, **plan)
        deaths = [1, 8, 15]
        async for now in job.progress(every=0.02):
            if deaths and deaths[0] <= now.done:
                del deaths[0]
                fleet.kill(next(iter(fleet.processes)))
                fleet.start()
        assert deaths == []
    assert compared(await job.result(timeout=PATIENCE)) == await expected(source, plan)


async def reducers_die(stage: Stage, far: Engine, source: str, plan: dict[str, Any], kills: int = 2) -> None:
    """Kill whoever has reduced, again and again, and enqueue all there is of the job a second time meanwhile."""
    fleet = stage.fleet
    seen: list[int] = []
    dead: list[int] = []
    with fleet.told(HOLD) as hold:
        job = await far.map_reduce(source, partition_size=5, speculate=False, **plan)

        def marks() -> list[list[str]]:
            path = fleet.folder / MARKS
            lines = path.read_text().splitlines() if path.exists() else []
            return [line.split()[1:] for line in lines if line.startswith(job.id)]

        async def look() -> None:
            seen.extend([now.done async for now in job.progress(every=0.05)])

        looking = asyncio.create_task(look())
        try:
            while len(dead) < kills:
                (pid,) = await until(lambda: {int(pid) for _, pid in marks()} - {*dead})
                fleet.kill(pid)
                dead.append(pid)
                fleet.start()
                again = [Job(name, "cpu_intensive", b"") for name in (child_id(job.id, 0), child_id(job.id, 7), job.id)]
                assert set(await far.broker.enqueue(again)) == {Receipt.KNOWN}
            hold.unlink()
            summary = await job.result(timeout=PATIENCE)
            await looking
        finally:
            looking.cancel()
    assert compared(summary) == await expected(source, plan, 5)
    words = [word for word, _ in marks()]
    assert (words.count("reduced"), words.count("done")) == (kills + 1, 1)
    assert seen == sorted(seen)
    assert seen[-1] == summary["partitions_processed"] == 240


async def database_crashes(stage: Stage, far: Engine, _: str, plan: dict[str, Any], crashes: int = 2) -> None:
    """End all sessions of the database that is read, and the database itself; what is written there is there once."""
    fleet, database = stage.fleet, stage.database
    connection = await asyncpg.connect(database, server_settings={"synchronous_commit": "on"})
    await connection.execute("CREATE TABLE IF NOT EXISTS items (n bigint PRIMARY KEY, v double precision, c text)")
    rows = [(n, n * 1.1 ** (n % 300 - 150), f"c {n % 17}") for n in range(1, 801)]
    await connection.executemany("INSERT INTO items VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", rows)
    await connection.close()
    table = f"{database}?table=public.items&key=n"
    wanted = await expected(table, plan, 20)
    with fleet.told(SLOW, "0.1"):
        job = await far.map_reduce(table, partition_size=20, **plan, database=database, speculate=False)
        await until(lambda: not far._own)  # it is sealed: from here on the workers are alone with the database
        looking = aiter(job.progress(every=0.02))
        for crash in range(crashes):
            async for now in looking:
                if now.done > crash or now.state.terminal:
                    break
            connection = await connected(database)
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            )
            psutil.Process(connection.get_server_pid()).kill()  # PostgreSQL ends all its processes and recovers
            connection.terminate()
        summary = await job.result(timeout=PATIENCE)
    connection = await connected(database)
    clients = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    most = await connection.fetchval(clients)
    saved = await connection.fetch("SELECT result_data FROM distributed_processing_results WHERE job_id = $1", job.id)
    async with asyncio.timeout(PATIENCE):
        while await connection.fetchval(clients) > 1:
            await asyncio.sleep(0.05)
    await connection.close()
    assert compared(summary) == wanted
    assert [msgspec.json.decode(row["result_data"])["final_result"] for row in saved] == [summary["final_result"]]
    assert most <= 2 * WORKERS + 1, "a connection for each partition at once, and ours"


async def connected(database: str) -> asyncpg.Connection:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await asyncpg.connect(database)
            except (OSError, asyncpg.PostgresError):  # it recovers
                await asyncio.sleep(0.05)


async def results_expire(stage: Stage, _: Engine, source: str, plan: dict[str, Any]) -> None:
    """Let results live for a shorter time than the job takes."""
    brief = stage.brief
    with brief.told(SLOW, "0.25"):
        async with client(brief) as engine, asyncio.timeout(PATIENCE):
            began = time.monotonic()
            job = await engine.map_reduce(source, partition_size=50, speculate=False, **plan)
            assert compared(await job.result()) == await expected(source, plan)
            assert time.monotonic() - began > 1, "or nothing was shown"
            while (await engine.broker.find([job.id]))[0] is not None:
                await asyncio.sleep(0.05)
            with pytest.raises((JobNotFound, ResultExpired)):
                await job.result()


FAULTS: dict[str, Callable[..., Any]] = {
    "F1": workers_die,
    "F8": database_crashes,
    "F15": reducers_die,
    "F20": results_expire,
}
DRAWN = int(os.environ.get("CONFORMANCE_SEED") or random.randrange(1_000_000))


@pytest.mark.parametrize("name", PLANS)
async def test_s12_f1_f8_f15_f20_a_fault_leaves_no_trace(stage: Stage, far: Engine, source: str, name: str) -> None:
    fault = list(FAULTS)[([*PLANS].index(name) + DRAWN) % len(FAULTS)]
    print(f"CONFORMANCE_SEED={DRAWN}: {fault}")
    await FAULTS[fault](stage, far, source, PLANS[name])


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_every_fault_leaves_no_trace_of_any_plan(
    stage: Stage, far: Engine, source: str, name: str, fault: str
) -> None:
    await FAULTS[fault](stage, far, source, PLANS[name])


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", [database_crashes, reducers_die])
async def test_f8_f15_again_and_again(stage: Stage, far: Engine, source: str, fault: Callable[..., Any]) -> None:
    await fault(stage, far, source, PLANS["own"], 8)

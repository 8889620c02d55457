"""Does a queue worker with ``--concurrency auto`` do as much work as with the best number one could have given it?

Null hypothesis: in at least one of three cases it does less than 90 % of what the best of 1, 2, 4 … 256 does.

    python -m bench.control.bench_worker_auto                        # 3 cases, 10 settings, 30 s each: a quarter of an hour
    python -m bench.control.bench_worker_auto --only cpu --levels 1,4,16 --seconds 15
    python -m bench.control.bench_worker_auto --small                # auto beside two numbers, 6 s each

Cases: ``sleepers`` wait for 10 ms; ``cpu`` computes for 5 ms in five slices, on the event loop; ``postgresql`` updates few
rows of a real database in a transaction, as pgbench does, so that more at once get into each other's way. Each setting has
a worker process of its own on one Redis, in which there are always jobs enough; settings take turns. What counts is the
last third of its time (10 of 30 s): jobs a second, and the 95th percentile of how long a job took. The best fixed
number is chosen after the fact, from noisy figures, so it is flattered. Ends with 1 where auto is below 90 % of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import asyncpg

from asyncworker import Engine
from bench.child import ChildError, started
from bench.control.worker_app import CONNECTIONS, ROWS
from bench.report import Machine, table
from bench.server import Server

LEVELS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
AHEAD = {"sleepers": 20_000, "cpu": 1_000, "postgresql": 10_000}
"""Jobs that wait, at least: more than is done between two looks."""
ENOUGH = 0.9
START_S = 30.0

Figures = dict[str, float]


@contextlib.asynccontextmanager
async def fed(url: str, case: str) -> AsyncIterator[None]:
    """Keep jobs waiting in the queue while the block runs."""

    async def feed() -> None:
        while True:
            depth = (await engine.broker.depth(["default"])).queues["default"].queued
            for _ in range(max(0, 2 * AHEAD[case] - depth) // 1000):
                await job.enqueue_many([()] * 1000)
            await asyncio.sleep(0.2)

    async with Engine(url) as engine:

        @engine.task(name=case, result_ttl=0)
        async def job() -> None: ...

        await job.enqueue_many([()] * AHEAD[case])
        feeding = asyncio.create_task(feed())
        try:
            yield
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])


async def turn(server: Server, case: str, setting: str, seconds: float, dsn: str) -> Figures:
    """Run one worker; returns its figures of the last third.

    Raises:
        ChildError: it ended early. TimeoutError: it did not end.
    """
    server.reset()
    with tempfile.TemporaryDirectory(prefix="bench-worker-") as home:
        notes, log = Path(home) / "notes", Path(home) / "log"
        env = {"BENCH_URL": server.url, "BENCH_SECONDS": str(seconds), "BENCH_NOTES": str(notes), "BENCH_DSN": dsn}
        command = [sys.executable, "-m", "asyncworker", "worker", "bench.control.worker_app:engine"]
        async with fed(server.url, case), started([*command, "--concurrency", setting], env, log) as worker:
            async with asyncio.timeout(seconds + START_S):
                await worker.process.wait()
            if not notes.exists():
                raise ChildError(worker.tail())
        return figures(json.loads(notes.read_text(encoding="utf-8")), seconds)


def figures(noted: dict[str, Any], seconds: float) -> Figures:
    """Return jobs a second, the 95th percentile in milliseconds, and the median limit that was set, of the last third."""
    since = seconds * 2 / 3
    took = [took for end, took in zip(noted["ends"], noted["took"], strict=True) if since <= end < seconds]
    late = [limit for at, limit in noted["limits"] if at >= since] or [limit for _, limit in noted["limits"][-1:]]
    if len(took) < 2:
        raise ChildError(f"{len(took)} jobs ended in the last third")
    return {
        "rate": len(took) / (seconds - since),
        "p95_ms": 1000 * quantiles(took, n=20)[-1],
        "limit": median(late) if late else 0,
    }


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Yield the DSN of the tests' PostgreSQL, with room for the most connections."""
    from tests.support import servers  # noqa: PLC0415 - wants pytest, which the other cases need not have

    with contextlib.contextmanager(servers.postgres)(CONNECTIONS + 20) as dsn:
        yield f"{dsn}postgres"


async def tables(dsn: str) -> None:
    """Make what the transactions work on, or make it as it was."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            f"""DROP TABLE IF EXISTS accounts, branches, history;
            CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL) WITH (fillfactor = 50);
            CREATE TABLE branches (id int PRIMARY KEY, balance int NOT NULL) WITH (fillfactor = 10);
            CREATE TABLE history (account int, branch int, amount int);
            INSERT INTO accounts SELECT id, 0 FROM generate_series(0, 999) id;
            INSERT INTO branches SELECT id, 0 FROM generate_series(0, {ROWS - 1}) id"""
        )
    finally:
        await connection.close()


async def measure(args: argparse.Namespace, server: Server, dsn: str, machine: Machine) -> dict[str, dict[str, Any]]:
    """Return case -> setting -> the medians of its rounds."""
    found: dict[str, dict[str, Any]] = {}
    for case in args.only:
        settings = ["auto", *map(str, args.levels)]
        rounds: dict[str, list[Figures]] = {setting: [] for setting in settings}
        for number in range(args.rounds):
            for setting in [*settings[number:], *settings[:number]]:
                machine.probe()
                if case == "postgresql":
                    await tables(dsn)
                rounds[setting].append(one := await turn(server, case, setting, args.seconds, dsn))
                print(f"{case:10} {setting:>4}  {one['rate']:>9,.1f} jobs/s", file=sys.stderr, flush=True)
        found[case] = {
            setting: {name: median(one[name] for one in of) for name in of[0]} for setting, of in rounds.items()
        }
    return found


def shares(of: dict[str, Figures]) -> dict[str, float]:
    """Return each setting's rate as a share of the best fixed one's."""
    best = max(figures["rate"] for setting, figures in of.items() if setting != "auto")
    return {setting: figures["rate"] / best for setting, figures in of.items()}


def report(found: dict[str, dict[str, Figures]], args: argparse.Namespace, machine: Machine, version: str) -> str:
    head = ("", "jobs/s", "of the best", "p95 ms", "limit")
    lines = [
        f"The last third of {args.seconds:g} s, medians of {args.rounds}; {version}.",
        f"{machine}.",
    ]
    for case, of in found.items():
        share = shares(of)
        rows = [
            (
                setting,
                f"{one['rate']:,.0f}",
                f"{share[setting]:.2f}",
                f"{one['p95_ms']:,.1f}",
                f"{one['limit']:g}" if setting == "auto" else setting,
            )
            for setting, one in of.items()
        ]
        met = "met   " if share["auto"] >= ENOUGH else "MISSED"
        lines += ["", case, table(head, rows), f"{met}  auto is at least {ENOUGH:.0%} of the best number"]
    return "\n".join(lines)


def arguments(typed: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(AHEAD), help="cases, with commas (default: all)")
    parser.add_argument("--levels", default=",".join(map(str, LEVELS)), help="fixed numbers beside auto")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="auto, 4 and 64 for 6 s each")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(typed)
    if args.small:
        args.levels, args.seconds, args.rounds = "4,64", 6.0, 1
    args.levels = [int(level) for level in args.levels.split(",")]
    args.only = args.only.split(",")
    if unknown := [case for case in args.only if case not in AHEAD]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(AHEAD)}")
    return args


async def run(args: argparse.Namespace) -> int:
    loop, whole = asyncio.get_running_loop(), asyncio.current_task()
    if whole is not None:
        loop.add_signal_handler(signal.SIGTERM, whole.cancel)
    machine = Machine()
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(Server())
        dsn = opened.enter_context(postgres()) if "postgresql" in args.only else ""
        found = await measure(args, server, dsn, machine)
        if args.json:
            print(json.dumps({"bench": "worker_auto", "seconds": args.seconds, "cases": found}, indent=2))
        else:
            print(report(found, args, machine, server.version))
    return 0 if all(shares(of)["auto"] >= ENOUGH for of in found.values()) else 1


def main() -> int:
    try:
        return asyncio.run(run(arguments()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted; all processes were ended", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""How long does it take to validate 200,000 JSON rows of a PostgreSQL table, in 20 partitions?

Null hypothesis: two of our workers take no less than the one SQL query, and no less than the best distributed peer.

    python -m bench.bench_mapreduce                     # 3 rounds, everybody; about three minutes
    python -m bench.bench_mapreduce --only asyncworker,SQL,loop --rounds 1
    python -m bench.bench_mapreduce --small             # 20,000 rows, one round, nothing is installed

Every contender applies the same rules to the same ranges of the same table; the peers run the same compiled function
with asyncpg and msgspec (`bench/rows/rule.py`), so that only the engines differ; ours runs the built-in
`data_validation`, which also counts by rule and field. The loop decodes text with json, as one writes it in five
minutes. Contenders take turns; each turn starts all of its processes anew. The wall time runs from the call to the
answer, which must be right; processor time is what all processes of the contender took in it, which says more than the
wall time where the machine is shared; start-up is all before that; memory is the highest sum of the proportional sets (PSS) of
the contender's processes, without PostgreSQL and Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager, suppress
from statistics import median
from typing import Any

import msgspec
import psutil

from bench.environment import ROOT, made, python
from bench.report import Machine, table, told
from bench.rows import rule
from bench.rows.contender import CONTENDERS
from bench.server import Server
from tests.support.servers import postgres

ROWS, PARTS = 200_000, 20
DRIVERS = ("asyncpg==0.32.0", "msgspec==0.22.0")
PINS = {
    "celery": ("celery[redis]==5.7.0", *DRIVERS),
    "dask": ("distributed==2026.8.0", *DRIVERS),
    "ray": ("ray==2.60.0", *DRIVERS),
}
PATIENCE = 180.0
LOOK_S = 0.05
FIGURES = {"wall": ".2f", "cpu": ".2f", "startup": ".1f", "peak": ",.0f"}
Answers = dict[str, dict[str, list[float]]]


def main(words: Sequence[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--rows", type=int, default=ROWS)
    options.add_argument("--only", default="", help="words of contenders' names, with commas")
    options.add_argument("--small", action="store_true", help="20,000 rows, one round, only who is installed")
    asked = options.parse_args(words)
    if asked.small:
        asked.rows, asked.rounds = min(asked.rows, 20_000), 1
    wanted = [word.strip() for word in asked.only.split(",")]
    names = [name for name in CONTENDERS if any(word in name for word in wanted)]
    if asked.small:
        names = [name for name in names if _peer(name) not in PINS or made(f"rows-{_peer(name)}", PINS[_peer(name)])]
    answers: Answers = {name: {figure: [] for figure in FIGURES} for name in names}
    machine, right = Machine(), sum(map(rule.valid, map(rule.row, range(asked.rows))))
    with ExitStack() as servers:
        dsn = f"{servers.enter_context(contextmanager(postgres)())}postgres"
        asyncio.run(fill(dsn, asked.rows))
        for number in range(asked.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                machine.probe()
                try:
                    answer = turn(name, dsn, asked.rows)
                except (RuntimeError, ValueError, subprocess.TimeoutExpired) as exc:
                    print(f"{name}: {exc}", file=sys.stderr)
                    continue
                if answer["answer"] != right:
                    print(f"{name}: {answer['answer']} is not the answer, which is {right}", file=sys.stderr)
                    continue
                for figure in FIGURES:
                    answers[name][figure].append(answer[figure])
    print(report(answers, asked.rows, right))
    print(f"{machine}.")
    return 0


async def fill(dsn: str, rows: int) -> None:
    """Make the table."""
    connection = await rule.connect(dsn)
    await connection.execute(
        "CREATE TABLE dataset_items (dataset_id text, item_index int8, data jsonb, PRIMARY KEY (dataset_id, item_index))"
    )
    await connection.copy_records_to_table(
        "dataset_items", records=(("rows", number, msgspec.json.encode(rule.row(number))) for number in range(rows))
    )
    await connection.execute("VACUUM ANALYZE dataset_items")
    await connection.close()


def turn(name: str, dsn: str, rows: int) -> dict[str, Any]:
    """Let a contender do it once, in processes of its own.

    Raises:
        RuntimeError: its environment could not be made. ValueError: it gave no answer.
    """
    peer = _peer(name)
    interpreter = python(f"rows-{peer}", PINS[peer]) if peer in PINS else sys.executable
    with Server() as server, tempfile.TemporaryFile() as log:
        words = [interpreter, "bench/rows/contender.py", name, dsn, server.url, str(rows), str(rows // PARTS)]
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=os.environ | {"ROWS_BROKER": server.url, "RAY_DEDUP_LOGS": "0"},
            start_new_session=True,
        )
        peak, over = [0], threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, peak, over))
        watch.start()
        try:
            out, _ = process.communicate(timeout=PATIENCE)
        finally:
            over.set()
            watch.join()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        log.seek(0)
        lines = out.decode().strip().splitlines()
        if process.returncode or not lines:
            raise ValueError(f"no answer: {log.read().decode(errors='replace')[-500:]}")
        return {**json.loads(lines[-1]), "peak": peak[0] / 2**20}


def _watch(pid: int, peak: list[int], over: threading.Event) -> None:
    """Keep the highest sum of what all processes of a contender hold."""
    while not over.wait(LOOK_S):
        total = 0
        with suppress(psutil.Error):
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                with suppress(psutil.Error):
                    total += process.memory_full_info().pss
        peak[0] = max(peak[0], total)


def _peer(name: str) -> str:
    return name.partition(" ")[0]


def report(answers: Answers, rows: int, right: int) -> str:
    """Return a table: medians and ranges, and how many times our two workers' wall time each one takes."""
    ours = median(answers.get("asyncworker, 2 workers", {}).get("wall") or [0.0])
    lines = []
    for name, figures in answers.items():
        wall = figures["wall"]
        ratio = f"{median(wall) / ours:.2f}" if ours and wall else "-"
        lines.append([name, *(told(figures[figure], form) for figure, form in FIGURES.items()), ratio])
    head = ("", "wall s", "processor s", "start-up s", "peak MB", "wall / our 2 workers'")
    return f"{rows:,} rows, {PARTS} partitions, {right:,} valid\n\n{table(head, lines)}\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

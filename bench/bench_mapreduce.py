"""How long does it take to validate 200,000 JSON rows of a PostgreSQL table, in 20 partitions?

Null hypothesis: two of our workers take no less than the one SQL query, and no less than the best distributed peer.

    python -m bench.bench_mapreduce                     # 3 rounds, everybody; about three minutes
    python -m bench.bench_mapreduce --only asyncworker,SQL,loop --rounds 1
    python -m bench.bench_mapreduce --small             # 20,000 rows, one round, nothing is installed
    python -m bench.bench_mapreduce --strict            # ends with 1 where a bar is missed

Every contender applies the same rules to the same ranges of the same table; the peers run the same compiled function
with asyncpg and msgspec (`bench/rows/rule.py`), so that only the engines differ; ours runs the built-in
`data_validation`, which also counts by rule and field. The loop decodes text with json, as one writes it in five
minutes. PostgreSQL runs the SQL query in one process where the driver asks for one value, as one writes it; what it does with
helpers of its own is shown beside it. Before the clock starts each peer has read a row in each process, ours eight rows of
another dataset in partitions of one: all are connected and warm, but for our submitter, which cuts the table in
the time that is measured, while the peers are given their ranges.

Contenders take turns; each turn starts all of its processes anew. A bar compares what was measured in the same round, and
its figure is the median over the rounds. The wall time runs from the call to the
answer, which must be right; processor time is what all processes of the contender took in it, which says more than the
wall time where the machine is shared; start-up is all before that; memory is the highest sum of the proportional sets (PSS) of
the contender's processes, without PostgreSQL and Redis, in a first round of its own, for to look at it takes a tenth of
a processor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
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
WARM = 8
"""Rows of a second dataset, by which our workers get warm."""
OURS, ALONE = "asyncworker, 2 workers", "asyncworker, 1 worker"
DISTRIBUTED = ("celery chord, prefork 2", "dask futures, 2 processes", "ray tasks, 2 processes")
FIGURES = {"wall": ".2f", "cpu": ".2f", "startup": ".1f", "peak": ",.0f"}
Answers = dict[str, dict[str, list[float]]]
"""By contender and figure, one number a round; NaN where there was none."""


def main(words: Sequence[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--rows", type=int, default=ROWS)
    options.add_argument("--only", default="", help="words of contenders' names, with commas")
    options.add_argument("--strict", action="store_true", help="end with 1 where a bar is missed")
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
        for number in range(1 + asked.rounds):
            looks = number == 0
            for name in names[number % len(names) :] + names[: number % len(names)]:
                machine.probe()
                answer = dict.fromkeys(FIGURES, math.nan)
                try:
                    found = turn(name, dsn, asked.rows, looks=looks)
                except (RuntimeError, ValueError, subprocess.TimeoutExpired) as exc:
                    print(f"{name}: {exc}", file=sys.stderr)
                else:
                    if found["answer"] == right:
                        answer |= {figure: found[figure] for figure in FIGURES if (figure == "peak") is looks}
                    else:
                        print(f"{name}: {found['answer']} is not the answer, which is {right}", file=sys.stderr)
                for figure in FIGURES:
                    answers[name][figure].append(answer[figure])
    print(report(answers, asked.rows, right))
    found = list(bars(answers))
    print("\n".join(line for line, _ in found))
    print(f"\n{machine}.")
    return 1 if asked.strict and not all(kept for _, kept in found) else 0


async def fill(dsn: str, rows: int) -> None:
    """Make the table."""
    connection = await rule.connect(dsn)
    await connection.execute(
        "CREATE TABLE dataset_items (dataset_id text, item_index int8, data jsonb, PRIMARY KEY (dataset_id, item_index))"
    )
    await connection.copy_records_to_table(
        "dataset_items", records=(("rows", number, msgspec.json.encode(rule.row(number))) for number in range(rows))
    )
    few = (("few", number, msgspec.json.encode(rule.row(number))) for number in range(WARM))
    await connection.copy_records_to_table("dataset_items", records=few)
    await connection.execute(
        "CHECKPOINT"
    )  # else its pages are too new to be told visible, which those of most tables are
    await connection.execute("VACUUM ANALYZE dataset_items")
    await connection.close()


def turn(name: str, dsn: str, rows: int, *, looks: bool) -> dict[str, Any]:
    """Let a contender do it once, in processes of its own; *looks*: at their memory.

    Raises:
        RuntimeError: its environment could not be made. ValueError: it gave no answer.
    """
    peer = _peer(name)
    interpreter = python(f"rows-{peer}", PINS[peer]) if peer in PINS else sys.executable
    environ = dict(os.environ)
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has been compiled before, and so is what is not
    with Server() as server, tempfile.TemporaryFile() as log:
        words = [interpreter, "bench/rows/contender.py", name, dsn, server.url, str(rows), str(rows // PARTS)]
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=environ | {"ROWS_BROKER": server.url, "RAY_DEDUP_LOGS": "0"},
            start_new_session=True,
        )
        peak, over = [0], threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, peak, over))
        if looks:
            watch.start()
        try:
            out, _ = process.communicate(timeout=PATIENCE)
        finally:
            over.set()
            if looks:
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
    lines = []
    for name, figures in answers.items():
        found = {figure: [value for value in figures[figure] if not math.isnan(value)] for figure in FIGURES}
        ratio = _ratio(answers, name, OURS)
        lines.append(
            [
                name,
                *(told(found[figure], form) for figure, form in FIGURES.items()),
                "-" if math.isnan(ratio) else f"{ratio:.2f}",
            ]
        )
    head = ("", "wall s", "processor s", "start-up s", "peak MB", "wall / our 2 workers'")
    return f"{rows:,} rows, {PARTS} partitions, {right:,} valid\n\n{table(head, lines)}\n"


def bars(answers: Answers) -> Iterator[tuple[str, bool]]:
    """Yield each bar that could be measured as a line, and whether it is kept."""
    asked = [
        ("one worker's wall time, of the loop's", _ratio(answers, ALONE, "asyncpg and json, a loop"), "at most", 0.85),
        ("two workers' wall time, of the SQL query's", _ratio(answers, OURS, "one SQL query"), "at most", 0.75),
        ("two workers' start-up, s", _median(answers, OURS, ("startup",)), "at most", 1.0),
    ]
    for name in DISTRIBUTED:
        asked.append((f"{name}: wall time, of ours", _ratio(answers, name, OURS), "at least", 1.3))
        both = _ratio(answers, name, OURS, ("startup", "wall"))
        asked.append((f"{name}: with start-up, of ours", both, "at least", 3.0))
        if not name.startswith("ray"):
            asked.append(
                (f"two workers' peak memory, of that of {name}", _ratio(answers, OURS, name, ("peak",)), "at most", 1.0)
            )
    for what, value, way, bound in asked:
        if not math.isnan(value):
            kept = value <= bound if way == "at most" else value >= bound
            yield f"{'PASS ' if kept else 'short'}  {value:5.2f}  {way:8} {bound:.2f}  {what}", kept


def _ratio(answers: Answers, name: str, other: str, figures: Sequence[str] = ("wall",)) -> float:
    """Return the median over the rounds of one contender's figures by those of another; NaN where there is none."""
    pairs = zip(_rounds(answers, name, figures), _rounds(answers, other, figures), strict=False)
    ratios = [one / two for one, two in pairs if not math.isnan(one + two)]
    return median(ratios) if ratios else math.nan


def _median(answers: Answers, name: str, figures: Sequence[str]) -> float:
    found = [value for value in _rounds(answers, name, figures) if not math.isnan(value)]
    return median(found) if found else math.nan


def _rounds(answers: Answers, name: str, figures: Sequence[str]) -> list[float]:
    """Return the sum of some figures, for each round."""
    of = answers.get(name)
    return [sum(values) for values in zip(*(of[figure] for figure in figures), strict=True)] if of else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

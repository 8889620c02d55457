"""What does mapping in one process cost an item, beside workers written by hand and what others offer?

Null hypothesis: `stream` costs more than twice what a hand-written set of workers over one iterator costs, or more
than a fifteenth of aiometer's; or its memory grows with the items. Ends with 1 where one of these is true.

    python -m bench.bench_map            # 3 rounds of 100,000 items, 100 at once, and one of 1,000,000; a minute
    python -m bench.bench_map --small    # a few seconds, nothing is installed, nothing is judged

Each way runs in a process of its own (`bench/maps.py`), in turn, round by round; a ratio compares a way with the
hand-written workers of the same round, in processor time, which other work on the machine disturbs least. Two
bodies: one that never suspends (where nothing is ever concurrent: the first worker eats the iterator) and one that
suspends once, which is the figure that counts. "more MB" is how much the peak of resident memory grew. Hand-written
workers keep the results in a list; the others hand them out. "map auto" has the number sought while it runs, from 4 on.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from typing import Any

from bench.control.experiment import Bar
from bench.environment import ROOT, made, python
from bench.maps import BODIES, WAYS
from bench.peers.roster import LOOP
from bench.report import Machine, spread, table, told

PINS = {"aiometer": ("aiometer==1.0.0", *LOOP)}
BY_HAND = next(iter(WAYS))
OURS = ("stream", "stream ordered")
MANY = 1_000_000
FLAT_MB = 1.0
Figures = dict[tuple[str, str], list[dict[str, float] | None]]


def measure(way: str, body: str, items: int, interpreter: str) -> dict[str, float] | None:
    """Run one way once; None when it fails, which is told."""
    command = [interpreter, "-m", "bench.maps", way, body, str(items)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        print(f"{way} failed: {done.stderr[-500:]}", file=sys.stderr)
        return None
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def interpreters(*, install: bool) -> dict[str, str]:
    """Return way -> interpreter; without *install*, only the ways that need nothing new."""
    found = {}
    for way in WAYS:
        pins = PINS.get(way, ())
        if not pins or install or made(way, pins):
            try:
                found[way] = python(way, pins)
            except RuntimeError as exc:
                print(f"{way} is left out: {exc}", file=sys.stderr)
    return found


def cells(figures: Figures, way: str, body: str) -> list[str]:
    runs, by_hand = figures[way, body], figures[BY_HAND, body]
    known = [run for run in runs if run]
    ratios = [run["cpu_us"] / hand["cpu_us"] for run, hand in zip(runs, by_hand, strict=True) if run and hand]
    more = f"{max(run['more_mb'] for run in known):.1f}" if known else "-"
    return [told([run["cpu_us"] for run in known], ".2f"), told(ratios, ".2f"), more]


def ratio(figures: Figures, way: str, other: str) -> float:
    """Return the median over the rounds of what items that suspend once cost, as a ratio; infinity where one failed."""
    pairs = zip(figures[way, "once"], figures.get((other, "once"), ()), strict=False)
    return statistics.median([one["cpu_us"] / two["cpu_us"] for one, two in pairs if one and two] or [math.inf])


def bars(figures: Figures, many: dict[str, dict[str, float] | None]) -> list[Bar]:
    found = []
    for way in OURS:
        found.append(Bar(f"{way} / {BY_HAND}, items that suspend once", ratio(figures, way, BY_HAND), 2.0, least=False))
        if ("aiometer", "once") in figures:
            found.append(Bar(f"{way} / aiometer, the same", ratio(figures, way, "aiometer"), 1 / 15, least=False))
        run = many[way]
        found.append(
            Bar(f"{way}: more MB over {MANY:,} items", run["more_mb"] if run else math.inf, FLAT_MB, least=False)
        )
    return found


def document(figures: Figures, items: int, machine: Machine, judged: list[Bar]) -> dict[str, Any]:
    ways: dict[str, Any] = {}
    for (way, body), runs in figures.items():
        known = [run for run in runs if run]
        ways.setdefault(way, {})[body] = {
            name: spread([run[name] for run in known]) for name in (known[0] if known else ())
        }
    met = [{"what": bar.what, "value": bar.value, "bound": bar.bound, "met": not bar.missed} for bar in judged]
    return {"bench": "map", "items": items, "by_hand": BY_HAND, "machine": machine.facts(), "ways": ways, "bars": met}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="2,000 items, one round, nothing is installed")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    args = parser.parse_args()
    items, rounds = (2_000, 1) if args.small else (args.items, args.rounds)
    ways, machine, figures = interpreters(install=not args.small), Machine(), Figures()
    for _ in range(rounds):
        for body in BODIES:
            for way, interpreter in ways.items():
                machine.probe()
                figures.setdefault((way, body), []).append(measure(way, body, items, interpreter))
    many = {} if args.small else {way: measure(way, "once", MANY, ways[way]) for way in OURS}
    judged = [] if args.small else bars(figures, many)
    if args.json:
        print(json.dumps(document(figures, items, machine, judged), indent=2))
    else:
        head = ("CPU us an item", "never suspends", "ratio", "more MB", "suspends once", "ratio", "more MB")
        rows = [[way, *(cell for body in BODIES for cell in cells(figures, way, body))] for way in ways]
        print(f"{items:,} items, 100 at once, {rounds} rounds; ratios are to {BY_HAND}, round by round.\n{machine}.\n")
        print(table(head, rows), "", *judged, sep="\n")
    return 0 if all(all(runs) for runs in figures.values()) and not any(bar.missed for bar in judged) else 1


if __name__ == "__main__":
    sys.exit(main())

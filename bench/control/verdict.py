"""The end of a bench with bars: its figures as a table or as JSON, which bars were met, and the exit code."""

from __future__ import annotations

import argparse
import json
import secrets
import time
from collections.abc import Callable

from bench.report import table

Figures = dict[str, dict[str, float]]
"""Rule -> what was measured of it."""


def main(
    doc: str | None, judge: Callable[[int, int], Figures], bars: Callable[[Figures], dict[str, bool]], draws: int
) -> int:
    """Judge as the command line says; returns 0 where each bar is met, else 1.

    Args:
        judge: gets a seed and how many draws; all parameters come from the seed, which is fresh unless given.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="to see the same draws again")
    parser.add_argument("--draws", type=int, default=draws, help=f"default: {draws}; the bars are meant for these")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    figures = judge(options.seed, options.draws)
    met = bars(figures)
    if options.json:
        print(json.dumps({"seed": options.seed, "draws": options.draws, "figures": figures, "bars": met}))
    else:
        head = list(dict.fromkeys(key for of in figures.values() for key in of))
        rows = [(name, *(f"{of[key]:.3f}" if key in of else "" for key in head)) for name, of in figures.items()]
        print(f"seed {options.seed}, {options.draws} draws, {time.perf_counter() - began:.0f} s")
        print(table(("rule", *head), rows))
        for bar, good in met.items():
            print(f"{'met   ' if good else 'MISSED'}  {bar}")
    return 0 if all(met.values()) else 1

"""What the experiments share: draws that nobody knows before, bars that can be missed, and how both are told.

A seed comes from the system, is printed, and gives all parameters; a policy sees the completions of its calls and
nothing else of the backend. `--seed` repeats a run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.control.rules import OURS, RULES
from bench.control.simulation import Judged
from bench.report import table

Figures = dict[str, list[float]]
"""A measure -> its value on each draw."""
Measure = Callable[[Callable[[], Judged], random.Random, int], dict[str, float]]
"""Judge a rule on one draw, whose number is given: a maker of rules, and the randomness of the draw."""


@dataclass(frozen=True)
class Bar:
    """A figure of ours, and what it must not miss."""

    what: str
    value: float
    bound: float
    least: bool = True

    @property
    def missed(self) -> bool:
        return not (self.value >= self.bound if self.least else self.value <= self.bound)

    def __str__(self) -> str:
        word = "MISSED" if self.missed else "met"
        return f"{word:6} {self.what}: {self.value:.3f} ({'at least' if self.least else 'at most'} {self.bound:.3f})"


def judge(measure: Measure, rule: str, seed: int, draws: int) -> Figures:
    """Judge one rule on all draws of a seed; another rule with this seed meets the very same backends."""
    figures: Figures = {}
    for draw in range(draws):
        make = partial(RULES[rule], random.Random(f"{seed} {draw} rule"))
        for name, value in measure(make, random.Random(f"{seed} {draw}"), draw).items():
            figures.setdefault(name, []).append(value)
    return figures


def judge_all(measure: Measure, rules: Sequence[str], seed: int, draws: int) -> dict[str, Figures]:
    """Judge some rules side by side, in two processes."""
    with ProcessPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        found = pool.map(partial(_judge, measure, seed, draws), rules)
        return dict(zip(rules, found, strict=True))


def _judge(measure: Measure, seed: int, draws: int, rule: str) -> Figures:
    return judge(measure, rule, seed, draws)


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def compared(results: dict[str, Figures], columns: dict[str, Callable[[Figures], float]]) -> str:
    """Return a table: a line a rule, ours first."""
    rows = [
        [f"{rule} (ours)" if rule == OURS else rule, *(f"{of(figures):.3f}" for of in columns.values())]
        for rule, figures in results.items()
    ]
    return table(["rule", *columns], rows)


def arguments(doc: str, draws: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=draws, help="backends to judge on")
    parser.add_argument("--seed", type=int, default=None, help="repeat a run; from the system if not given")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.add_argument("--ours", action="store_true", help="judge ours alone, without the bars beside others")
    asked = parser.parse_args()
    if asked.seed is None:
        asked.seed = int.from_bytes(os.urandom(4), "big")
    return asked


def tell(asked: argparse.Namespace, results: dict[str, Any], text: str, bars: Sequence[Bar]) -> None:
    """Print what came out, and exit with 1 if a bar was missed."""
    missed = [bar for bar in bars if bar.missed]
    if asked.json:
        told = [{"what": bar.what, "value": bar.value, "bound": bar.bound, "met": not bar.missed} for bar in bars]
        print(json.dumps({"seed": asked.seed, "draws": asked.draws, "results": results, "bars": told}))
    else:
        print(f"seed {asked.seed}, {asked.draws} draws\n\n{text}\n")
        print("\n".join(map(str, bars)))
    sys.exit(1 if missed else 0)

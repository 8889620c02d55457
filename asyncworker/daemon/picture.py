"""Pictures: numbers as what charts are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from asyncworker.daemon.answers import DecisionsSeen, Series

WIDTH, HEIGHT, EDGE = 800, 160, 8


class Steps(msgspec.Struct, frozen=True):
    """The sizes of one thing over time: an SVG path, what it spans, and what to call it."""

    path: str
    low: int
    high: int
    begin: float
    end: float
    label: str


def columns(series: Series, walls: Mapping[float, tuple[float | None, float | None]]) -> str:
    """Return a series as JSON columns, ``t`` first.

    Args:
        walls: median and 95th percentile of how long jobs take, by the moments at which somebody looked.
    """
    told = msgspec.to_builtins(series)
    times = told.pop("at_s")
    whole: dict[str, list[Any]] = {"t": [round(at, 1) for at in times]}
    whole |= {name: [_short(value) for value in values] for name, values in told.items()}
    for place, name in enumerate(("p50_s", "p95_s")):
        whole[name] = [walls[at][place] if at in walls else None for at in times]
    return msgspec.json.encode(whole).decode()


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def steps(thing: str, seen: DecisionsSeen, now_s: float) -> Steps | None:
    """Return how the size of *thing* went until now, where at least two decisions about it are known."""
    told = [one for one in reversed(seen.decisions) if one.name in {thing, f"task {thing}"}]
    if len(told) < 2:
        return None
    sizes = [told[0].old, *(one.new for one in told)]
    low, high, begin, end = min(sizes), max(sizes), told[0].at_s, now_s

    def x(at_s: float) -> float:
        return round(WIDTH * (at_s - begin) / max(end - begin, 1e-9), 1)

    def y(size: int) -> float:
        return round(HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (size - low) / max(high - low, 1), 1)

    path = f"M0 {y(sizes[0])}" + "".join(f"H{x(one.at_s)}V{y(one.new)}" for one in told) + f"H{WIDTH}"
    return Steps(path, low, high, begin, end, f"Size of {thing}: from {sizes[0]} to {sizes[-1]} in {len(told)} steps")

"""How figures are told: a median with its range, a table as plain text, and what the machine was doing meanwhile."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

import psutil


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, lowest and highest of at least one value."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def told(values: Sequence[float], form: str = ",.0f") -> str:
    """Return ``median [lowest-highest]``, or a dash where nothing was measured."""
    if not values:
        return "-"
    of = spread(values)
    return f"{of['median']:{form}} [{of['min']:{form}}-{of['max']:{form}}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as text: the first column to the left, numbers to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([text[0], "  ".join("-" * width for width in widths), *text[1:]])


class Machine:
    """What else the machine was doing: a fixed piece of work, timed now and then, and the CPU time others took.

    The spread of the probe is the noise that every other figure has too.
    """

    def __init__(self) -> None:
        self._times = psutil.cpu_times()
        self.probes: list[float] = []

    def probe(self) -> None:
        began = time.perf_counter()
        sum(number * number for number in range(1_000_000))
        self.probes.append((time.perf_counter() - began) * 1_000)

    def facts(self) -> dict[str, Any]:
        steal = getattr(psutil.cpu_times(), "steal", 0.0) - getattr(self._times, "steal", 0.0)
        return {
            "python": platform.python_version(),
            "platform": platform.platform(terse=True),
            "processors": os.cpu_count(),
            "load": psutil.getloadavg()[0],
            "steal_s": round(steal, 1),
            "probe_ms": spread(self.probes) if self.probes else None,
        }

    def __str__(self) -> str:
        facts = self.facts()
        return (
            f"Python {facts['python']}, {facts['platform']}, {facts['processors']} processors, load {facts['load']:.1f}, "
            f"steal {facts['steal_s']} s; a fixed loop took {told(self.probes)} ms (its range is the noise of all figures)"
        )

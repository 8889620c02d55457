"""Panels that tell why something has the size it has; on several dashboards, each for its own limiters."""

from __future__ import annotations

from typing import Any

from grafana.source.panel import note, series, table
from grafana.source.query import Query, gained, or_zero

PROBES = "probe|centre"
"""Causes of changes that only try what is nearby; most of all there are."""
UNDONE = "undone|a cliff at n"
"""Causes of changes that take back what did harm."""

DECISIONS = [
    note(
        name,
        colour,
        f"{gained('optimizer_decisions_total', 'limiter, reason', matcher, over='$__rate_interval')} > 0",
        "{{limiter}}",
        "{{reason}}",
    )
    for name, colour, matcher in (
        ("Decisions", "blue", f'reason!~"{PROBES}|{UNDONE}"'),
        ("Undone", "red", f'reason=~"{UNDONE}"'),
    )
]
"""Marks at each change of a size, with its reason; those that only try what is nearby are left out."""


def decided_by_reason(limiter: str, *, width: int = 12) -> dict[str, Any]:
    """Return the panel of decisions about what this matcher chooses, over time."""
    return series(
        "Decisions by reason",
        "Changes of a size, by what they were made because of; 'n' stands for numbers. `asyncworker explain` tells each.",
        "short",
        Query(
            or_zero(gained("optimizer_decisions_total", "reason", limiter, over="$__rate_interval")),
            "{{reason}}",
        ),
        stack=True,
        bars=True,
        width=width,
    )


def decided_table(limiter: str, *, width: int = 12) -> dict[str, Any]:
    """Return the table of decisions about what this matcher chooses, in the shown time."""
    return table(
        "What was decided, and why",
        "Changes in the shown time by what was sized and because of what; `asyncworker explain` tells each.",
        "short",
        or_zero(f"{gained('optimizer_decisions_total', 'limiter, reason', limiter)} > 0"),
        {"limiter": "what", "reason": "because"},
        value="changes",
        width=width,
    )

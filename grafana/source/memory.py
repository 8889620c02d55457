"""Memory: who takes it, and whether it becomes more and more."""

from __future__ import annotations

from grafana.source.panel import GREEN, ORANGE, RED, dashboard, row, series, stat, table
from grafana.source.query import Query, level, most, or_zero, pick, rate

MEMORY = "process_resident_memory_bytes"
GROWTH = f"deriv({pick(MEMORY)}[$__range])"
USED = f"{level('host_memory_used_bytes', '')} / {level('host_memory_bytes', '')}"

DASHBOARD = dashboard(
    "memory",
    "memory",
    "Who takes memory, and whether it becomes more and more.",
    [
        row("Is anything wrong?"),
        stat(
            "Leaks suspected",
            "Types whose objects become more and more; the workers' log and `asyncworker top` name them.",
            "short",
            or_zero(level("memory_leaks_suspected", "")),
            steps=((None, GREEN), (1, RED)),
        ),
        stat(
            "Fastest growth",
            "Bytes a second of the process that grew most in the shown time, the warm-up included.",
            "Bps",
            f"max({GROWTH})",
            steps=((None, GREEN), (10_000, ORANGE), (100_000, RED)),
        ),
        stat("Largest process", "Its memory.", "bytes", most(MEMORY, "")),
        stat("All processes", "Their memory together.", "bytes", level(MEMORY, "")),
        stat(
            "Machine",
            "Share of the memory that this fleet may use, whoever uses it.",
            "percentunit",
            USED,
            steps=((None, GREEN), (0.8, ORANGE), (0.95, RED)),
        ),
        stat("Objects", "That the garbage collectors knew at their last look.", "short", level("process_objects", "")),
        row("Processes"),
        series(
            "Memory by process",
            "Resident memory. A worker that is replaced begins anew.",
            "bytes",
            Query(level(MEMORY, "target"), "{{target}}"),
        ),
        table(
            "Growth in the shown time",
            "Bytes a second by process, as a straight line through the shown time.",
            "Bps",
            f"sum by (target) ({GROWTH})",
            {"target": "process"},
            value="growth",
        ),
        series(
            "Objects",
            "That the garbage collectors knew at their last look; more and more of them is a leak in Python.",
            "short",
            Query(level("process_objects", ""), "objects"),
        ),
        series(
            "Leaks suspected",
            "Types whose objects became more and more, at the last look.",
            "short",
            Query(or_zero(level("memory_leaks_suspected", "")), "types"),
            steps=((1, RED),),
        ),
        row("Machine"),
        series(
            "Memory of the machine",
            "What this fleet may use, what is in use by anybody, and what our processes use.",
            "bytes",
            Query(level("host_memory_bytes", ""), "there is"),
            Query(level("host_memory_used_bytes", ""), "in use"),
            Query(level(MEMORY, ""), "ours"),
        ),
        series(
            "Garbage collector",
            "Seconds a second in which it holds its process, summed up over processes.",
            "percentunit",
            Query(rate("gc_pause_seconds_total", ""), "held"),
        ),
    ],
)

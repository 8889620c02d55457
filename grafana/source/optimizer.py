"""How many at once: what was decided, because of what, and what came of it."""

from __future__ import annotations

from grafana.source.decisions import DECISIONS, PROBES, UNDONE, decided_by_reason, decided_table
from grafana.source.panel import GREEN, ORANGE, dashboard, heat, row, series, stat
from grafana.source.query import Query, chosen, gained, level, most, or_zero, quantile, rate

LIMITER = chosen("limiter")
LIMIT, IN_USE = level("concurrency_limit", "limiter", LIMITER), level("concurrency_inflight", "limiter", LIMITER)

DASHBOARD = dashboard(
    "optimizer",
    "optimizer decisions",
    "How many at once: what was decided, because of what, and what came of it.",
    [
        row("Is anything wrong?"),
        stat("Things sized", "Tasks, pools and whatever else has a size that is sought.", "short", f"count({LIMIT})"),
        stat(
            "Decisions",
            "Changes of a size in the shown time; not those that only try what is nearby.",
            "short",
            or_zero(gained("optimizer_decisions_total", "", LIMITER, f'reason!~"{PROBES}"')),
        ),
        stat(
            "Undone",
            "Changes in the shown time that took back what did harm.",
            "short",
            or_zero(gained("optimizer_decisions_total", "", LIMITER, f'reason=~"{UNDONE}"')),
            steps=((None, GREEN), (1, ORANGE)),
        ),
        stat(
            "Full",
            "Things that are used up to their limit: more would be done if more were allowed, or what is behind is slow.",
            "short",
            or_zero(f"count({IN_USE} >= {LIMIT} and {LIMIT} > 0)"),
        ),
        stat(
            "At one",
            "Things that were brought down to one at a time: what is behind them is in trouble.",
            "short",
            or_zero(f"count({LIMIT} <= 1 and {IN_USE} >= 1)"),
            steps=((None, GREEN), (1, ORANGE)),
        ),
        stat("Jobs that end", "Jobs a second: what all of this is for.", "ops", rate("jobs_total", "")),
        row("How many at once"),
        series(
            "Limit and use",
            "How many at once are allowed, and how many there are, over the whole fleet.",
            "short",
            Query(LIMIT, "{{limiter}}: limit"),
            Query(IN_USE, "{{limiter}}: in use"),
        ),
        series(
            "Share in use",
            "At 100 % the limit is what holds work back; far below, it is idle.",
            "percentunit",
            Query(f"{IN_USE} / ({LIMIT} > 0)", "{{limiter}}"),
            most=1,
        ),
        row("Why"),
        decided_by_reason(LIMITER),
        decided_table(LIMITER),
        series(
            "Decisions by what is sized",
            "Changes that only try what is nearby are counted as well: most of all there are.",
            "short",
            Query(
                or_zero(gained("optimizer_decisions_total", "limiter", LIMITER, over="$__rate_interval")), "{{limiter}}"
            ),
            stack=True,
            bars=True,
        ),
        series(
            "What came of it",
            "Jobs a second that ended, and how long 95 of 100 ran at most.",
            "ops",
            Query(rate("jobs_total", ""), "ended"),
            Query(quantile(0.95, "job_duration_seconds", ""), "p95 of an attempt, in seconds"),
        ),
        row("Batches"),
        series(
            "Items of a batch",
            "How many the next one takes at most.",
            "short",
            Query(or_zero(most("batch_size", "task")), "{{task}}"),
        ),
        series(
            "Wait for a batch",
            "From adding an item to the start of its batch.",
            "s",
            *(
                Query(or_zero(quantile(of, "batch_wait_seconds", "task")), f"{{{{task}}}}: p{of * 100:.0f}")
                for of in (0.5, 0.95)
            ),
        ),
        heat(
            "Waits for a batch",
            "How many items a second waited how long.",
            or_zero(rate("batch_wait_seconds_bucket", "le")),
        ),
        series(
            "Workers",
            "Processes: how many there should be, and how many work.",
            "short",
            Query(level("workers_wanted", ""), "wanted"),
            Query(level("workers", "", 'state="working"'), "working"),
        ),
    ],
    choices=("limiter",),
    notes=DECISIONS,
)

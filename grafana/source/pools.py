"""Pools of connections: who waits, what leaks, and why they have the size they have."""

from __future__ import annotations

from grafana.source.decisions import DECISIONS, decided_by_reason, decided_table
from grafana.source.panel import GREEN, ORANGE, RED, dashboard, heat, row, series, stat
from grafana.source.query import Query, chosen, increase, level, mean, or_zero, quantile, rate

POOL = chosen("pool")
BY_NAME = 'limiter=~"$pool"'
USED, ALL = level("pool_connections", "pool", POOL, 'state="used"'), level("pool_connections", "pool", POOL)

DASHBOARD = dashboard(
    "pools",
    "pools",
    "Pools of connections that were given to engine.watch(): who waits, what leaks, and why they have their size.",
    [
        row("Is anything wrong?"),
        stat(
            "Callers that wait",
            "For a connection, now.",
            "short",
            or_zero(level("pool_waiters", "", POOL)),
            steps=((None, GREEN), (1, ORANGE), (50, RED)),
        ),
        stat(
            "Wait, p95",
            "How long 95 of 100 callers waited for a connection at most.",
            "s",
            or_zero(quantile(0.95, "pool_acquire_seconds", "", POOL)),
            steps=((None, GREEN), (0.05, ORANGE), (1, RED)),
        ),
        stat(
            "Leaks",
            "Borrowed connections in the shown time that seemed not to come back; the log names the line that borrowed.",
            "short",
            or_zero(increase("pool_leaks_total", "", POOL)),
            steps=((None, GREEN), (1, RED)),
        ),
        stat("Connections", "Open ones of all pools.", "short", or_zero(level("pool_connections", "", POOL))),
        stat(
            "Fullest pool",
            "Its share of connections that are in use.",
            "percentunit",
            or_zero(f"max({USED} / ({ALL} > 0))"),
            steps=((None, GREEN), (0.9, ORANGE)),
        ),
        stat("Borrows", "A second.", "ops", or_zero(rate("pool_acquire_seconds_count", "", POOL))),
        row("Connections"),
        series(
            "Connections by what they do",
            "In use by a caller, or idle.",
            "short",
            Query(or_zero(level("pool_connections", "pool, state", POOL)), "{{pool}}: {{state}}"),
            stack=True,
        ),
        series(
            "Size, and how much of it is lent",
            "How many connections may be lent at once, as the optimizer decided, and how many are.",
            "short",
            Query(or_zero(level("concurrency_limit", "limiter", BY_NAME)), "{{limiter}}: size"),
            Query(or_zero(level("concurrency_inflight", "limiter", BY_NAME)), "{{limiter}}: lent"),
        ),
        row("Callers"),
        series(
            "Callers that wait",
            "Above 0 for long: the pool is smaller than what is asked of it, or connections are kept too long.",
            "short",
            Query(or_zero(level("pool_waiters", "pool", POOL)), "{{pool}}"),
            steps=((1, ORANGE),),
        ),
        series(
            "How long callers wait",
            "For a connection.",
            "s",
            Query(or_zero(mean("pool_acquire_seconds", "pool", POOL)), "{{pool}}: mean"),
            *(
                Query(or_zero(quantile(of, "pool_acquire_seconds", "pool", POOL)), f"{{{{pool}}}}: p{of * 100:.0f}")
                for of in (0.5, 0.95, 0.99)
            ),
        ),
        heat(
            "Waits",
            "How many callers a second waited how long.",
            or_zero(rate("pool_acquire_seconds_bucket", "le", POOL)),
        ),
        series(
            "Leaks",
            "Borrowed connections that seemed not to come back.",
            "short",
            Query(or_zero(rate("pool_leaks_total", "pool", POOL, per="increase")), "{{pool}}"),
            bars=True,
        ),
        row("Why this size"),
        decided_by_reason(BY_NAME),
        decided_table(BY_NAME),
    ],
    choices=("pool",),
    notes=DECISIONS,
)

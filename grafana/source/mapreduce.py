"""Map/reduce jobs: how far they are, what holds them up."""

from __future__ import annotations

from grafana.source.panel import GREEN, ORANGE, RED, dashboard, heat, row, series, stat
from grafana.source.query import Query, increase, level, mean, most, or_zero, pick, quantile, rate, share

MAP, REDUCE = 'task="asyncworker.map"', 'task="asyncworker.reduce"'
STEPS = 'task=~"asyncworker.map|asyncworker.reduce"'
PROGRESS = most("job_progress_ratio", "")
PACE = f"max (deriv({pick('job_progress_ratio')}[$__rate_interval]))"

DASHBOARD = dashboard(
    "mapreduce",
    "map/reduce",
    "Map/reduce jobs: how far they are, how long partitions take, and what failed.",
    [
        row("Is anything wrong?"),
        stat(
            "Jobs under way",
            "Map/reduce jobs that were submitted and have not ended.",
            "short",
            level("map_reduce_jobs", ""),
        ),
        stat(
            "Done",
            "Share of the partitions done, of the jobs under way.",
            "percentunit",
            PROGRESS,
        ),
        stat(
            "Time left",
            "At the pace of now; 0 where no job is under way, or where none moves.",
            "s",
            or_zero(f"(1 - {PROGRESS}) / ({PACE} > 0)"),
        ),
        stat(
            "Partitions that failed",
            "In the shown time, for good. One fails its job.",
            "short",
            or_zero(increase("partitions_total", "", 'status="failed"')),
            steps=((None, GREEN), (1, RED)),
        ),
        stat(
            "Partitions tried again",
            "Attempts in the shown time that will be followed by another.",
            "short",
            or_zero(increase("job_attempts_total", "", MAP, 'status="retrying"')),
            steps=((None, GREEN), (1, ORANGE)),
        ),
        stat(
            "Stragglers",
            "How many times longer the slowest 1 % of the partitions take than half of them. Much above 10, cut smaller.",
            "short",
            share(quantile(0.99, "job_duration_seconds", "", MAP), quantile(0.5, "job_duration_seconds", "", MAP)),
            steps=((None, GREEN), (10, ORANGE), (50, RED)),
        ),
        row("Progress"),
        series(
            "Share done",
            "Partitions done of those that there are, over the jobs under way; counted by the broker, never guessed.",
            "percentunit",
            Query(PROGRESS, "done"),
            most=1,
        ),
        series("Jobs under way", "Map/reduce jobs.", "short", Query(level("map_reduce_jobs", ""), "jobs")),
        series(
            "Partitions that ended",
            "A second, by how they ended.",
            "ops",
            Query(or_zero(rate("partitions_total", "status")), "{{status}}"),
            stack=True,
        ),
        series(
            "Attempts",
            "Attempts at partitions and reduce steps a second, by how they ended.",
            "ops",
            Query(rate("job_attempts_total", "task, status", STEPS), "{{task}}: {{status}}"),
        ),
        row("How long it takes"),
        series(
            "A partition, and a reduce step",
            "How long one attempt runs.",
            "s",
            *(
                Query(quantile(of, "job_duration_seconds", "", MAP), f"partition: p{of * 100:.0f}")
                for of in (0.5, 0.95, 0.99)
            ),
            Query(mean("job_duration_seconds", "", REDUCE), "reduce step: mean"),
        ),
        heat(
            "Partitions", "How many partitions a second took how long.", rate("job_duration_seconds_bucket", "le", MAP)
        ),
        series(
            "Wait before the start",
            "From when a partition, or a reduce step, could start until it did.",
            "s",
            Query(quantile(0.95, "job_wait_seconds", "task", STEPS), "{{task}}: p95"),
        ),
        series(
            "Workers",
            "Those that the broker hears of, and jobs of all kinds in their hands.",
            "short",
            Query(level("workers_alive", ""), "workers"),
            Query(level("jobs_running", ""), "running jobs"),
        ),
    ],
)

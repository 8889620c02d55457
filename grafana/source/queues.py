"""What waits, for how long, and what becomes of it."""

from __future__ import annotations

from grafana.source.panel import GREEN, ORANGE, RED, dashboard, heat, row, series, stat, table
from grafana.source.query import Query, chosen, increase, level, mean, most, or_zero, quantile, rate, share

QUEUE, TASK = chosen("queue"), chosen("task")
QUEUED = 'state="queued"'
WAITING = level("queue_jobs", "", QUEUE, QUEUED)

DASHBOARD = dashboard(
    "queues",
    "queues",
    "What waits, for how long, and what becomes of it, by queue and task.",
    [
        row("Is anything wrong?"),
        stat(
            "Longest wait",
            "How long the next job of the slowest queue has been waiting.",
            "s",
            most("queue_oldest_seconds", "", QUEUE),
            steps=((None, GREEN), (60, ORANGE), (300, RED)),
        ),
        stat(
            "Time to drain",
            "How long what waits would take at the pace of now; 0 where nothing ends at all: then see 'Jobs that end'.",
            "s",
            share(WAITING, rate("jobs_total", "", QUEUE)),
            steps=((None, GREEN), (300, ORANGE), (3600, RED)),
        ),
        stat("Jobs that wait", "Queued, ready to start.", "short", WAITING),
        stat(
            "Jobs that end",
            "Jobs a second, however they end.",
            "ops",
            rate("jobs_total", "", QUEUE),
        ),
        stat(
            "Paused",
            "Queues of which nothing is handed out: `asyncworker queues resume`.",
            "short",
            level("queue_paused", "", QUEUE),
            steps=((None, GREEN), (1, ORANGE)),
        ),
        stat(
            "Dead letters",
            "Jobs of all queues that failed for good and are kept: `asyncworker dead ls`.",
            "short",
            level("dead_letters", ""),
            steps=((None, GREEN), (1, ORANGE), (9000, RED)),
        ),
        row("What waits"),
        series(
            "Jobs by queue and state",
            "Queued: ready to start. Scheduled: for later, retries included. Blocked: by a limit, or by another job.",
            "short",
            Query(level("queue_jobs", "queue, state", QUEUE), "{{queue}}: {{state}}"),
            stack=True,
        ),
        series(
            "Longest wait by queue",
            "How long the next job of each queue has been waiting.",
            "s",
            Query(most("queue_oldest_seconds", "queue", QUEUE), "{{queue}}"),
            steps=((60, ORANGE), (300, RED)),
        ),
        series(
            "Growth",
            "Jobs a second that come in beyond those that end; above 0 for long, a backlog grows.",
            "ops",
            Query(f"{rate('jobs_enqueued_total', 'queue', QUEUE)} - {rate('jobs_total', 'queue', QUEUE)}", "{{queue}}"),
        )
        | {"interval": "30s"},
        series(
            "How full bounded queues are",
            "Of as many jobs as may wait; at 100 % who enqueues waits, or is refused. 0 where no queue is bounded.",
            "percentunit",
            Query(
                or_zero(f"{level('queue_jobs', 'queue', QUEUE, QUEUED)} / {level('queue_bound_jobs', 'queue', QUEUE)}"),
                "{{queue}}",
            ),
            steps=((0.8, ORANGE), (1, RED)),
        ),
        row("In and out"),
        series(
            "Enqueued",
            "Jobs a second that were taken in.",
            "ops",
            Query(rate("jobs_enqueued_total", "queue", QUEUE), "{{queue}}"),
            stack=True,
        ),
        series(
            "Ended",
            "Jobs a second, by how they ended.",
            "ops",
            Query(rate("jobs_total", "queue, status", QUEUE), "{{queue}}: {{status}}"),
            stack=True,
        ),
        series(
            "Wait before the start, by queue",
            "From when a job could start until it did: half of them less than p50, all but 5 % less than p95.",
            "s",
            Query(quantile(0.5, "job_wait_seconds", "queue", QUEUE, TASK), "{{queue}}: p50"),
            Query(quantile(0.95, "job_wait_seconds", "queue", QUEUE, TASK), "{{queue}}: p95"),
        ),
        heat(
            "Waits",
            "How many jobs a second waited how long.",
            rate("job_wait_seconds_bucket", "le", QUEUE, TASK),
        ),
        row("By task"),
        series(
            "Attempts that ended",
            "Attempts a second, by task and how they ended; 'retrying' will be followed by another.",
            "ops",
            Query(rate("job_attempts_total", "task, status", QUEUE, TASK), "{{task}}: {{status}}"),
        ),
        series(
            "How long attempts run",
            "The mean, and what 95 of 100 do not exceed.",
            "s",
            Query(mean("job_duration_seconds", "task", QUEUE, TASK), "{{task}}: mean"),
            Query(quantile(0.95, "job_duration_seconds", "task", QUEUE, TASK), "{{task}}: p95"),
        ),
        heat(
            "Durations",
            "How many attempts a second took how long.",
            rate("job_duration_seconds_bucket", "le", QUEUE, TASK),
        ),
        table(
            "Attempts in the shown time",
            "By task, queue and how they ended.",
            "short",
            or_zero(f"{increase('job_attempts_total', 'task, queue, status', QUEUE, TASK)} > 0"),
            {"task": "task", "queue": "queue", "status": "ended as"},
            value="attempts",
        ),
        row("Trouble"),
        series(
            "Share that fails",
            "Of the jobs of each queue that ended, those that failed for good.",
            "percentunit",
            Query(
                share(rate("jobs_total", "queue", QUEUE, 'status="failed"'), rate("jobs_total", "queue", QUEUE)),
                "{{queue}}",
            ),
            steps=((0.05, RED),),
        ),
        series(
            "Retries and jobs given back",
            "Attempts a second that will be followed by another; jobs a second whose worker died.",
            "ops",
            Query(rate("job_retries_total", "queue", QUEUE), "{{queue}}: retries"),
            Query(rate("jobs_redelivered_total", "queue", QUEUE), "{{queue}}: given back"),
        ),
        series(
            "Dead letters",
            "Jobs of all queues that failed for good and are kept, up to 10,000.",
            "short",
            Query(level("dead_letters", ""), "dead letters"),
        ),
        series(
            "Running, and schedules",
            "Jobs in workers' hands; schedules that enqueue by the calendar.",
            "short",
            Query(level("jobs_running", ""), "running"),
            Query(level("schedules", ""), "schedules"),
        ),
    ],
    choices=("queue", "task"),
)

"""The fleet: who works, who died, and why there are so many."""

from __future__ import annotations

from grafana.source.decisions import DECISIONS, decided_by_reason, decided_table
from grafana.source.panel import GREEN, ORANGE, RED, dashboard, row, series, stat, table
from grafana.source.query import Query, increase, least, level, most, or_zero, rate

WORKERS, WORKING = 'limiter="workers"', 'state="working"'

DASHBOARD = dashboard(
    "workers",
    "workers",
    "The fleet: who works, who died, why there are so many, and what the machine bears.",
    [
        row("Is anything wrong?"),
        stat(
            "Healthy",
            "/healthz of each daemon: its control loop looks after the workers.",
            "short",
            least("fleet_healthy", ""),
            words={"0": ("unhealthy", RED), "1": ("healthy", GREEN)},
        ),
        stat(
            "Ready",
            "/readyz of each daemon: its workers take jobs, and the broker answers.",
            "short",
            least("fleet_ready", ""),
            words={"0": ("not ready", RED), "1": ("ready", GREEN)},
        ),
        stat(
            "Workers",
            "That the broker hears of, on all machines.",
            "short",
            level("workers_alive", ""),
            steps=((None, RED), (1, GREEN)),
        ),
        stat(
            "Missing",
            "Processes that should work and do not (yet).",
            "short",
            f"clamp_min({level('workers_wanted', '')} - {level('workers', '', WORKING)}, 0)",
            steps=((None, GREEN), (1, ORANGE)),
        ),
        stat(
            "Crashes",
            "Worker processes in the shown time that ended without having been told to.",
            "short",
            or_zero(increase("worker_crashes_total", "")),
            steps=((None, GREEN), (1, ORANGE), (10, RED)),
        ),
        stat(
            "Crash loops",
            "Worker processes that die young again and again.",
            "short",
            level("worker_crash_loops", ""),
            steps=((None, GREEN), (1, RED)),
        ),
        row("Worker processes"),
        series(
            "By state",
            "Starting, working, leaving (they drain), and due (to be started again).",
            "short",
            Query(level("workers", "state"), "{{state}}"),
            stack=True,
        ),
        series(
            "How many there should be",
            "As the optimizer decided, between the least and the most that are allowed.",
            "short",
            Query(level("workers_wanted", ""), "wanted"),
            Query(level("workers", "", WORKING), "working"),
            Query(level("workers_min", ""), "at least"),
            Query(level("workers_max", ""), "at most"),
            Query(level("workers_alive", ""), "that the broker hears of"),
        ),
        decided_by_reason(WORKERS),
        decided_table(WORKERS),
        series(
            "Starts and crashes",
            "Worker processes that were started, and that ended without having been told to.",
            "short",
            Query(rate("worker_starts_total", "", per="increase"), "started"),
            Query(or_zero(rate("worker_crashes_total", "reason", per="increase")), "crashed: {{reason}}"),
            bars=True,
        ),
        table(
            "Processes now",
            "By name; what there are twice are of two machines.",
            "short",
            level("worker_info", "instance, target, state"),
            {"instance": "scraped at", "target": "process", "state": "state"},
            value="number",
        ),
        row("The broker"),
        series(
            "Answers",
            "1 where the broker answered the scrape.",
            "short",
            Query(least("broker_up", "job"), "{{job}}"),
            most=1,
        ),
        series(
            "Disruptions",
            "Times that a process lost the broker; jobs given back as their worker died; cycles of the control loop that failed.",
            "short",
            Query(rate("broker_disruptions_total", "", per="increase"), "lost the broker"),
            Query(rate("jobs_redelivered_total", "", per="increase"), "jobs given back"),
            Query(rate("control_failures_total", "", per="increase"), "cycles that failed"),
            bars=True,
        ),
        row("The machine"),
        series(
            "Processors in use",
            "Share of those that the fleet may use, whoever uses them. No worker is added above the threshold.",
            "percentunit",
            Query(most("host_cpu_ratio", "instance"), "{{instance}}"),
            most=1,
        ),
        series(
            "Processors",
            "That the fleet may use.",
            "short",
            Query(level("host_processors", "instance"), "{{instance}}"),
        ),
    ],
    notes=DECISIONS,
)

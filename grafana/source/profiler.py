"""Where the time goes: the event loop, and the profile of jobs."""

from __future__ import annotations

from grafana.source.panel import GREEN, ORANGE, RED, dashboard, heat, row, series, stat, table
from grafana.source.query import Query, chosen, increase, most, or_zero, quantile, rate, share

TASK = chosen("task")
STATES = {"on_loop": "on the loop", "cpu": "on the CPU", "await": "in await", "ready": "ready, waiting for its turn"}
TURNS = 'state=~"on_loop|await|ready"'
"""These three make the whole of a job's time; that on the CPU is a part of that on the loop."""


def _mean(state: str) -> str:
    whole = rate("profiled_seconds_total", "task", TASK, f'state="{state}"')
    return f"{whole} / ({rate('profiled_jobs_total', 'task', TASK)} > 0)"


DASHBOARD = dashboard(
    "profiler",
    "profiler and event loop",
    "Where the time goes. Two hundred jobs a second of each process are measured at most, one in eight.",
    [
        row("Is anything wrong?"),
        stat(
            "Lag, p99",
            "How long what is ready waits for its turn. Above 0.1 s something blocks the loop.",
            "s",
            quantile(0.99, "event_loop_lag_seconds", ""),
            steps=((None, GREEN), (0.1, ORANGE), (0.5, RED)),
        ),
        stat(
            "Stalls",
            "Times in the shown time that a loop was held for long; `asyncworker top` names the lines.",
            "short",
            or_zero(increase("event_loop_stalls_total", "")),
            steps=((None, GREEN), (1, ORANGE), (60, RED)),
        ),
        stat(
            "Busiest loop",
            "Share of its last second. Above 90 % another process would help, not more jobs at once.",
            "percentunit",
            most("event_loop_busy_ratio", ""),
            steps=((None, GREEN), (0.9, ORANGE)),
        ),
        stat(
            "Garbage collector",
            "Share of the time in which it holds its process, summed up over processes.",
            "percentunit",
            rate("gc_pause_seconds_total", ""),
            steps=((None, GREEN), (0.05, ORANGE)),
        ),
        stat(
            "On the CPU",
            "Of the time of measured jobs.",
            "percentunit",
            share(rate("profiled_seconds_total", "", 'state="cpu"'), rate("profiled_seconds_total", "", TURNS)),
        ),
        stat("Measured", "Jobs a second that the profiler measures.", "ops", rate("profiled_jobs_total", "")),
        row("The event loop"),
        series(
            "Lag",
            "How long what is ready waits for its turn.",
            "s",
            *(Query(quantile(of, "event_loop_lag_seconds", ""), f"p{of * 100:.0f}") for of in (0.5, 0.95, 0.99)),
            steps=((0.1, ORANGE),),
        ),
        heat(
            "Lags", "How many looks at the loop a second found which lag.", rate("event_loop_lag_seconds_bucket", "le")
        ),
        series(
            "How busy each loop is",
            "Share of the last second, by process.",
            "percentunit",
            Query(most("event_loop_busy_ratio", "target"), "{{target}}"),
            steps=((0.9, ORANGE),),
            most=1,
        ),
        series(
            "Stalls, and the garbage collector",
            "Times a second that a loop was held for long; seconds a second that the collector held its process.",
            "short",
            Query(rate("event_loop_stalls_total", ""), "stalls a second"),
            Query(rate("gc_pause_seconds_total", ""), "collector, share of the time"),
        ),
        row("Where jobs spend their time"),
        series(
            "All measured jobs",
            "Seconds a second. In await: for others, nothing to gain here but by more at once. On the loop: nothing else runs.",
            "s",
            Query(rate("profiled_seconds_total", "state", TASK, TURNS), "{{state}}"),
            stack=True,
        ),
        series(
            "On the loop, by task",
            "Seconds a second in which nothing else could run; the first on this list is worth looking at.",
            "s",
            Query(rate("profiled_seconds_total", "task", TASK, 'state="on_loop"'), "{{task}}"),
            stack=True,
        ),
        *(
            series(
                f"A job, {words}",
                f"Seconds that one job spends {words}, by task.",
                "s",
                Query(_mean(state), "{{task}}"),
            )
            for state, words in STATES.items()
        ),
        table(
            "In the shown time",
            "Seconds of measured jobs by task and what they did.",
            "s",
            or_zero(f"{increase('profiled_seconds_total', 'task, state', TASK)} > 0"),
            {"task": "task", "state": "what"},
            value="time",
        ),
        series(
            "Jobs measured",
            "A second, by task.",
            "ops",
            Query(rate("profiled_jobs_total", "task", TASK), "{{task}}"),
        ),
    ],
    choices=("task",),
)

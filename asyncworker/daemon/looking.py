"""Looking: what each page of the dashboard shows, made of views."""

from __future__ import annotations

from aiohttp import web

from asyncworker.clock import SYSTEM, Clock
from asyncworker.daemon import form
from asyncworker.daemon.audit import Audit
from asyncworker.daemon.picture import columns, steps
from asyncworker.daemon.template import Page
from asyncworker.daemon.views import Views
from asyncworker.queue.codec import is_id
from asyncworker.queue.job import TERMINAL, State, parent_of
from asyncworker.queue.search import MOST, Query, states_of

STATES = ["scheduled", "queued", "blocked", "running", "retrying", "succeeded", "failed", "cancelled", "expired"]
"""In the order in which a job may come to them."""
UNDER_WAY = (State.RUNNING,)
"""The state of a map/reduce job that goes on: it is born running."""
ASKED = ("state", "task", "queue", "since", "until", "cursor")
READINGS = (
    ("memory_rss_bytes", "Memory", "bytes"),
    ("memory_objects", "Objects", "number"),
    ("memory_leaks_suspected", "Leaks suspected", "number"),
)
ROWS = 50
WALLS = 600
"""Moments of which is kept how long jobs took; workers tell it while somebody looks."""
RECENT_S = 15.0
"""How much of the charts each update brings; a page that slept longer has a gap."""


class Looking:
    """Each method is one page; it may raise what its view raises, and `BadParameters` for what it is asked with."""

    def __init__(self, views: Views, audit: Audit, clock: Clock = SYSTEM) -> None:
        self._views, self._audit, self._clock = views, audit, clock
        told = {one.name: one.value for one in views.settings().settings}
        self.broker = f"{told['broker']} {told['namespace']}"
        self._walls: dict[float, tuple[float | None, float | None]] = {}

    async def overview(self, request: web.Request) -> Page:
        seen = await self._views.overview()
        whole = "HX-Source" not in request.headers
        self._walls[seen.at_s] = (seen.p50_s, seen.p95_s)
        if len(self._walls) > WALLS:
            del self._walls[next(iter(self._walls))]
        points = columns(self._views.chart(600.0 if whole else RECENT_S), self._walls)
        return Page("overview", "Overview", {"seen": seen, "points": points})

    async def queues(self, request: web.Request) -> Page:
        return Page("queues", "Queues", {"seen": await self._views.queues()})

    async def jobs(self, request: web.Request) -> Page:
        if wanted := request.query.get("job", "").strip():
            raise web.HTTPSeeOther(f"/jobs/{wanted}" if is_id(wanted) else "/jobs/-")
        asked = {name: request.query.get(name, "").strip() for name in ASKED}
        now = self._clock.now()
        since, until = (form.moment(asked[name], now) for name in ("since", "until"))
        query = Query(
            states_of([asked["state"]] if asked["state"] else ()), asked["queue"], asked["task"], since, until
        )
        seen = await self._views.jobs(query, asked["cursor"], ROWS)
        return Page(
            "jobs", "Jobs", {"seen": seen, "asked": asked, "states": STATES, "names": await self._views.names()}
        )

    async def job(self, request: web.Request) -> Page:
        seen = await self._views.job(request.match_info["id"])
        over, parent = seen.job.state in TERMINAL, parent_of(seen.job.id)
        return Page("job", seen.job.task or seen.job.id, {"seen": seen, "over": over, "parent": parent})

    async def runs(self, request: web.Request) -> Page:
        asked = {name: request.query.get(name, "").strip() for name in ("state", "cursor")}
        states = UNDER_WAY if not asked["state"] else [asked["state"]]
        seen = await self._views.runs(states, asked["cursor"], ROWS)
        return Page("runs", "Map/reduce", {"seen": seen, "asked": asked})

    async def run(self, request: web.Request) -> Page:
        first = form.whole("first", request.query.get("first", "0") or "0")
        seen = await self._views.run(request.match_info["id"], first, MOST)
        states = [str(one.state) for one in seen.partitions]
        counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        values = {"seen": seen, "over": seen.run.state in TERMINAL, "step": MOST, "counted": f"Partitions: {counted}"}
        return Page("run", seen.run.function, values)

    async def schedules(self, request: web.Request) -> Page:
        seen, names = await self._views.schedules(), await self._views.names()
        return Page("schedules", "Schedules", {"seen": seen, "names": names})

    async def dead(self, request: web.Request) -> Page:
        asked = {name: request.query.get(name, "").strip() for name in ("task", "queue", "cursor")}
        seen = await self._views.dead(asked["cursor"], ROWS, queue=asked["queue"], task=asked["task"])
        return Page("dead", "Dead letters", {"seen": seen, "asked": asked, "names": await self._views.names()})

    async def workers(self, request: web.Request) -> Page:
        seen = await self._views.workers()
        return Page("workers", "Workers", {"seen": seen})

    async def optimizer(self, request: web.Request) -> Page:
        asked = {name: request.query.get(name, "").strip() for name in ("thing", "since")}
        seen = await self._views.decisions(asked["thing"], form.moment(asked["since"], self._clock.now()))
        return Page(
            "optimizer",
            "Optimizer",
            {"seen": seen, "asked": asked, "curve": steps(asked["thing"], seen, self._clock.now())},
        )

    async def profiler(self, request: web.Request) -> Page:
        seen, workers = await self._views.profile(), await self._views.workers()
        lags = [worker for worker in workers.workers if worker.lag_p99_s is not None]
        return Page("profiler", "Profiler", {"seen": seen, "lags": lags, "paths": "/profiler/paths"})

    async def memory(self, request: web.Request) -> Page:
        return Page("memory", "Memory", {"seen": await self._views.memory(), "readings": READINGS})

    async def settings(self, request: web.Request) -> Page:
        return Page("settings", "Settings", {"seen": self._views.settings()})

    async def audit(self, request: web.Request) -> Page:
        return Page("audit", "Audit", {"rows": await self._audit.rows(2 * ROWS)})

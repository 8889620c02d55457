"""The HTTP API below ``/api/v1``: the table of its routes, each with what it asks for, takes and gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import msgspec
from aiohttp import web

from asyncworker.daemon import answers
from asyncworker.daemon import questions as q
from asyncworker.daemon.actions import Actions, Done, check_typed
from asyncworker.daemon.audit import LOCAL, WHO
from asyncworker.daemon.feed import Feed
from asyncworker.daemon.guard import SCOPE, Refused
from asyncworker.daemon.once import Once
from asyncworker.daemon.openapi import ROOT, Ask, Route, document
from asyncworker.daemon.tokens import Scope
from asyncworker.daemon.views import Views
from asyncworker.errors import BadParameters, JobNotFound
from asyncworker.queue.search import Query, states_of

READ, SUBMIT, ADMIN = Scope.READ, Scope.SUBMIT, Scope.ADMIN
LOOKS_ELSEWHERE = {"data_enrichment"}
"""Functions whose parameters name files and addresses for workers to read."""
RESULT_S = 40.0


class Enqueued(msgspec.Struct, frozen=True):
    """The id of a new job."""

    id: str


class Added(msgspec.Struct, frozen=True):
    """``new``: there was no schedule of this name."""

    name: str
    new: bool


class Description(msgspec.Struct, frozen=True):
    """This API, as OpenAPI describes it."""

    openapi: str
    info: dict[str, Any]
    servers: list[Any]
    security: list[Any]
    paths: dict[str, Any]
    components: dict[str, Any]


class Api:
    """The API over views and actions. ``routes`` is the table; ``close`` lets go who listens to events."""

    def __init__(self, views: Views, actions: Actions) -> None:
        self._views, self._actions = views, actions
        self._feed = Feed(views.overview)
        self._once: Once[tuple[int, bytes, str]] = Once()
        self.routes = self._table()
        self._document = msgspec.convert(document(self.routes), Description)

    async def close(self) -> None:
        await self._feed.close()

    def handlers(self) -> list[web.RouteDef]:
        """Return the routes as the application takes them."""
        return [web.route(route.method, ROOT + route.path, self._handler(route)) for route in self.routes]

    def _table(self) -> list[Route]:
        views, actions = self._views, self._actions
        return [
            Route("GET", "/openapi.json", READ, "This description", Description, self._describe),
            Route("GET", "/overview", READ, "The whole at a glance", answers.Overview, lambda _: views.overview()),
            Route(
                "GET",
                "/events",
                READ,
                "The overview each second, as server-sent events",
                bytes,
                lambda ask: self._feed.listen(ask.request),
                media="text/event-stream",
                patience=0,
            ),
            Route("GET", "/chart", READ, "The last minutes, for charts", answers.Series, self._chart, q.ChartQuery),
            Route("GET", "/names", READ, "What can be asked for by name", answers.Names, lambda _: views.names()),
            Route("GET", "/jobs", READ, "Find jobs", answers.JobPage, self._jobs, q.JobsQuery),
            Route("POST", "/jobs", SUBMIT, "Enqueue a call", Enqueued, self._enqueue, body=q.EnqueueBody, status=201),
            Route("POST", "/jobs/batch", ADMIN, "Do something to several jobs", Done, self._batch, body=q.BatchBody),
            Route("GET", "/jobs/{job}", READ, "One job", answers.JobDetail, lambda ask: views.job(ask.path["job"])),
            Route(
                "GET",
                "/jobs/{job}/result",
                SUBMIT,
                "A job's result",
                answers.Result,
                lambda ask: views.result(ask.path["job"], ask.query.wait),
                q.ResultQuery,
                patience=RESULT_S,
            ),
            Route("POST", "/jobs/{job}/cancel", ADMIN, "Cancel a job", Done, self._one(actions.cancel), body=q.Asked),
            Route("POST", "/jobs/{job}/retry", ADMIN, "Replay a job", Done, self._one(actions.retry), body=q.Asked),
            Route("GET", "/queues", READ, "All queues", answers.Queues, lambda _: views.queues()),
            Route("POST", "/queues/{queue}/pause", ADMIN, "Hold its jobs", None, self._pause, body=q.ConfirmBody, status=204),
            Route("POST", "/queues/{queue}/resume", ADMIN, "Hand out its jobs", None, self._resume, body=q.Asked, status=204),
            Route("PUT", "/queues/{queue}/bound", ADMIN, "Bound a queue", None, self._bound, body=q.BoundBody, status=204),
            Route("GET", "/workers", READ, "Who works", answers.Workers, lambda _: views.workers()),
            Route("POST", "/workers/restart", ADMIN, "Replace workers", None, self._restart, body=q.RestartBody, status=202),
            Route("POST", "/workers/{worker}/stop", ADMIN, "Let it drain", None, self._stop, body=q.ConfirmBody, status=202),
            Route("GET", "/schedules", READ, "All schedules", answers.Schedules, lambda _: views.schedules()),
            Route("PUT", "/schedules/{name}", ADMIN, "Set a schedule", Added, self._schedule, body=q.ScheduleBody),
            Route("DELETE", "/schedules/{name}", ADMIN, "Remove a schedule", None, self._unschedule, status=204),
            Route("POST", "/schedules/{name}/run", ADMIN, "Call it now", Enqueued, self._run_now, body=q.Asked, status=201),
            Route("GET", "/dead", READ, "Dead letters", answers.DeadPage, self._dead, q.DeadQuery),
            Route("GET", "/dead/{job}", READ, "One dead letter", answers.JobDetail, self._letter),
            Route("POST", "/dead/replay", ADMIN, "Replay dead letters", Done, self._replay, body=q.DeadBody),
            Route("POST", "/dead/purge", ADMIN, "Forget dead letters", Done, self._purge, body=q.DeadBody),
            Route("GET", "/runs", READ, "Map/reduce jobs", answers.RunPage, self._runs, q.RunsQuery),
            Route("POST", "/runs", SUBMIT, "Begin a map/reduce job", Enqueued, self._submit, body=q.RunBody, status=201),
            Route("GET", "/runs/{job}", READ, "One, with its partitions", answers.RunDetail, self._run, q.PartitionsQuery),
            Route("GET", "/decisions", READ, "What was decided, and why", answers.DecisionsSeen, self._decisions, q.DecisionsQuery),
            Route("GET", "/profile", READ, "Where the time went", answers.Profile, lambda _: views.profile()),
            Route(
                "GET",
                "/profile/speedscope",
                READ,
                "Critical paths, for www.speedscope.app",
                bytes,
                self._speedscope,
                q.SourceQuery,
                media="application/octet-stream",
            ),
            Route("GET", "/memory", READ, "Memory of workers", answers.Memory, lambda _: views.memory()),
            Route("GET", "/settings", READ, "What is set", answers.SettingsSeen, self._settings),
            Route("GET", "/audit", ADMIN, "Who did what", answers.AuditPage, self._audit, q.AuditQuery),
        ]  # fmt: skip

    def _handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            raw = await request.read() if route.body is not None else b""
            ask = Ask(request, dict(request.match_info), _query(route, request), _body(route, raw))
            if request.method in {"GET", "HEAD"}:
                said = await route.call(ask)
                return said if isinstance(said, web.StreamResponse) else _response(*_packed(route, said))

            async def do() -> tuple[int, bytes, str]:
                return _packed(route, await route.call(ask))

            digest = sha256(f"{request.method} {request.path}\n".encode() + raw).digest()
            key = request.headers.get("Idempotency-Key", "")
            return _response(*await self._once.answer(WHO.get(), key, digest, do))

        return handle

    # --- asking ---------------------------------------------------------------------------------------------

    async def _describe(self, _: Ask) -> Description:
        return self._document

    async def _chart(self, ask: Ask) -> answers.Series:
        return self._views.chart(ask.query.seconds)

    async def _jobs(self, ask: Ask) -> answers.JobPage:
        of = ask.query
        query = Query(states_of(_words(of.state)), of.queue, of.task, of.since, of.until)
        return await self._views.jobs(query, of.cursor, of.limit)

    async def _dead(self, ask: Ask) -> answers.DeadPage:
        of = ask.query
        return await self._views.dead(of.cursor, of.limit, queue=of.queue, task=of.task)

    async def _letter(self, ask: Ask) -> answers.JobDetail:
        detail = await self._views.job(ask.path["job"])
        if not await self._views.is_dead(detail.job.id):
            raise JobNotFound(f"{detail.job.id!r} is no dead letter")
        return detail

    async def _runs(self, ask: Ask) -> answers.RunPage:
        return await self._views.runs(_words(ask.query.state), ask.query.cursor, ask.query.limit)

    async def _run(self, ask: Ask) -> answers.RunDetail:
        return await self._views.run(ask.path["job"], ask.query.first, ask.query.limit)

    async def _decisions(self, ask: Ask) -> answers.DecisionsSeen:
        return await self._views.decisions(ask.query.thing, ask.query.since, ask.query.limit)

    async def _speedscope(self, ask: Ask) -> web.Response:
        return web.Response(
            body=await self._views.speedscope(ask.query.source),
            content_type="application/octet-stream",
            headers={"Content-Disposition": 'attachment; filename="asyncworker.speedscope.json"'},
        )

    async def _settings(self, _: Ask) -> answers.SettingsSeen:
        return self._views.settings()

    async def _audit(self, ask: Ask) -> answers.AuditPage:
        return answers.AuditPage(await self._actions.audit.rows(ask.query.limit))

    # --- doing ----------------------------------------------------------------------------------------------

    async def _enqueue(self, ask: Ask) -> Enqueued:
        of = ask.body
        options = q.given(of.options)
        if "unique" in options and (who := WHO.get()) != LOCAL:
            options["unique"] = who, options["unique"]  # the keys of two tokens are two, though they look the same
        return Enqueued(await self._actions.enqueue(of.task, of.args, of.kwargs, options))

    async def _submit(self, ask: Ask) -> Enqueued:
        of: q.RunBody = ask.body
        sources = [one for one in (of.items, of.dataset, of.source) if one is not None]
        if len(sources) != 1:
            raise BadParameters("give one of items, dataset and source")
        elsewhere = of.source is not None or of.to is not None or of.function in LOOKS_ELSEWHERE
        if elsewhere and ask.request[SCOPE] < ADMIN:
            raise Refused(403, "source, to and data_enrichment let workers read and write elsewhere: they need admin")
        more = {"partition_size": of.partition_size, "workers": of.workers}
        job_id = await self._actions.submit(
            sources[0],
            of.function,
            is_dataset=of.dataset is not None,
            params=of.params,
            map=of.map,
            reduce=of.reduce,
            max_failures=of.max_failures,
            to=of.to,
            priority=of.priority,
            **{name: value for name, value in more.items() if value is not None},
        )
        return Enqueued(job_id)

    def _one(self, act: Callable[[list[str]], Awaitable[Done]]) -> Callable[[Ask], Awaitable[Done]]:
        async def call(ask: Ask) -> Done:
            await self._views.job(ask.path["job"])  # nobody knows it: 404
            return await act([ask.path["job"]])

        return call

    async def _batch(self, ask: Ask) -> Done:
        check_typed(ask.body.confirm, ask.body.action)
        act = {"cancel": self._actions.cancel, "retry": self._actions.retry, "delete": self._actions.purge}
        return await act[ask.body.action](ask.body.ids)

    async def _pause(self, ask: Ask) -> None:
        check_typed(ask.body.confirm, ask.path["queue"])
        await self._actions.pause(ask.path["queue"])

    async def _resume(self, ask: Ask) -> None:
        await self._actions.resume(ask.path["queue"])

    async def _bound(self, ask: Ask) -> None:
        await self._actions.bound(ask.path["queue"], ask.body.most)

    async def _restart(self, ask: Ask) -> None:
        check_typed(ask.body.confirm, "restart")
        await self._actions.restart_workers(*ask.body.names)

    async def _stop(self, ask: Ask) -> None:
        check_typed(ask.body.confirm, ask.path["worker"])
        await self._actions.stop_worker(ask.path["worker"])

    async def _schedule(self, ask: Ask) -> Added:
        of, name = ask.body, ask.path["name"]
        new = await self._actions.add_schedule(
            name, of.task, of.args, of.kwargs, cron=of.cron, every=of.every, tz=of.tz, missed=of.missed,
            options=q.given(of.options),
        )  # fmt: skip
        return Added(name, new)

    async def _unschedule(self, ask: Ask) -> None:
        await self._actions.remove_schedule(ask.path["name"])

    async def _run_now(self, ask: Ask) -> Enqueued:
        return Enqueued(await self._actions.run_schedule(ask.path["name"]))

    async def _replay(self, ask: Ask) -> Done:
        check_typed(ask.body.confirm, "replay")
        if ask.body.ids is not None:
            return await self._actions.retry(ask.body.ids)
        return await self._actions.retry_dead(ask.body.queue, ask.body.task)

    async def _purge(self, ask: Ask) -> Done:
        check_typed(ask.body.confirm, "purge")
        if ask.body.ids is not None:
            return await self._actions.purge(ask.body.ids)
        return await self._actions.purge_dead(ask.body.queue, ask.body.task)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _query(route: Route, request: web.Request) -> Any:
    if len(set(request.query)) < len(request.query):
        raise Refused(422, "a parameter was given twice")
    try:
        return msgspec.convert(dict(request.query), route.query, strict=False)
    except msgspec.ValidationError as exc:
        raise Refused(422, str(exc)) from exc


def _body(route: Route, raw: bytes) -> Any:
    if route.body is None:
        return None
    try:
        return msgspec.json.decode(raw or b"{}", type=route.body)
    except msgspec.ValidationError as exc:
        raise Refused(422, str(exc)) from exc
    except (msgspec.DecodeError, RecursionError) as exc:
        raise Refused(400, "the body is no JSON") from exc


def _packed(route: Route, said: Any) -> tuple[int, bytes, str]:
    body = b"" if route.answer is None else msgspec.json.encode(said, enc_hook=str)
    return route.status, body, route.media


def _response(status: int, body: bytes, media: str) -> web.Response:
    return web.Response(body=body or None, status=status, content_type=media if body else None)

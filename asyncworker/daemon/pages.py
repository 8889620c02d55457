"""Pages: the dashboard. Each looks (GET) and, where something can be done, does it (POST) under the same address.

The whole page is sent once; afterwards htmx asks for what changes in it, and sends what people do. Without scripts the
same forms work, with one more round trip. What comes from users gets into a page through escaping templates alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from asyncworker.clock import SYSTEM, Clock
from asyncworker.daemon import form
from asyncworker.daemon.actions import Actions
from asyncworker.daemon.doing import Doing
from asyncworker.daemon.guard import SCOPE
from asyncworker.daemon.looking import Looking
from asyncworker.daemon.template import STATIC, Page, Renderer
from asyncworker.daemon.tokens import Scope
from asyncworker.daemon.views import Views
from asyncworker.errors import AsyncWorkerError, BrokerError, JobNotFound, KeepError, QueueFull, UnknownName

PLACES = (
    ("/", "Overview"),
    ("", "Work"),
    ("/queues", "Queues"),
    ("/jobs", "Jobs"),
    ("/runs", "Map/reduce"),
    ("/schedules", "Schedules"),
    ("/dead", "Dead letters"),
    ("", "Workers"),
    ("/workers", "Workers"),
    ("/optimizer", "Optimizer"),
    ("/profiler", "Profiler"),
    ("/memory", "Memory"),
    ("", "Daemon"),
    ("/settings", "Settings"),
    ("/audit", "Audit"),
)
"""The menu: addresses and names; a part's headline has no address."""

KEPT = ("WWW-Authenticate", "Allow", "Retry-After", "Connection")
"""Headers of a refusal that its page has, too."""

Look = Callable[[web.Request], Awaitable[Page]]
Act = Callable[[web.Request, form.Fields], Awaitable["str | Page"]]
"""What was done, in a sentence; or a page that asks back first."""


class Pages:
    """The dashboard over views and actions."""

    def __init__(self, views: Views, actions: Actions, clock: Clock = SYSTEM) -> None:
        self._views, self._clock = views, clock
        self._looking, self._doing = Looking(views, actions.audit, clock), Doing(views, actions)
        self._renderer = Renderer(places=PLACES)
        show, do = self._looking, self._doing
        self._pages: list[tuple[str, Look, Act | None]] = [
            ("/", show.overview, None),
            ("/queues", show.queues, do.queues),
            ("/jobs", show.jobs, do.jobs),
            ("/jobs/{id}", show.job, do.job),
            ("/runs", show.runs, None),
            ("/runs/{id}", show.run, do.job),
            ("/schedules", show.schedules, do.schedules),
            ("/dead", show.dead, do.dead),
            ("/workers", show.workers, do.workers),
            ("/optimizer", show.optimizer, None),
            ("/profiler", show.profiler, None),
            ("/memory", show.memory, None),
            ("/settings", show.settings, None),
            ("/audit", show.audit, None),
        ]

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return what `web.Application.add_routes` takes."""
        routes: list[web.AbstractRouteDef] = [web.get(path, self._shown(look)) for path, look, _ in self._pages]
        routes += [web.post(path, self._done(look, act)) for path, look, act in self._pages if act is not None]
        return [*routes, web.get("/profiler/paths", self._paths), web.static("/static", STATIC)]

    def dress(self) -> Middleware:
        """Return what makes pages of refusals, for people who look at pages; to be put around the guard."""
        addresses = {path for path, _, _ in self._pages}

        @web.middleware
        async def dressed(request: web.Request, handler: Handler) -> web.StreamResponse:
            bare = await handler(request)
            resource = request.match_info.route.resource
            ours = resource is None or resource.canonical in addresses
            people = "text/html" in request.headers.get("Accept", "") and "HX-Request" not in request.headers
            if bare.status < 400 or not (ours and people and isinstance(bare, web.Response)):
                return bare
            if bare.content_type != "text/plain":
                return bare
            page = self.error(request, bare.status, (bare.text or "").strip())
            page.headers.update({name: bare.headers[name] for name in KEPT if name in bare.headers})
            return page

        return dressed

    def error(self, request: web.Request, status: int, text: str, command: str = "") -> web.Response:
        """Return a page that says what is wrong, for people."""
        title = "There is no such page" if status == HTTPStatus.NOT_FOUND else HTTPStatus(status).phrase
        return self._send(request, Page("error", title, {"text": text, "command": command}), status=status)

    def _shown(self, look: Look) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                page = await look(request)
            except AsyncWorkerError as exc:
                return self._wrong(request, exc)
            return self._send(request, page, "live" if request.headers.get("HX-Source") == "div#live" else "")

        return answer

    def _done(self, look: Look, act: Act) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            part = "page" if "HX-Request" in request.headers else ""
            try:
                fields = await form.read(request)
                said = await act(request, fields)
                if isinstance(said, Page):
                    return self._send(request, said, part)
                try:
                    page = await look(request)
                except JobNotFound:
                    if part:  # it was there: what was done has removed it
                        return web.Response(headers={"HX-Redirect": "/jobs"})
                    raise web.HTTPSeeOther("/jobs") from None
            except AsyncWorkerError as exc:
                return self._refused(exc) if part else self._wrong(request, exc)
            if not part:
                raise web.HTTPSeeOther(str(request.rel_url))
            return self._send(request, page, part, said=said)

        return answer

    def _send(
        self, request: web.Request, page: Page, part: str = "", *, said: str = "", status: int = 200
    ) -> web.Response:
        here = str(request.rel_url)

        def link(**changes: Any) -> str:
            query = {name: value for name, value in {**request.query, **changes}.items() if value != ""}
            return f"{request.path}?{urlencode(query)}" if query else request.path

        values = {
            "title": page.title,
            "place": "/" + request.path.split("/")[1],
            "broker": self._looking.broker,
            "here": here,
            "link": link,
            "now": self._clock.now(),
            "may_act": request.get(SCOPE, Scope.ADMIN) is Scope.ADMIN,
            **page.values,
        }
        text = self._renderer.render(page.name, part, values)
        if part == "page":
            text += self._renderer.render("says", "", {"done": said, "wrong": ""})
        return web.Response(text=text, status=status, content_type="text/html", headers={"Cache-Control": "no-store"})

    def _refused(self, error: AsyncWorkerError) -> web.Response:
        """Return what leaves the page as it is, and says why nothing was done."""
        text = self._renderer.render("says", "", {"done": "", "wrong": str(error)})
        return web.Response(text=text, status=_status(error), content_type="text/html", headers={"HX-Reswap": "none"})

    def _wrong(self, request: web.Request, error: AsyncWorkerError) -> web.Response:
        status = _status(error)
        text = str(error)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return self.error(request, status, f"The broker cannot be reached: {text}", "asyncworker doctor")
        return self.error(request, status, text)

    async def _paths(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await self._views.speedscope()
        except AsyncWorkerError as exc:
            return self._wrong(request, exc)
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})


def _status(error: AsyncWorkerError) -> int:
    match error:
        case JobNotFound() | UnknownName():
            return HTTPStatus.NOT_FOUND
        case QueueFull():
            return HTTPStatus.CONFLICT
        case BrokerError() | KeepError():
            return HTTPStatus.SERVICE_UNAVAILABLE
        case _:
            return HTTPStatus.BAD_REQUEST

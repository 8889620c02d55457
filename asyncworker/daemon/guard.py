"""Guard: what each request must pass before it is answered, and what each answer carries.

    host       is asked for by a name of ours? else a page elsewhere may have turned its own name to us (421)
    limits     a query, a body and a time to send it, that are bounded (408, 413, 414)
    token      who is it, and what may they do? (401, 403)
    origin     does a page of ours ask for a change? else one elsewhere may have made the browser ask (403)
    form       JSON at the API, forms of our pages; nothing that is packed (415)

Errors become problem documents (RFC 9457) at the API, and lines of text elsewhere; never a traceback. The rule about
origins is that of Go's net/http.CrossOriginProtection.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from asyncworker.daemon.audit import LOCAL, WHO
from asyncworker.daemon.tokens import Scope, Tokens
from asyncworker.errors import (
    AsyncWorkerError,
    BadParameters,
    BrokerError,
    DecodeError,
    JobExists,
    JobNotFound,
    JobTooBig,
    KeepError,
    QueueFull,
    ResultExpired,
    SettingsError,
    SourceError,
    UnknownName,
)
from asyncworker.secret import mask_text

log = logging.getLogger(__name__)

API = "/api/"
SAFE = {"GET", "HEAD", "OPTIONS"}
QUERY_CHARS = 8_192
BODY_BYTES = 2**20
BODY_S = 10.0
ANSWER_S = 10.0
CHANGE_S = 60.0
FORMS = ("application/json", "application/x-www-form-urlencoded")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
SCOPE = web.RequestKey("scope", Scope)
NOT_FOUND = {"worker", "schedule", "queue"}
"""Kinds of names that stand in paths."""
STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (JobNotFound, 404),
    (ResultExpired, 404),
    (JobExists, 409),
    (QueueFull, 429),
    (JobTooBig, 413),
    (BrokerError, 503),
    (KeepError, 503),
    (TimeoutError, 503),
    (BadParameters, 422),
    (UnknownName, 422),
    (DecodeError, 422),
    (SourceError, 422),
    (SettingsError, 422),
)
TITLES = {
    400: "Bad request",
    401: "Who are you?",
    403: "Not allowed",
    404: "Not found",
    405: "Not this way",
    408: "Too slow",
    409: "There is one already",
    413: "Too much",
    414: "Too long",
    415: "Not in this form",
    421: "Not our name",
    422: "Does not fit",
    429: "Not now",
    500: "Our mistake",
    503: "Not reachable",
}


class Problem(msgspec.Struct, frozen=True):
    """What went wrong with a request (RFC 9457)."""

    status: int
    title: str
    detail: str
    type: str = "about:blank"


class Refused(Exception):
    """A request that is not answered."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem(status, TITLES[status], detail)


def problem_of(error: Exception) -> Problem:
    """Return what is told of an error: its own words where it is one of ours, and no more than a title else."""
    if isinstance(error, Refused):
        return error.problem
    if isinstance(error, web.HTTPException):
        status = error.status
        return Problem(status, TITLES.get(status, error.reason), error.reason)
    status = next((status for kind, status in STATUSES if isinstance(error, kind)), 500)
    if isinstance(error, UnknownName) and error.kind in NOT_FOUND:
        status = 404
    detail = mask_text(str(error)) if isinstance(error, AsyncWorkerError) else ""
    if isinstance(error, TimeoutError) and not detail:
        detail = "there was no answer in time"
    return Problem(status, TITLES[status], detail)


class Guard:
    """What the application lets through.

    Args:
        tokens: None: everybody who reaches us may do everything.
        hosts: the names by which we may be asked, in lower case and without a port.
        scopes: what each route asks for, by method and path; pages are for READ, and their forms for ADMIN.
        patience: seconds that a route may take, by method and path; else `ANSWER_S`, and `CHANGE_S` for what is to be
            done; 0: as long as it likes.
    """

    def __init__(
        self,
        tokens: Tokens | None,
        hosts: Collection[str],
        scopes: Mapping[tuple[str, str], Scope],
        patience: Mapping[tuple[str, str], float],
    ) -> None:
        self._tokens, self._hosts, self._scopes, self._patience = tokens, frozenset(hosts), scopes, patience

    def middleware(self) -> Middleware:
        """Return what the application is to be made with."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                self._check_host(request)
                _check_size(request)
                path = _path(request)
                self._check_token(request, path)
                if request.method not in SAFE:
                    self._check_origin(request)
                    await _check_body(request)
                limit_s = self._patience.get((request.method, path), ANSWER_S if request.method in SAFE else CHANGE_S)
                async with asyncio.timeout(limit_s or None):
                    return await handler(request)
            except web.HTTPException as exc:
                if exc.status < 400:
                    raise
                return refusal(request, problem_of(exc), exc.headers)
            except (Refused, AsyncWorkerError, TimeoutError) as exc:
                return refusal(request, problem_of(exc))
            except Exception as exc:
                log.exception("%s %s cannot be answered", request.method, request.path)
                return refusal(request, problem_of(exc))

        return guarded

    def _check_host(self, request: web.Request) -> None:
        told = request.headers.getall("Host", [])
        if len(told) != 1 or host_of(told[0]) not in self._hosts:
            raise Refused(421, "this server has no such name; http_hosts says which it has")

    def _check_token(self, request: web.Request, path: str) -> None:
        needed = self._scopes.get((request.method.replace("HEAD", "GET"), path))
        if needed is None:
            needed = Scope.READ if request.method in SAFE else Scope.ADMIN
        if self._tokens is None:
            WHO.set(LOCAL)
            request[SCOPE] = Scope.ADMIN
            return
        if needed is Scope.OPEN:
            request[SCOPE] = Scope.OPEN
            return
        token = self._tokens.find(given) if (given := _given(request)) else None
        if token is None:
            raise Refused(401, "a token is needed: Authorization: Bearer …")
        if token.scope < needed:
            raise Refused(403, f"the token {token.name!r} has the scope {token.scope.name.lower()!r}; this needs more")
        WHO.set(token.name)
        request[SCOPE] = token.scope

    def _check_origin(self, request: web.Request) -> None:
        site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
        if site is not None:
            if site in {"same-origin", "none"}:
                return
        elif origin is not None:
            if urlsplit(origin).netloc.lower() == request.headers["Host"].lower():
                return
        elif _scheme(request) == "bearer" or (self._tokens is None and request.path.startswith(API)):
            return  # no browser: it says where a change is asked from; and which of them sends JSON unasked?
        raise Refused(403, "a change must be asked for by a page of this server, or with a bearer token")


def host_of(told: str) -> str:
    """Return the name in a ``Host`` header, in lower case and without the port; "" where it is none."""
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)(?::[0-9]{1,5})?", told.lower())
    return found[1] if found else ""


def refusal(request: web.Request, problem: Problem, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return the answer to a request that went wrong."""
    api = request.path.startswith(API)
    told = {name: value for name, value in (headers or {}).items() if name == "Allow"}
    if problem.status == 401:
        told["WWW-Authenticate"] = f'{"Bearer" if api else "Basic"} realm="asyncworker"'
    if problem.status in {429, 503}:
        told["Retry-After"] = "1"
    if problem.status in {408, 413}:
        told["Connection"] = "close"
    if api:
        return web.Response(
            body=msgspec.json.encode(problem),
            status=problem.status,
            headers=told,
            content_type="application/problem+json",
        )
    said = f"{problem.title}: {problem.detail}\n" if problem.detail else f"{problem.title}\n"
    return web.Response(text=said, status=problem.status, headers=told)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Give each answer what keeps browsers from doing more with it than they should."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if not request.path.startswith("/static/"):
        response.headers.setdefault("Cache-Control", "no-store")
    response.headers["Server"] = "asyncworker"


def _path(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource else ""


def _check_size(request: web.Request) -> None:
    if len(request.rel_url.raw_query_string) > QUERY_CHARS:
        raise Refused(414, f"a query has {QUERY_CHARS:,} characters at most")


def _scheme(request: web.Request) -> str:
    return request.headers.get("Authorization", "").partition(" ")[0].lower()


def _given(request: web.Request) -> str:
    """Return the token of a request: a bearer's, or what a browser asked its user for."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, or no text
            return ""
    return ""


async def _check_body(request: web.Request) -> None:
    """Read the body, for all who want it afterwards: in bounded time and memory."""
    if "Content-Encoding" in request.headers:
        raise Refused(415, "nothing packed is taken")
    if request.method != "DELETE" or request.body_exists:
        forms = FORMS[:1] if request.path.startswith(API) else FORMS
        if request.content_type not in forms or "Content-Type" not in request.headers:
            raise Refused(415, f"want Content-Type: {' or '.join(forms)}")
    try:
        async with asyncio.timeout(BODY_S):
            await request.read()
    except TimeoutError:
        raise Refused(408, f"the body did not come within {BODY_S:g} s") from None
    except web.RequestPayloadError as exc:
        raise Refused(400, "the body cannot be read") from exc
    except web.HTTPRequestEntityTooLarge:
        raise Refused(413, f"a body has {BODY_BYTES:,} bytes at most") from None

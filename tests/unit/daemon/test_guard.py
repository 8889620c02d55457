"""What each request must pass: hosts, tokens, origins, forms and limits; on each route that there is."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import itertools
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from asyncworker import Engine
from asyncworker.daemon.guard import BODY_BYTES, HEADERS, STATUSES, Guard, host_of, problem_of
from asyncworker.daemon.web import Doors
from asyncworker.errors import BrokerDown, SettingsError, UnknownName
from tests.support.brokers import until
from tests.support.daemon import V1, Client, served, tokens_of

SEEN = {
    "openapi.json", "overview", "events", "chart", "names", "jobs", "jobs/{job}", "queues", "workers", "schedules", "dead",
    "dead/{job}", "runs", "runs/{job}", "decisions", "profile", "profile/speedscope", "memory", "settings",
}  # fmt: skip
ROUTES: dict[tuple[str, str], str] = {
    **{("GET", f"{V1}/{path}"): "read" for path in SEEN},
    ("GET", f"{V1}/jobs/{{job}}/result"): "submit",
    ("GET", f"{V1}/audit"): "admin",
    ("POST", f"{V1}/jobs"): "submit",
    ("POST", f"{V1}/runs"): "submit",
    ("POST", f"{V1}/jobs/batch"): "admin",
    ("POST", f"{V1}/jobs/{{job}}/cancel"): "admin",
    ("POST", f"{V1}/jobs/{{job}}/retry"): "admin",
    ("POST", f"{V1}/queues/{{queue}}/pause"): "admin",
    ("POST", f"{V1}/queues/{{queue}}/resume"): "admin",
    ("PUT", f"{V1}/queues/{{queue}}/bound"): "admin",
    ("POST", f"{V1}/workers/restart"): "admin",
    ("POST", f"{V1}/workers/{{worker}}/stop"): "admin",
    ("PUT", f"{V1}/schedules/{{name}}"): "admin",
    ("DELETE", f"{V1}/schedules/{{name}}"): "admin",
    ("POST", f"{V1}/schedules/{{name}}/run"): "admin",
    ("POST", f"{V1}/dead/replay"): "admin",
    ("POST", f"{V1}/dead/purge"): "admin",
    ("GET", "/healthz"): "open",
    ("GET", "/readyz"): "read",
    ("GET", "/metrics"): "read",
    ("GET", "/audit"): "admin",
}
"""The scope that each route needs, as it was thought of; pages are for reading, and their forms for admins."""
FORBIDDEN = {401, 403}


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()

    @engine.task(name="mail")
    async def mail(x: str) -> str:
        return x

    async with engine:
        yield engine


@pytest.fixture
async def guarded(engine: Engine, tmp_path: Path) -> AsyncIterator[tuple[Client, dict[str, str]]]:
    path, tokens = tokens_of(tmp_path)
    async with served(engine, tokens=path, dashboard=True) as client:
        yield client, tokens


@pytest.fixture
async def open_(engine: Engine) -> AsyncIterator[Client]:
    async with served(engine, dashboard=True) as client:
        yield client


def routes_of(app: web.Application) -> set[tuple[str, str]]:
    found = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    return {(method, path) for method, path in found if method != "HEAD"}


def needed(method: str, path: str) -> str:
    pages = "read" if method == "GET" else "admin"
    return ROUTES.get((method, path), pages)


async def test_s52_each_route_wants_the_token_that_it_should(guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    client, tokens = guarded
    known = await all_routes(monkeypatch)
    api = {
        (method, path)
        for method, path in known
        if path.startswith("/api/") or path in {"/metrics", "/healthz", "/readyz"}
    }
    assert api == {key for key in ROUTES if key != ("GET", "/audit")}, "a new route wants a row in ROUTES"
    assert len(known) > len(api)
    given = {"none": "", "bad": "awk_" + 43 * "x", **tokens}
    order = ["none", "read", "submit", "admin"]
    for (method, path), (kind, token) in itertools.product(sorted(known), given.items()):
        want = needed(method, path)
        told = path.replace("{", "").replace("}", "") + ("/app.css" if path == "/static" else "")
        if path.endswith("/events") and kind in tokens:
            continue  # it never ends
        body = {} if path.startswith("/api/") and method in {"POST", "PUT"} else None
        answer = await client.ask(method, told, body, token)
        case = f"{method} {path} with {kind}: {answer.status}"
        if want == "open":
            assert answer.status not in FORBIDDEN, case
        elif kind in {"none", "bad"}:
            assert answer.status == 401, case
            assert "WWW-Authenticate" in answer.headers, case
        elif order.index(kind) < order.index(want):
            assert answer.status == 403, case
        else:
            assert answer.status not in FORBIDDEN, case


async def all_routes(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """Return the routes of an application as the daemon makes it."""
    made: list[web.Application] = []
    real = web.AppRunner

    def note(app: web.Application, **more: Any) -> web.AppRunner:
        made.append(app)
        return real(app, **more)

    with monkeypatch.context() as patch:
        patch.setattr(web, "AppRunner", note)
        async with Engine() as engine, served(engine, dashboard=True):
            pass
    return routes_of(made[0])


def basic(token: str) -> str:
    return "Basic " + base64.b64encode(f"whoever:{token}".encode()).decode()


async def test_a_browser_gives_its_token_as_a_password(guarded) -> None:
    client, tokens = guarded
    login = basic(tokens["read"])
    assert (await client.ask("GET", f"{V1}/overview", Authorization=login)).status == 200
    assert (await client.ask("GET", "/", Authorization=login)).status == 200
    for broken in ("Basic", "Basic !!", "Basic " + "ÿ", "Digest x", "Bearer", "Bearer  "):
        assert (await client.ask("GET", f"{V1}/overview", Authorization=broken)).status == 401, broken


async def test_who_reads_cannot_see_what_was_done_by_whom(guarded) -> None:
    client, tokens = guarded
    await client.post("/jobs", {"task": "mail", "args": ["x"]}, token=tokens["submit"], status=201)
    (row, *_) = (await client.get("/audit", token=tokens["admin"]))["rows"]
    assert (row["who"], row["action"], row["target"], row["outcome"]) == ("submiter", "enqueue", "mail", "done")


# --- by which name are we asked? (8) ----------------------------------------------------------------------------


A_FOREIGN_HOST_IS_NOT_ANSWERED = [
    "evil.example",
    "",
    ".",
    "localhost.",
    "127.0.0.1.",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "[::ffff:7f00:1]",
    "[2001:db8::1]",
    "localhost:x",
    "localhost:123456",
    "user@localhost",
    "localhost/x",
    "0.0.0.0",
    "127.1",
    "lоcalhost",
]


async def test_a_foreign_host_is_not_answered(open_: Client) -> None:
    for host in A_FOREIGN_HOST_IS_NOT_ANSWERED:
        for path in ("/", "/metrics", "/healthz", f"{V1}/overview", "/static/app.css", "/nowhere"):
            status, _ = await raw(open_, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert status in {400, 421}, (host, path)


ONE_HOST_IS_NAMED = ["Host: localhost\r\nHost: evil.example", "Host: localhost\r\nHost: localhost", "X: y"]


async def test_one_host_is_named(open_: Client) -> None:
    for head in ONE_HOST_IS_NAMED:
        status, _ = await raw(open_, f"GET /healthz HTTP/1.1\r\n{head}\r\n\r\n".encode())
        assert status in {400, 421}


OUR_OWN_NAMES_ARE_ANSWERED = ["localhost", "LocalHost:8787", "127.0.0.1", "[::1]", "[::1]:1", "LOCALHOST"]


async def test_our_own_names_are_answered(open_: Client) -> None:
    for host in OUR_OWN_NAMES_ARE_ANSWERED:
        status, _ = await raw(open_, f"GET {V1}/names HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert status == 200


async def test_other_names_can_be_allowed(engine: Engine) -> None:
    async with served(engine, hosts=("Shop.Example",)) as client:
        assert (await client.ask("GET", f"{V1}/names", Host="shop.example:443")).status == 200
        assert (await client.ask("GET", f"{V1}/names", Host="other.example")).status == 421


@pytest.mark.parametrize("told", ["", "a b", "-\n", "[::1", "a..b", "a:b:c", "é"])
def test_what_is_no_host(told: str) -> None:
    assert host_of(told) == ""


# --- who asks for changes? (9) ----------------------------------------------------------------------------------


PAGES_ELSEWHERE_CHANGE_NOTHING = [
    ({"Sec_Fetch_Site": "same-origin"}, 201),
    ({"Sec_Fetch_Site": "none"}, 201),
    ({"Sec_Fetch_Site": "cross-site"}, 403),
    ({"Sec_Fetch_Site": "same-site"}, 403),
    ({"Sec_Fetch_Site": "cross-site", "Origin": "{own}"}, 403),
    ({"Origin": "{own}"}, 201),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": ""}, 403),
    ({"Origin": "http://localhost:1"}, 403),
    ({}, 201),
]


async def test_s52_pages_elsewhere_change_nothing(open_: Client) -> None:
    for headers, status in PAGES_ELSEWHERE_CHANGE_NOTHING:
        own = {name: value.replace("{own}", open_.url) for name, value in headers.items()}
        answer = await open_.ask("POST", f"{V1}/jobs", {"task": "mail", "args": ["x"]}, **own)
        assert answer.status == status


THE_API_TAKES_JSON_ALONE = [
    "application/x-www-form-urlencoded",
    "text/plain",
    "multipart/form-data; boundary=x",
    "text/json",
    "",
]


async def test_the_api_takes_json_alone(open_: Client) -> None:
    for kind in THE_API_TAKES_JSON_ALONE:
        head = {"Content-Type": kind} if kind else {}
        async with open_.session.post(
            f"{open_.url}{V1}/jobs",
            data=b'{"task": "mail", "args": ["x"]}',
            headers=head,
            skip_auto_headers=["Content-Type"],
        ) as answer:
            assert answer.status == 415


async def test_a_form_without_an_origin_changes_nothing(guarded, open_: Client) -> None:
    async with open_.session.post(f"{open_.url}/queues", data={"queue": "default", "do": "pause"}) as answer:
        assert answer.status == 403
    client, tokens = guarded
    login = basic(tokens["admin"])
    assert (await client.ask("POST", f"{V1}/queues/default/resume", {}, Authorization=login)).status == 403
    assert (
        await client.ask("POST", f"{V1}/queues/default/resume", {}, Authorization=login, Origin=client.url)
    ).status == 204


async def test_asking_changes_nothing(open_: Client) -> None:
    for path in ("/jobs/batch", "/dead/purge", "/queues/default/pause", "/workers/restart", "/schedules/x/run"):
        answer = await open_.ask("GET", V1 + path)
        assert answer.status in {404, 405}, path
    head = await open_.ask("OPTIONS", f"{V1}/jobs", Origin="http://evil.example", Access_Control_Request_Method="POST")
    assert not [name for name in head.headers if name.lower().startswith("access-control")]


# --- what answers carry -----------------------------------------------------------------------------------------


EACH_ANSWER_KEEPS_BROWSERS_WITHIN_BOUNDS = [
    "/",
    f"{V1}/overview",
    f"{V1}/nowhere",
    "/nowhere",
    "/metrics",
    "/healthz",
    "/static/app.css",
]


async def test_each_answer_keeps_browsers_within_bounds(open_: Client) -> None:
    for path in EACH_ANSWER_KEEPS_BROWSERS_WITHIN_BOUNDS:
        answer = await open_.ask("GET", path)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
        assert "aiohttp" not in answer.headers["Server"]
        assert "Python" not in answer.headers["Server"]


async def test_an_unforeseen_error_is_told_without_its_words(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    class Odd(Guard):
        def _check_token(self, request: web.Request, path: str) -> None:
            raise RuntimeError("canary of a secret")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asyncworker.daemon.web.Guard", Odd)
        async with served(engine) as client:
            answer = await client.ask("GET", f"{V1}/overview")
    assert answer.status == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert b"canary" not in answer.raw
    assert b"Traceback" not in answer.raw
    assert "canary" in caplog.text


def test_each_error_of_ours_has_a_status() -> None:
    assert problem_of(BrokerDown("redis://u:secret@x is away")).detail == "redis://u:***@x is away"
    assert problem_of(UnknownName("queue", "x")).status == 404
    assert problem_of(UnknownName("task", "x")).status == 422
    assert problem_of(SettingsError("x")).status == 422
    assert problem_of(TimeoutError()).status == 503
    assert problem_of(ZeroDivisionError("x")).status == 500
    assert {status for _, status in STATUSES} == {404, 409, 413, 422, 429, 503}


# --- how much, and how slowly? (11, 12) --------------------------------------------------------------------------


async def test_bodies_and_queries_are_bounded(open_: Client) -> None:
    kind = {"Content-Type": "application/json"}
    large = io.BytesIO(b" " * (BODY_BYTES + 1))
    async with open_.session.post(f"{open_.url}{V1}/jobs", data=large, headers=kind) as answer:
        assert answer.status == 413
    assert (await open_.ask("GET", f"{V1}/jobs?task=" + 8_200 * "x")).status == 414
    status, _ = await raw(open_, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + 20_000 * b"x" + b"\r\n\r\n")
    assert status == 400
    status, _ = await raw(open_, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + 100 * b"X: y\r\n" + b"\r\n")
    assert status == 400


async def test_nothing_packed_is_taken(open_: Client) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    async with open_.session.post(
        f"{open_.url}{V1}/jobs", data=bomb, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"}
    ) as answer:
        assert answer.status == 415


WHAT_IS_NO_QUESTION_IS_REFUSED = [
    b"[" * 100_000,
    b'{"task":' * 50_000,
    b"nul",
    b"\xff\xfe",
    b"{}",
    b"[]",
    b"1",
    b'{"task": 1}',
]


async def test_what_is_no_question_is_refused(open_: Client) -> None:
    for body in WHAT_IS_NO_QUESTION_IS_REFUSED:
        async with open_.session.post(
            f"{open_.url}{V1}/jobs", data=body, headers={"Content-Type": "application/json"}
        ) as answer:
            assert answer.status in {400, 422}
            assert json.loads(await answer.read())["status"] == answer.status


async def test_a_hundred_thousand_chunks_cost_little(open_: Client) -> None:
    head = f"POST {V1}/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"1\r\n \r\n" * 100_000 + b"2\r\n{}\r\n0\r\n\r\n"
    before = time.process_time()
    status, _ = await raw(open_, head.encode() + body)
    spent = time.process_time() - before
    assert status == 422  # a call without a task
    assert spent < 1.0, "of both sides; it is 0.1 s"


async def test_s52_who_sends_byte_by_byte_holds_nobody_up(engine: Engine) -> None:
    doors = Doors(idle_s=1.0)
    async with served(engine, doors=doors, dashboard=True) as client:
        slow = [await asyncio.open_connection("127.0.0.1", client.port) for _ in range(200)]
        for _, writer in slow:
            writer.write(b"GET / HTTP/1.1\r\nHost: loc")
        assert (await client.ask("GET", "/healthz")).status == 200

        async def all_gone() -> bool:
            for _, writer in slow:
                if not writer.transport.is_closing():
                    writer.write(b"a")
            return all(reader.at_eof() or writer.transport.is_closing() for reader, writer in slow)

        await until(all_gone, 20.0)
        for _, writer in slow:
            writer.close()


async def test_s52_there_is_an_end_to_connections(engine: Engine) -> None:
    async with served(engine, doors=Doors(most=8, most_of_a_peer=4)) as client:
        held = [await asyncio.open_connection("127.0.0.1", client.port) for _ in range(4)]
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
        held.pop()[1].close()

        async def answered() -> bool:
            try:
                return (await client.ask("GET", f"{V1}/names")).status == 200
            except aiohttp.ClientError:
                return False

        await until(answered, 20.0)
        for _, other in held:
            other.close()


async def test_a_body_that_does_not_come_is_not_waited_for(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncworker.daemon.guard.BODY_S", 0.05)
    async with served(engine) as client:
        head = f"POST {V1}/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{"
        status, _ = await raw(client, head.encode())
    assert status == 408


async def raw(client: Client, data: bytes) -> tuple[int, bytes]:
    """Send bytes as they are, and return the status and the first of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    try:
        writer.write(data)
        async with asyncio.timeout(20):
            line = await reader.readline()
            return int(line.split()[1]), line
    finally:
        writer.close()

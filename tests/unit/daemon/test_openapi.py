"""The description of the API, and whether the API is as described: asked by schemathesis, on a real Redis."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import hypothesis
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from asyncworker import Engine
from asyncworker.daemon.openapi import Route, document
from asyncworker.daemon.tokens import Scope
from tests.support.daemon import V1, Client, served

pytestmark = pytest.mark.once

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 4
PATIENCE = 30.0


def engine_of(url: str, namespace: str) -> Engine:
    engine = Engine(url, namespace=namespace, concurrency=4)

    @engine.task(name="mail")
    async def mail(to: str = "") -> str:
        return to

    @engine.task(name="refuse", max_attempts=1)
    async def refuse() -> None:
        raise ValueError("no")

    return engine


@pytest.fixture(scope="module")
def url(redis_url: str) -> Iterator[str]:
    """Serve from a thread of its own, for clients that block; some jobs are there."""
    begun: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def live() -> None:
        leave = asyncio.Event()
        async with engine_of(redis_url, "described") as engine, served(engine, show_arguments=True) as client:
            working = asyncio.create_task(engine.run())
            await fill(client)
            begun.set_result((client.url, asyncio.get_running_loop(), leave))
            await leave.wait()
            engine.stop(now=True)
            await working

    thread = threading.Thread(target=asyncio.run, args=(live(),), name="described")
    thread.start()
    url, loop, leave = begun.result(PATIENCE)
    yield url
    loop.call_soon_threadsafe(leave.set)
    thread.join(PATIENCE)


async def fill(client: Client) -> None:
    for task in ("mail", "refuse", "mail"):
        await client.post("/jobs", {"task": task}, status=201)
    await client.post("/jobs", {"task": "mail", "options": {"delay": 1000}}, status=201)
    run = {"items": [{"text": "a"}], "function": "word_count", "params": {"field": "text"}}
    await client.post("/runs", run, status=201)
    await client.post("/schedules/poll", {"task": "mail", "every": 1000}, method="PUT")


@pytest.mark.timeout(120)
def test_s52_the_api_is_as_described(url: str, seed: int) -> None:
    print("seed", seed)
    schema = schemathesis.openapi.from_url(f"{url}{V1}/openapi.json")
    told = [one.ok() for one in schema.get_all_operations() if not one.ok().path.endswith("/events")]
    assert len(told) > 30
    for operation in told:
        for mode in GenerationMode:
            ask(operation, mode, seed)


def ask(operation: Any, mode: GenerationMode, seed: int) -> None:
    try:
        strategy = operation.as_strategy(generation_mode=mode)
    except Exception as exc:
        if type(exc).__name__ == "Unsatisfiable":
            return
        raise

    @hypothesis.seed(seed)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @hypothesis.given(case=strategy)
    def each(case: Any) -> None:
        if "wait" in (case.query or {}):
            case.query["wait"] = 0
        case.call_and_validate(checks=CHECKS, timeout=PATIENCE)

    try:
        each()
    except hypothesis.errors.Unsatisfiable:
        return  # there is no wrong way to ask


class Body(msgspec.Struct):
    """What is sent."""

    name: str


def test_a_route_is_described_by_what_checks_it() -> None:
    class Query(msgspec.Struct):
        limit: int = 5

    async def call(ask: Any) -> None: ...

    route = Route("PUT", "/things/{name}", Scope.ADMIN, "Set a thing", Body, call, Query, Body, status=201)
    told = document([route])
    operation = told["paths"]["/api/v1/things/{name}"]["put"]
    assert [(of["name"], of["in"], of["required"]) for of in operation["parameters"]] == [
        ("name", "path", True),
        ("limit", "query", False),
    ]
    assert operation["parameters"][1]["schema"] == {"type": "integer", "default": 5}
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Body"}
    assert set(operation["responses"]) == {"201", "4XX", "503"}
    assert operation["x-scope"] == "admin"
    assert set(told["components"]["schemas"]) == {"Problem", "Body"}
    assert told["openapi"].startswith("3.1")

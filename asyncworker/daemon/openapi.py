"""OpenAPI 3.1, made of the table of routes and of the Structs in it: one source for what is checked and what is told."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from asyncworker import __version__
from asyncworker.daemon.guard import Problem
from asyncworker.daemon.tokens import Scope

ROOT = "/api/v1"
REF = "#/components/schemas/{name}"
_IN_PATH = re.compile(r"{([a-z]+)}")


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


@dataclass(frozen=True)
class Ask:
    """A request that was checked: the parts of its path, its query and its body as the route's types."""

    request: web.Request
    path: Mapping[str, str]
    query: Any
    body: Any


@dataclass(frozen=True)
class Route:
    """One way to ask.

    Args:
        path: below ``/api/v1``. summary: for people. scope: what a token must allow.
        call: gives the answer: a value of the type *answer*, or a whole response, where *media* is not JSON.
        query, body: Structs; who has a field that these have not is refused.
        patience: seconds that it may take; 0: as long as it likes; None: the guard knows.
    """

    method: str
    path: str
    scope: Scope
    summary: str
    answer: Any
    call: Callable[[Ask], Awaitable[Any]] = field(repr=False)
    query: type[msgspec.Struct] = Nothing
    body: type[msgspec.Struct] | None = None
    status: int = 200
    media: str = "application/json"
    patience: float | None = None

    @property
    def name(self) -> str:
        words = re.findall(r"[a-z]+", self.path)
        return "_".join([self.method.lower(), *words])


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the description of the API."""
    routes = list(routes)
    kinds: list[Any] = [Problem]
    for route in routes:
        kinds += [kind for kind in (route.answer, route.body) if kind not in (None, bytes, *kinds)]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(f"{ROOT}{route.path}", {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "asyncworker",
            "version": __version__,
            "description": "Jobs, queues, workers and schedules of one fleet. Dates are seconds since the epoch.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": f"Scope: {route.scope.name.lower()}.",
        "x-scope": route.scope.name.lower(),
        "parameters": [*_in_path(route), *_in_query(route)],
        "responses": {
            str(route.status): _answer(route),
            "4XX": _problem("It was refused."),
            "503": _problem("The broker cannot be reached."),
        },
    }
    if route.body is not None:
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(route.body)}}}
    return told


def _in_path(route: Route) -> list[dict[str, Any]]:
    names = _IN_PATH.findall(route.path)
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
    ]


def _in_query(route: Route) -> list[dict[str, Any]]:
    schema = msgspec.json.schema(route.query)["$defs"][route.query.__name__]
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": of}
        for name, of in schema.get("properties", {}).items()
    ]


def _answer(route: Route) -> dict[str, Any]:
    told: dict[str, Any] = {"description": "It was done."}
    if route.answer is not None:
        schema = {"type": "string"} if route.answer is bytes else _ref(route.answer)
        told["content"] = {route.media: {"schema": schema if route.media == "application/json" else {}}}
    return told


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/problem+json": {"schema": _ref(Problem)}}}


def _ref(kind: Any) -> dict[str, str]:
    return {"$ref": REF.format(name=kind.__name__)}

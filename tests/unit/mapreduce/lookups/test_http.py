"""A web service as a look-up: what is tried again, what is refused, and what never leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from asyncworker.errors import BadParameters, SourceError
from asyncworker.mapreduce.lookups import http
from tests.support.web import served


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PAUSE_S", 0.001)


async def asked(answers: list[web.Response], timeout_s: float = 5.0, key: str = "k") -> tuple[Any, int]:
    """Ask once where these are the answers, the last one for ever; returns what came, and after how many requests."""
    requests = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        given = answers[min(requests, len(answers)) - 1]
        return web.Response(status=given.status, body=given.body, headers=dict(given.headers))

    async with served(answer) as url:
        lookup = http.open(f"{url}/{{key}}", None, timeout_s)
        try:
            return await lookup.fetch([key]), requests
        except SourceError as exc:
            return str(exc).removeprefix(lookup.label).strip(), requests
        finally:
            await lookup.close()


@pytest.mark.parametrize("status", [204, 404, 410])
async def test_nothing_known_is_an_answer(status: int) -> None:
    assert await asked([web.Response(status=status)]) == ({}, 1)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_who_is_busy_is_asked_again(status: int) -> None:
    assert await asked([web.Response(status=status, headers={"Retry-After": "0"}), web.Response(text="[1]")]) == (
        {"k": [1]},
        2,
    )
    assert await asked([web.Response(status=status)]) == (f"answers {status}", 3)


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 500])
async def test_other_answers_are_errors_and_redirects_are_not_followed(status: int) -> None:
    given = web.Response(status=status, headers={"Location": "/elsewhere"})
    assert await asked([given, web.Response(text="1")]) == (f"answers {status}", 1)


async def test_what_is_no_json_or_too_long_is_an_error() -> None:
    assert await asked([web.Response(text="<html>")]) == ("does not answer JSON", 1)
    long = web.Response(text='"' + "x" * http.MOST_BYTES + '"')
    assert await asked([long]) == (f"answers more than {http.MOST_BYTES:,} bytes", 1)


async def test_a_connection_that_breaks_is_tried_again() -> None:
    tries = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal tries
        tries += 1
        if tries < 3 and request.transport:
            request.transport.abort()
        return web.json_response({"tries": tries})

    async with served(answer) as url:
        lookup = http.open(f"{url}/{{key}}", None, 5.0)
        assert await lookup.fetch(["k"]) == {"k": {"tries": 3}}
        await lookup.close()


async def test_who_gives_no_answer_is_given_up() -> None:
    over = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    async with served(answer) as url:
        lookup = http.open(f"{url}/{{key}}", None, 0.05)
        with pytest.raises(SourceError, match=r"gives no answer within 0\.05 s"):
            await lookup.fetch(["k"])
        over.set()
        await lookup.close()


@pytest.mark.parametrize(
    ("url", "because"),
    [
        ("http://host/cities", "must have {key} once"),
        ("http://host/{key}/{key}", "must have {key} once"),
        ("http://{key}/cities", "must have {key} once"),
        ("http://host:{key}/cities", "must have {key} once"),
        ("http://host/x#{key}", "must have {key} once"),
        ("http:///{key}", "must have {key} once"),
        ("http://me:secret@host/{key}", "must not hold a name or password"),
    ],
)
def test_s22_urls_with_a_loose_key_or_a_password_are_refused(url: str, because: str) -> None:
    with pytest.raises(BadParameters, match=because) as caught:
        http.open(url, None, 5.0)
    assert "secret" not in str(caught.value)


def test_it_needs_no_name_of_a_key() -> None:
    with pytest.raises(BadParameters, match="needs no name of a key"):
        http.open("http://host/{key}", "id", 5.0)


def test_the_query_is_not_shown() -> None:
    assert http.open("https://host/x?q={key}&token=t0p", None, 5.0).label == "https://host/x"

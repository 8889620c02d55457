"""The daemon's API as people reach it: from the command line on, through outages, and by those who should not."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from asyncworker import Engine
from asyncworker.daemon.tokens import add_token
from tests.faults.server import server
from tests.support.brokers import until
from tests.support.command import call, started
from tests.support.daemon import V1, served

CANARY = "c4n4ry-0f-a-s3cr3t"
APP = """
from asyncworker import Engine

engine = Engine(queues={"default": 3})


@engine.task(max_attempts=1)
async def charge(order: int, password: str = "") -> int:
    if order < 0:
        raise ValueError(f"order {order} is none")
    return order
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


def ask(url: str, path: str, body: Any = None, token: str = "", context: ssl.SSLContext | None = None) -> Any:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers)
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:
        return json.loads(answer.read() or b"null")


def refused(url: str, path: str, token: str = "") -> int:
    with pytest.raises(urllib.error.HTTPError) as error:
        ask(url, path, token=token)
    error.value.close()
    return error.value.code


def test_s52_s22_a_daemon_works_for_those_who_have_a_token(place: Path, redis_url: str, namespace: str) -> None:
    code, made, _ = call("token", "add", "shop", "--scope", "submit", "--http-tokens", "tokens", cwd=place)
    assert code == 0
    token, reader = made.strip(), add_token(str(place / "tokens"), "watcher", "read")
    words = ("daemon", "shop", "--min-workers", "1", "--max-workers", "1", "--http", "127.0.0.1:0")
    where = {"ASYNCWORKER_BROKER": redis_url, "ASYNCWORKER_NAMESPACE": namespace, "ASYNCWORKER_LOG_LEVEL": "debug"}
    with started(*words, cwd=place, ASYNCWORKER_HTTP_TOKENS="tokens", **where) as daemon:
        found = re.search(r"http://127\.0\.0\.1:[0-9]+", daemon.wait_for("http://127.0.0.1:"))
        assert found
        url = found[0]
        call_ = {"task": "charge", "args": [7], "kwargs": {"password": CANARY}}
        job = ask(url, f"{V1}/jobs", call_, token)["id"]
        assert ask(url, f"{V1}/jobs/{job}/result?wait=30", token=token)["value"] == 7
        bad = ask(url, f"{V1}/jobs", {"task": "charge", "args": [-1]}, token)["id"]
        assert "order -1 is none" in ask(url, f"{V1}/jobs/{bad}/result?wait=30", token=token)["error"]
        assert CANARY not in json.dumps(ask(url, f"{V1}/jobs/{job}", token=reader))
        assert ask(url, f"{V1}/overview", token=reader)["fleet"]["max_workers"] == 1
        assert refused(url, f"{V1}/overview") == 401
        assert refused(url, "/metrics") == 401
        assert refused(url, f"{V1}/audit", token) == 403
        with urllib.request.urlopen(f"{url}/healthz", timeout=30) as answer:
            assert answer.status == 200
        every = [daemon.process, *daemon.children()]
        for process in every:
            words = (
                Path(f"/proc/{process.pid}/cmdline").read_bytes() + Path(f"/proc/{process.pid}/environ").read_bytes()
            )
            assert token.encode() not in words
        daemon.signal(signal.SIGTERM)
        code, _, said = daemon.end()
    assert code == 0
    assert CANARY not in said
    assert token not in said
    assert "'shop': enqueue 'charge': 'done'" in said


def test_s35_off_loopback_needs_tokens_and_tls(place: Path) -> None:
    add_token(str(place / "tokens"), "ops", "admin")
    (place / "none").touch(mode=0o600)
    away = ("daemon", "shop", "--broker", "redis://localhost:1", "--http")
    for words, told in (
        ((*away, "0.0.0.0:0"), "make a token"),
        ((*away, "[::]:0"), "make a token"),
        ((*away, "10.1.2.3:0"), "make a token"),
        ((*away, "0.0.0.0:0", "--http-tokens", "none"), "make a token"),
        ((*away, "0.0.0.0:0", "--http-tokens", "nowhere"), "cannot read"),
        ((*away, "0.0.0.0:0", "--http-tokens", "tokens"), "http_tls_cert"),
        ((*away, "0.0.0.0:0", "--http-tokens", "tokens", "--http-tls-cert", "c"), "go together"),
        (
            (*away, "0.0.0.0:0", "--http-tokens", "tokens", "--http-tls-cert", "c", "--http-tls-key", "k"),
            "cannot be used",
        ),
    ):
        code, _, said = call(*words, cwd=place)
        assert (code, told in said) == (2, True), said


@pytest.mark.parametrize(
    "value", ["8787", "localhost", "localhost:", "localhost:x", "localhost:65536", ":80", "a b:80", ""]
)
def test_s24_an_address_that_is_none_names_the_variable(place: Path, value: str) -> None:
    code, _, said = call("daemon", "shop", cwd=place, ASYNCWORKER_HTTP=value)
    assert code == 2
    assert "ASYNCWORKER_HTTP" in said


def test_a_port_that_is_taken(place: Path, redis_url: str, namespace: str) -> None:
    """One that somebody chose is an error; the usual one goes without, for the workers are more important."""
    words = ("daemon", "shop", "--min-workers", "0", "--broker", redis_url, "--namespace", namespace)
    with started(*words, "--http", "127.0.0.1:0", cwd=place) as first:
        taken = re.search(r"http://(127\.0\.0\.1:[0-9]+)", first.wait_for("http://127.0.0.1:"))
        assert taken
        code, _, said = call(*words, "--http", taken[1], cwd=place)
        assert code == 2
        assert "choose another" in said


def test_tls_is_served(place: Path, redis_url: str, namespace: str) -> None:
    openssl = (
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    )
    made = subprocess.run(
        [
            *openssl,
            "-keyout",
            "key",
            "-out",
            "cert",
            "-subj",
            "/CN=here",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ],
        cwd=place,
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no openssl to make a certificate: {made.stderr[:100]!r}")
    token = add_token(str(place / "tokens"), "ops", "admin")
    words = (
        "daemon",
        "shop",
        "--min-workers",
        "0",
        "--broker",
        redis_url,
        "--namespace",
        namespace,
        "--http",
        "127.0.0.1:0",
    )
    more = ("--http-tokens", "tokens", "--http-tls-cert", "cert", "--http-tls-key", "key")
    with started(*words, *more, cwd=place) as daemon:
        found = re.search(r"https://127\.0\.0\.1:[0-9]+", daemon.wait_for("https://127.0.0.1:"))
        assert found
        context = ssl.create_default_context(cafile=str(place / "cert"))
        url = found[0]
        assert ask(url, f"{V1}/names", token=token, context=context)["tasks"]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(url, f"{V1}/names", context=context)


async def test_an_outage_of_redis_is_told_and_passes() -> None:
    with server(durable=True) as redis:
        engine = Engine(redis.url)

        @engine.task(name="charge")
        async def charge() -> None: ...

        async with engine, served(engine) as client:
            job = (await client.post("/jobs", {"task": "charge"}, status=201))["id"]
            engine.broker._patience = engine.broker._script.patience = 0.5  # as the wait is what it is
            redis.kill()

            async def away() -> bool:
                paths = ("/jobs", f"/jobs/{job}", "/queues", "/dead")
                answers = await asyncio.gather(*(client.ask("GET", V1 + path) for path in paths))
                assert {answer.status for answer in answers} <= {200, 503}
                bad = [answer for answer in answers if answer.status == 503]
                assert all(answer.headers["Content-Type"] == "application/problem+json" for answer in bad)
                assert all(answer.headers["Retry-After"] == "1" for answer in bad)
                assert not [
                    answer for answer in bad if os.fsencode(str(redis.place)) in answer.raw and b"@" in answer.raw
                ]
                return len(bad) == len(answers)

            await until(away, 40.0)
            redis.start()

            async def back() -> bool:
                return (await client.ask("GET", f"{V1}/jobs/{job}")).status == 200

            await until(back, 40.0)
            assert (await client.get("/jobs"))["jobs"][0]["id"] == job

"""Pages without a browser: what is sent, what is refused, and what travels with the package."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import pytest

from asyncworker import Engine
from asyncworker.daemon import pages, template
from asyncworker.daemon.answers import DecisionsSeen, Series
from asyncworker.daemon.explained import Explained
from asyncworker.daemon.picture import columns, steps
from asyncworker.errors import BrokerDown
from asyncworker.task import Call
from tests.support.daemon import Answer, Client, served, tokens_of

VENDOR = template.STATIC / "vendor"
HTMX = {"HX_Request": "true"}
OURS = {"Sec_Fetch_Site": "same-origin"}


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()

    @engine.task(max_attempts=1)
    async def refuse(text: str) -> None:
        raise ValueError(text)

    async with engine:
        yield engine


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[Client]:
    async with served(engine, dashboard=True, show_arguments=True) as client:
        yield client


async def look(client: Client, path: str, status: int = 200, **headers: str) -> str:
    answer = await client.ask("GET", path, Accept="text/html", **headers)
    assert answer.status == status, answer.raw
    return answer.raw.decode()


async def act(client: Client, path: str, *, headers: dict[str, str] = HTMX, **fields: str) -> Answer:
    told = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    body = urlencode(fields)
    async with client.session.post(client.url + path, data=body, headers=told, allow_redirects=False) as answer:
        return Answer(answer.status, answer.headers, await answer.read())


def test_what_others_wrote_is_as_they_published_it() -> None:
    known = dict(reversed(line.split("  ")) for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir()}
    del there["SHA256SUMS"]
    assert known == there
    for library in ("htmx", "pico", "uPlot"):
        assert "permission" in (VENDOR / f"{library}.LICENSE.txt").read_text().lower()


def test_no_page_has_a_script_or_style_of_its_own() -> None:
    for path in (template.HERE / "templates").iterdir():
        text = path.read_text()
        assert not re.search(
            r"<style|\sstyle=|\son[a-z]+=|hx-on|javascript:|\| *safe|autoescape|<script(?![^>]* src=)", text
        ), path
        assert "http://" not in text
        assert "https://" not in text


@pytest.mark.parametrize("path", [path for path, _ in pages.PLACES if path])
async def test_each_page_is_sent_whole_and_in_part(client: Client, path: str) -> None:
    whole = await look(client, path)
    assert whole.startswith("<!doctype html>")
    assert whole.count('aria-current="page"') == 1
    assert f'<a href="{path}" aria-current="page">' in whole
    if 'id="live"' in whole:
        part = await look(client, path, HX_Request="true", HX_Source="div#live")
        assert "<main" not in part
        assert part.strip()


async def test_empty_pages_teach_what_to_type(client: Client) -> None:
    assert "asyncworker schedule add" in await look(client, "/schedules")
    assert "asyncworker dead ls" in await look(client, "/dead")
    assert "asyncworker submit" in await look(client, "/runs")


async def test_names_are_escaped_and_their_controls_shown(engine: Engine, client: Client) -> None:
    text = "<b onclick=x>\u202e\x1b'\"&"
    job = await engine.enqueue("refuse", text)
    await engine.drain()
    for path in (f"/jobs/{job.id}", "/dead"):
        page = await look(client, path)
        assert "<b " not in page
        assert "&lt;b onclick=x&gt;\\u202e\\x1b&#39;&#34;&amp;" in page


async def test_actions_say_what_they_did_and_leave_a_row(engine: Engine, client: Client) -> None:
    await engine.enqueue("refuse", "no")
    await engine.drain()
    (letter,) = await engine.admin.dead()
    asked = await act(client, "/dead", do="purge", id=letter)
    assert b"Type <strong" in asked.raw
    assert await engine.admin.dead() == [letter]
    done = await act(client, "/dead", do="purge", id=letter, confirm="delete")
    assert done.status == 200
    assert b"Deleted: 1 job." in done.raw
    assert await engine.admin.dead() == []
    assert "purge" in await look(client, "/audit")


async def test_without_scripts_an_action_leads_back(engine: Engine, client: Client) -> None:
    bound = await act(client, "/queues", headers={}, do="bound", target="default", most="7")
    assert (bound.status, bound.headers["Location"]) == (303, "/queues")
    assert (await engine.broker.depth(["default"])).queues["default"].most == 7


@pytest.mark.parametrize(
    ("path", "fields", "says"),
    [
        ("/queues", {"do": "bound", "target": "default", "most": "-1"}, "whole number"),
        ("/queues", {"do": "resume", "target": "nothing"}, "queue"),
        ("/queues", {"do": "explode", "target": "default"}, "explode"),
        ("/jobs", {"do": "cancel"}, "Nothing was chosen"),
        ("/schedules", {"do": "add", "name": "x", "task": "refuse", "cron": "99 * * * *"}, "cannot be read|x"),
        ("/schedules", {"do": "add", "name": "x", "task": "refuse", "every": "soon"}, "no interval"),
        ("/schedules", {"do": "add", "name": "x", "task": "refuse", "every": "1h", "args": "7"}, "JSON array"),
        ("/workers", {"do": "stop", "target": "nobody", "confirm": "nobody"}, "nobody"),
    ],
)
async def test_what_does_not_fit_is_said_and_changes_nothing(
    client: Client, path: str, fields: dict[str, str], says: str
) -> None:
    answer = await act(client, path, **fields)
    assert 400 <= answer.status < 500
    assert answer.headers["HX-Reswap"] == "none"
    assert re.search(says, answer.raw.decode())


async def test_a_form_from_elsewhere_is_refused(engine: Engine, client: Client) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        answer = await act(client, "/queues", headers=headers, do="bound", target="default", most="1")
        assert answer.status == 403
    assert "most" not in str((await engine.broker.depth(["default"])).queues["default"].most)


async def test_errors_are_pages_for_people_and_text_for_others(
    engine: Engine, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "There is no such page" in await look(client, "/nowhere", 404)
    assert (await client.ask("GET", "/nowhere")).headers["Content-Type"].startswith("text/plain")
    assert "nobody knows" in await look(client, "/jobs/none", 404)
    assert "is no cursor" in await look(client, "/dead?cursor=x", 400)
    assert "neither how long ago" in await look(client, "/jobs?since=x", 400)

    async def down(*_: object) -> None:
        raise BrokerDown("connection refused")

    monkeypatch.setattr(engine.broker, "find", down)
    page = await look(client, f"/jobs/{'0' * 26}", 503)
    assert "connection refused" in page
    assert "asyncworker doctor" in page


async def test_pages_cost_a_bounded_number_of_round_trips(
    engine: Engine, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await engine.calls.send("refuse", [((str(number),), {}) for number in range(300)], _delayed(engine))
    asked: list[str] = []
    for name in ("find", "depth", "jobs", "dead", "queues", "schedules"):
        whole = getattr(engine.broker, name)

        def counted(*args: object, _whole=whole, _name=name, **more: object):
            asked.append(_name)
            return _whole(*args, **more)

        monkeypatch.setattr(engine.broker, name, counted)
    for path in ("/", "/queues", "/jobs", "/jobs?task=nothing", "/dead", "/schedules", "/workers", "/runs"):
        asked.clear()
        await look(client, path)
        assert len(asked) <= 45, (path, asked)


def _delayed(engine: Engine):
    return Call.of(engine.tasks["refuse"].options).changed({"delay": 3600.0})


def test_dates_and_numbers_are_words() -> None:
    assert [template.ago(at, 1e6) for at in (1e6, 1e6 - 12, 1e6 + 300, 1e6 - 7200, 1e6 - 3 * 86400)] == [
        "now",
        "12 s ago",
        "in 5 min",
        "2 h ago",
        "3 days ago",
    ]
    assert [template.rate(value) for value in (None, 0, 0.123, 9.94, 1234.5)] == ["–", "0", "0.12", "9.9", "1,234"]
    assert template.pretty('{"a":[1]}') == '{\n  "a": [\n    1\n  ]\n}'
    assert template.pretty('{"a":') == '{"a":'


def test_sizes_are_drawn_as_steps_until_now() -> None:
    told = [Explained("task t", 8, 4, "", 30.0), Explained("task t", 4, 8, "", 20.0), Explained("other", 1, 2, "", 1.0)]
    curve = steps("t", DecisionsSeen([], told), 40.0)
    assert curve is not None
    assert (curve.low, curve.high, curve.begin, curve.end) == (4, 8, 20.0, 40.0)
    assert curve.path == "M0 152.0H0.0V8.0H400.0V152.0H800"
    assert steps("other", DecisionsSeen([], told), 40.0) is None


def test_how_long_jobs_took_is_known_where_somebody_looked() -> None:
    series = msgspec.convert({name: [1.0, 2.0] for name in Series.__struct_fields__}, Series, strict=False)
    told = msgspec.json.decode(columns(series, {2.0: (0.5, 0.9)}))
    assert told["t"] == [1.0, 2.0]
    assert (told["p50_s"], told["p95_s"]) == ([None, 0.5], [None, 0.9])
    assert told["queued"] == [1, 2]


async def test_who_may_only_look_sees_no_actions_and_cannot_act(engine: Engine, tmp_path: Path) -> None:
    path, tokens = tokens_of(tmp_path)
    async with served(engine, dashboard=True, tokens=path) as client:
        assert "a token is needed" in await look(client, "/queues", 401)
        for scope, looks in (("read", True), ("admin", False)):
            page = await look(client, "/queues", token=tokens[scope])
            assert ('<body class="looks">' in page) is looks
        headers = {"Authorization": f"Bearer {tokens['read']}"}
        answer = await act(client, "/queues", headers=headers, do="bound", target="default", most="1")
        assert answer.status == 403
    assert (await engine.broker.depth(["default"])).queues["default"].most is None

"""The API as clients use it: what is asked, what is done, and what stands in the audit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from asyncworker import Engine
from asyncworker.daemon.audit import KEPT
from asyncworker.daemon.text import SHOWN
from asyncworker.errors import KeepError
from tests.support.brokers import until
from tests.support.daemon import V1, Client, served, tokens_of

CANARY = "c4n4ry-0f-a-s3cr3t"


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(queues=["default", "mail", "scheduled", "cpu_intensive"], concurrency=2)

    @engine.task(name="mail", queue="mail")
    async def mail(to: str, password: str = "") -> dict[str, str]:
        return {"to": to}

    @engine.task(name="odd")
    async def odd() -> dict[Any, Any]:
        return {(1, 2): b"bytes", 3: float("nan"), None: 2**63, "x": datetime(2026, 1, 1, tzinfo=UTC)}

    @engine.task(name="refuse", max_attempts=1)
    async def refuse(order: int) -> None:
        raise ValueError(f"order {order} at redis://shop:{CANARY}@db was never paid")

    @engine.task(name="watch", timeout=None)
    async def watch() -> None:
        await asyncio.Event().wait()

    @engine.cron("0 3 * * *", name="nightly")
    async def nightly() -> None: ...

    async with engine:
        yield engine


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[Client]:
    async with served(engine) as client:
        yield client


async def enqueue(client: Client, task: str, *args: Any, **options: Any) -> str:
    job: str = (await client.post("/jobs", {"task": task, "args": args, "options": options}, status=201))["id"]
    return job


async def over(client: Client, job: str) -> dict[str, Any]:
    async def look() -> Any:
        answer = await client.get(f"/jobs/{job}/result?wait=1")
        return answer if answer["over"] else None

    return await until(look, 20.0)


async def test_a_call_is_enqueued_and_its_result_is_told(client: Client) -> None:
    job = await enqueue(client, "mail", "you", priority=9)
    assert await over(client, job) == {"id": job, "over": True, "value": {"to": "you"}, "error": None}
    detail = await client.get(f"/jobs/{job}")
    assert (detail["job"]["state"], detail["job"]["queue"], detail["job"]["task"]) == ("succeeded", "mail", "mail")
    assert [of["what"] for of in detail["timeline"]] == ["enqueued", "started", "succeeded"]
    assert (detail["shown"], detail["arguments"], detail["result"]) == (False, None, None)
    assert [of["id"] for of in (await client.get("/jobs?state=succeeded&task=mail"))["jobs"]] == [job]


async def test_what_does_not_fit_is_refused(client: Client) -> None:
    for body, word in (
        ({"task": "mial", "args": ["x"]}, "did you mean 'mail'"),
        ({"task": "asyncworker.reduce", "args": [{}]}, "unknown task"),
        ({"task": "mail", "args": [1]}, "Expected `str`"),
        ({"task": "mail", "kwargs": {"nobody": 1}}, "nobody"),
        ({"task": "mail", "args": ["x"], "options": {"priority": 10}}, "priority"),
        ({"task": "mail", "args": ["x"], "options": {"outbox": 1}}, "outbox"),
    ):
        said = await client.post("/jobs", body, status=422)
        assert word in said["detail"]
    for path in ("/jobs/nobody", "/runs/nobody", "/dead/nobody", "/jobs/nobody/result", "/jobs/" + 26 * "0"):
        answer = await client.ask("GET", V1 + path)
        assert (answer.status, answer.json["status"]) == (404, 404)
    for query in (
        "limit=0",
        "limit=201",
        "limit=x",
        "nobody=1",
        "state=odd",
        "cursor=odd",
        "since=-1",
        "task=a&task=b",
    ):
        assert (await client.ask("GET", f"{V1}/jobs?{query}")).status == 422, query


async def test_values_that_json_lacks_are_told_as_it_can(client: Client) -> None:
    told = (await over(client, await enqueue(client, "odd")))["value"]
    assert set(told.values()) == {"Ynl0ZXM=", None, 2**63, "2026-01-01T00:00:00Z"}


async def test_jobs_are_paged(client: Client) -> None:
    made = [await enqueue(client, "mail", "you", delay=100) for _ in range(7)]
    found, cursor = [], ""
    for _ in range(9):
        page = await client.get(f"/jobs?state=scheduled&limit=3&cursor={cursor}")
        found += [of["id"] for of in page["jobs"]]
        if not (cursor := page["cursor"]):
            break
    assert sorted(found) == sorted(made)
    detail = await client.get(f"/jobs/{made[0]}")
    assert detail["timeline"][-1]["what"] == "due"
    assert detail["timeline"][-1]["coming"]


async def test_jobs_are_cancelled(client: Client) -> None:
    waiting, running = await enqueue(client, "mail", "you", delay=100), await enqueue(client, "watch")

    async def begun() -> bool:
        return (await client.get(f"/jobs/{running}"))["job"]["state"] == "running"

    await until(begun, 20.0)
    assert (await client.post(f"/jobs/{waiting}/cancel"))["done"] == [waiting]
    answer = await client.post("/jobs/batch", {"action": "cancel", "ids": [waiting, running, "x"], "confirm": "cancel"})
    assert answer == {"done": [running], "left": [waiting, "x"]}
    assert "cancelled" in (await over(client, running))["error"]
    assert (await client.ask("POST", f"{V1}/jobs/nobody/cancel", {})).status == 404


async def test_dead_letters_are_replayed_and_purged(client: Client) -> None:
    jobs = [await enqueue(client, "refuse", order) for order in range(5)]
    for job in jobs:
        assert CANARY not in (await over(client, job))["error"]
    page = await client.get("/dead?limit=2")
    assert (page["total"], len(page["letters"])) == (5, 2)
    rest = await client.get(f"/dead?limit=200&task=refuse&cursor={page['cursor']}")
    assert {of["id"] for of in page["letters"] + rest["letters"]} == set(jobs)
    assert page["letters"][0]["reason"] == "error"
    assert (await client.get(f"/dead/{jobs[0]}"))["job"]["state"] == "failed"
    assert (await client.get("/dead?task=mail"))["letters"] == []
    assert (await client.post(f"/jobs/{jobs[0]}/retry"))["done"] == [jobs[0]]
    await over(client, jobs[0])
    answer = await client.post("/jobs/batch", {"action": "delete", "ids": [jobs[0], "x"], "confirm": "delete"})
    assert answer == {"done": [jobs[0]], "left": ["x"]}
    assert (await client.ask("GET", f"{V1}/dead/{jobs[0]}")).status == 404
    assert (await client.post("/dead/purge", {"confirm": "purge", "ids": [jobs[1]]}))["done"] == [jobs[1]]
    assert (await client.post("/dead/purge", {"confirm": "purge", "queue": "mail"}))["done"] == []
    assert len((await client.post("/dead/replay", {"confirm": "replay", "task": "refuse"}))["done"]) == 3
    for job in jobs[2:]:
        await over(client, job)
    assert len((await client.post("/dead/purge", {"confirm": "purge"}))["done"]) == 3


async def test_queues_are_held_and_bounded(client: Client) -> None:
    await client.post("/queues/mail/pause", {"confirm": "mail"}, status=204)
    await client.post("/queues/mail/bound", {"most": 1}, method="PUT", status=204)

    async def seen() -> Any:
        found = {of["name"]: of for of in (await client.get("/queues"))["queues"]}["mail"]
        return found if found["paused"] else None

    assert (await until(seen, 20.0))["most"] == 1
    job = await enqueue(client, "mail", "you")
    full = await client.ask("POST", f"{V1}/jobs", {"task": "mail", "args": ["you"]})
    assert (full.status, full.headers["Retry-After"]) == (429, "1")
    await client.post("/queues/mail/resume", {}, status=204)
    await client.post("/queues/mail/bound", {"most": None}, method="PUT", status=204)
    assert (await over(client, job))["value"] == {"to": "you"}
    for path, body in (("/queues/nobody/pause", {"confirm": "nobody"}), ("/queues/nobody/resume", {})):
        assert (await client.ask("POST", V1 + path, body)).status == 404


async def test_schedules_come_and_go(client: Client) -> None:
    body = {"task": "mail", "args": ["you"], "cron": "*/5 * * * *", "options": {"priority": 7}}
    assert await client.post("/schedules/poll", body, method="PUT") == {"name": "poll", "new": True}
    assert not (await client.post("/schedules/poll", body | {"cron": "", "every": 30}, method="PUT"))["new"]
    found = {of["name"]: of for of in (await client.get("/schedules"))["schedules"]}
    assert (found["nightly"]["fixed"], found["poll"]["when"], found["poll"]["priority"]) == (True, "every 30 s", 7)
    job = (await client.post("/schedules/poll/run", {}, status=201))["id"]
    assert (await over(client, job))["value"] == {"to": "you"}
    for method, name, more, status in (
        ("PUT", "bad", {"cron": "odd"}, 422),
        ("PUT", "nightly", {}, 422),
        ("PUT", "bad", {"args": [1]}, 422),
        ("DELETE", "nightly", None, 422),
        ("DELETE", "nobody", None, 404),
    ):
        answer = await client.ask(method, f"{V1}/schedules/{name}", None if more is None else body | more)
        assert answer.status == status, (method, name)
    assert (await client.ask("DELETE", f"{V1}/schedules/poll")).status == 204


SEEDS = {
    "validation_rules": {
        "required_fields": ["id", "name"],
        "type_validations": {"id": "int", "age": "int"},
        "range_validations": {"age": {"min": 0, "max": 120}},
        "pattern_validations": {"email": r"[^@]+@[^@]+\.[^@]+"},
    }
}


async def test_s18_the_seeds_example_goes_through_http_to_a_worker(client: Client) -> None:
    items = [{"id": n, "name": f"n{n}", "age": n, "email": "a@b.c" if n % 2 else "odd"} for n in range(200)]
    body = {"items": items, "function": "data_validation", "params": SEEDS, "partition_size": 20, "max_failures": 1000}
    job = (await client.post("/runs", body, status=201))["id"]
    summary = (await over(client, job))["value"]
    assert summary["total_processed"] == 200
    found = summary["final_result"]
    assert (found["valid_count"], found["invalid_count"]) == (60, 140)  # the odd ones up to 120 have an address
    run = await client.get(f"/runs/{job}?first=3&limit=5")
    assert (run["run"]["state"], run["run"]["done"], run["run"]["total"], run["run"]["ratio"]) == (
        "succeeded",
        10,
        10,
        1.0,
    )
    assert [of["id"] for of in (await client.get("/runs?state=succeeded"))["runs"]] == [job]
    assert (await client.get(f"/jobs/{job}"))["run"]["run"]["items"] == 200
    unknown = await client.post("/runs", body | {"function": "data_validatoin"}, status=422)
    assert "did you mean 'data_validation'" in unknown["detail"]


async def test_a_run_is_seen_partition_by_partition(client: Client) -> None:
    await client.post("/queues/cpu_intensive/pause", {"confirm": "cpu_intensive"}, status=204)
    body = {"items": [{"text": "a"}] * 10, "function": "word_count", "params": {"field": "text"}, "partition_size": 2}
    job = (await client.post("/runs", body, status=201))["id"]

    async def cut() -> Any:
        run = await client.get(f"/runs/{job}?first=1&limit=3")
        return run if run["run"]["sealed"] and len(run["partitions"]) == 3 else None

    run = await until(cut, 20.0)
    assert [of["part"] for of in run["partitions"]] == [1, 2, 3]
    assert {of["state"] for of in run["partitions"]} == {"queued"}
    assert {of["items"] for of in run["partitions"]} == {2}
    assert (run["run"]["done"], run["run"]["state"]) == (0, "queued")
    assert (await client.post(f"/jobs/{job}/cancel"))["done"] == [job]
    assert (await client.get(f"/runs/{job}"))["run"]["state"] == "cancelled"


async def test_a_run_tells_its_phase(client: Client, engine: Engine) -> None:
    gate = asyncio.Event()

    async def stall(item: Any, params: Any) -> Any:
        await gate.wait()
        return item

    engine.mapper(stall)
    body = {"items": [1, 2], "map": "stall", "partition_size": 1}
    job = (await client.post("/runs", body, status=201))["id"]

    async def maps() -> Any:
        return (await client.get(f"/runs/{job}"))["run"]["phase"] == "mapping"

    await until(maps, 20.0)
    gate.set()
    await over(client, job)
    assert (await client.get(f"/runs/{job}"))["run"]["phase"] == ""


async def test_a_submitter_cannot_make_workers_read_elsewhere(engine: Engine, tmp_path: Path) -> None:
    path, tokens = tokens_of(tmp_path)
    (tmp_path / "rows.csv").write_text("text\na\n")
    known = {"function": "word_count", "params": {"field": "text"}}
    async with served(engine, tokens=path) as client:
        for body, status in (
            ({"items": [{"text": "a"}]}, 201),
            ({"items": [{"text": "a"}], "to": str(tmp_path / "out.csv")}, 403),
            ({"source": str(tmp_path / "rows.csv")}, 403),
            ({"items": [{"text": "a"}], "function": "data_enrichment"}, 403),
            ({"dataset": "../etc/passwd"}, 422),
            ({"dataset": "-"}, 422),
            ({"dataset": "data"}, 422),  # the engine has no database
            ({"items": [], "dataset": "data"}, 422),
            ({}, 422),
        ):
            answer = await client.ask("POST", f"{V1}/runs", known | body, tokens["submit"])
            assert answer.status == status, (body, answer.raw)
        body = known | {"source": str(tmp_path / "rows.csv")}
        job = (await client.post("/runs", body, token=tokens["admin"], status=201))["id"]
        done = await client.get(f"/jobs/{job}/result?wait=20", token=tokens["submit"])
        assert done["value"]["total_processed"] == 1


async def test_unique_keys_of_two_tokens_are_two(engine: Engine, tmp_path: Path) -> None:
    path, tokens = tokens_of(tmp_path)
    body = {"task": "mail", "args": ["you"], "options": {"unique": "key", "delay": 100}}
    async with served(engine, tokens=path) as client:
        made = [
            (await client.post("/jobs", body, token=tokens[scope], status=201))["id"]
            for scope in ("submit", "admin", "submit")
        ]
    assert made[0] == made[2] != made[1]


async def test_a_request_that_comes_again_acts_once(engine: Engine, tmp_path: Path) -> None:
    path, tokens = tokens_of(tmp_path)
    body = {"task": "mail", "args": ["you"]}
    async with served(engine, tokens=path) as client:

        async def send(scope: str, key: str, body: Any = body) -> Any:
            return await client.ask("POST", f"{V1}/jobs", body, tokens[scope], Idempotency_Key=key)

        first, again, other, theirs = [
            await send(*words) for words in (("submit", "1"), ("submit", "1"), ("submit", "2"), ("admin", "1"))
        ]
        assert first.json == again.json
        assert len({answer.json["id"] for answer in (first, other, theirs)}) == 3
        assert (await send("submit", "1", body | {"args": ["them"]})).status == 422
        assert (await send("submit", "x" * 200)).status == 422
        assert (await send("submit", "3", body | {"args": [1]})).status == 422
        assert (await send("submit", "3")).status == 201  # what was refused was not done
        rows = (await client.get("/audit", token=tokens["admin"]))["rows"]
    assert len([row for row in rows if row["outcome"] == "done"]) == 4


async def test_each_action_is_typed_again_and_leaves_a_row(client: Client) -> None:
    for path, word, more in (
        ("/queues/mail/pause", "mail", {}),
        ("/dead/purge", "purge", {}),
        ("/dead/replay", "replay", {}),
        ("/workers/restart", "restart", {}),
        ("/workers/worker-1/stop", "worker-1", {}),
        ("/jobs/batch", "cancel", {"action": "cancel", "ids": ["x"]}),
    ):
        refused = await client.post(path, {"confirm": "yes", **more}, status=422)
        assert word in refused["detail"], path
        answer = await client.ask("POST", V1 + path, {"confirm": word, **more})
        assert answer.status in {200, 202, 204} or "nobody supervises" in answer.json["detail"], path
    rows = (await client.get("/audit"))["rows"]
    assert [row["action"] for row in rows[::-1]] == ["pause", "purge", "retry", "restart", "stop", "cancel"]
    assert {row["who"] for row in rows} == {"local"}
    assert [row["outcome"] for row in rows if row["action"] == "stop"] == ["refused: nobody supervises workers here"]
    assert KEPT == 10_000


async def test_s22_arguments_are_shown_to_who_asked_for_that_alone(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    body = {"task": "mail", "args": [CANARY], "kwargs": {"password": CANARY}}
    async with served(engine, dashboard=True) as client:
        job = (await client.post("/jobs", body, status=201))["id"]
        waits = (await client.post("/jobs", body | {"options": {"delay": 100}}, status=201))["id"]
        await client.post("/jobs", body | {"args": [CANARY, 1, 2]}, status=422)
        await over(client, job)
        seen = [
            (await client.ask("GET", path)).raw
            for path in (*SEEN, f"{V1}/jobs/{job}", f"{V1}/jobs/{waits}", f"/jobs/{job}", f"/jobs/{waits}")
        ]
        assert all(seen)
        assert not [text for text in seen if CANARY.encode() in text]
        assert CANARY not in repr(engine) + repr(client) + caplog.text
    async with served(engine, show_arguments=True) as client:
        shown = (await client.get(f"/jobs/{waits}"))["arguments"]
        assert shown == f'{{"args":["{CANARY}"],"kwargs":{{"password":***}}}}'


SEEN = [
    *(f"{V1}/{name}" for name in (
        "openapi.json", "overview", "chart", "names", "jobs", "queues", "workers", "schedules", "dead", "runs", "decisions",
        "profile", "profile/speedscope", "memory", "settings", "audit",
    )),
    "/", "/jobs", "/queues", "/workers", "/schedules", "/dead", "/runs", "/optimizer", "/profiler", "/memory", "/settings",
    "/audit", "/metrics",
]  # fmt: skip


async def test_long_texts_are_cut(engine: Engine) -> None:
    async with served(engine, show_arguments=True) as client:
        jobs = [await enqueue(client, "mail", "x" * size) for size in (5 * SHOWN, 300_000)]
        for job in jobs:
            await over(client, job)
        cut, left_out = [(await client.get(f"/jobs/{job}"))["result"] for job in jobs]
    assert len(cut) == SHOWN + 1
    assert left_out.endswith("bytes)")


async def test_s52_secrets_of_settings_and_brokers_are_stars(engine: Engine) -> None:
    engine.url = f"memory://user:{CANARY}@here"
    async with served(engine) as client:
        assert CANARY not in str(await client.get("/settings")) + str(await client.get("/overview"))


async def test_what_is_logged_of_an_action_stays_one_line(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for name in ("a%0Aroot:%20done", "%1b[31m", "%E2%80%AEgnp"):
        assert (await client.ask("POST", f"{V1}/queues/{name}/resume", {})).status == 404
    assert all(record.getMessage().isprintable() for record in caplog.records)


async def test_an_audit_that_cannot_be_kept_waits(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    class Away:
        rows: list[bytes] = []  # noqa: RUF012 - of one test
        away = True

        async def append(self, log: str, entries: list[bytes], most: int) -> None:
            if self.away:
                raise KeepError("away")
            self.rows += entries

        async def last(self, log: str, most: int) -> list[bytes]:
            return self.rows[-most:]

        async def close(self) -> None: ...

    engine.keep = keep = Away()
    async with served(engine) as client:
        await client.post("/queues/mail/resume", {}, status=204)
        assert "cannot be kept" in caplog.text
        keep.away = False
        await client.post("/queues/default/resume", {}, status=204)
        assert [row["target"] for row in (await client.get("/audit"))["rows"]] == ["default", "mail"]


# --- events -----------------------------------------------------------------------------------------------------


async def test_events_tell_the_overview_again_and_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async with client.session.get(f"{client.url}{V1}/events") as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        for _ in range(2):
            assert await answer.content.readline() == b"event: overview\n"
            told = json.loads((await answer.content.readline()).removeprefix(b"data: "))
            assert told["workers"] == 1
            assert await answer.content.readline() == b"\n"


async def test_a_server_that_ends_lets_its_listeners_go(engine: Engine) -> None:
    async with asyncio.timeout(20):
        async with served(engine) as client:
            answer = await client.session.get(f"{client.url}{V1}/events")
            assert await answer.content.readline() == b"event: overview\n"
        answer.close()

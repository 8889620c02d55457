"""``asyncworker doctor``: what it says of real servers, of databases and of this machine."""

from __future__ import annotations

import asyncio
import json
import resource
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis

from asyncworker import Engine
from asyncworker.cli.doctor import machine
from asyncworker.queue import server
from asyncworker.queue.rights import rules
from asyncworker.share.place import PREFIX, root
from tests.support.command import call, run
from tests.support.servers import long_lived


@pytest.fixture(scope="module")
def patient() -> Iterator[str]:
    """A server whose settings a test may change."""
    running = server.start(timeout=30.0)
    with long_lived(running.pid):
        yield running.url
        running.stop()


def examined(cwd: Path, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the exit code, and what was found by what it is about (of several, the last)."""
    code, out, err = call("doctor", *words, "--json", cwd=cwd)
    assert out, err
    found = json.loads(out)
    assert found["wrong"] == bool(code)
    assert all(one["mend"] for one in found["findings"] if one["level"] != "fine"), "each fault says how to mend it"
    return code, {one["about"]: one for one in found["findings"]}


async def test_a_sound_server(redis_url: str, namespace: str, tmp_path: Path) -> None:
    async with Engine(redis_url, namespace=namespace) as engine:

        @engine.task(name="echo")
        async def echo(n: int) -> int:
            return n

        await echo.enqueue_many([(n,) for n in range(10)])
        await engine.run(burst=True)
        await echo.enqueue_many([(n,) for n in range(10)])
    code, found = await asyncio.to_thread(_apart, tmp_path, redis_url, namespace)
    assert code == 0
    for about in ("redis", "version", "eviction", "keys", "dead letters", "python", "hiredis"):
        assert found[about]["level"] == "fine", found[about]
    for about in ("latency", "clock"):  # a busy machine may be slow to answer
        assert found[about]["level"] != "bad", found[about]
    assert found["workers"]["said"] == "nobody works"
    assert found["rights"]["level"] == "note", "it is the default user"


def _apart(cwd: Path, url: str, namespace: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code, out, err = run("doctor", url, "--namespace", namespace, "--json", cwd=cwd)
    assert out, err
    said = json.loads(out)["findings"]
    assert any("jobs that are not over" in one["said"] for one in said), "memory by prefix"
    assert any("results" in one["said"] for one in said)
    return code, {one["about"]: one for one in said if "MB in" not in one["said"]}


def test_a_server_that_evicts_is_wrong(patient: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(patient) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            code, found = examined(tmp_path, patient)
            assert (code, found["eviction"]["level"]) == (0, "note"), "nothing is evicted without a bound"
            client.config_set("maxmemory", "1gb")
            code, found = examined(tmp_path, patient)
            assert (code, found["eviction"]["level"]) == (1, "bad")
            assert "noeviction" in found["eviction"]["mend"]
        finally:
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")


def test_a_full_server_is_told(patient: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(patient) as client:
        used = client.info("memory")["used_memory"]
        try:
            client.config_set("maxmemory", int(used * 1.001))
            assert examined(tmp_path, patient)[1]["memory"]["level"] in {"bad", "note"}
        finally:
            client.config_set("maxmemory", "0")


def test_a_user_who_may_not_do_all_is_told_what(patient: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(patient) as client:
        password = secrets.token_hex(4)
        allowed = [rule for rule in rules("asyncworker") if rule not in {"+hset", "+function|load"}]
        client.execute_command(
            "ACL", "SETUSER", "half", "reset", "on", f">{password}", *allowed, "+acl|whoami", "+acl|dryrun"
        )
        url = patient.replace("unix://", f"unix://half:{password}@")
        code, found = examined(tmp_path, url)
        assert (code, found["rights"]["level"]) == (1, "bad")
        assert found["rights"]["said"] == "the user half may not function|load, hset"
        assert "sizes cannot be asked" in found["keys"]["said"]
        client.execute_command("ACL", "SETUSER", "half", "+hset", "+function|load")
        code, found = examined(tmp_path, url)
        assert (code, found["rights"]["said"]) == (0, "the user half may do what is needed")
        client.execute_command("ACL", "SETUSER", "half", "-acl|whoami", "-fcall")
        code, found = examined(tmp_path, url)
        assert (code, found["rights"]["level"], found["workers"]["level"]) == (1, "fine", "bad")
        client.execute_command("ACL", "SETUSER", "half", "-info")
        assert examined(tmp_path, url)[1]["redis"]["level"] == "bad"
        client.execute_command("ACL", "DELUSER", "half")


def test_it_prints_the_user_that_is_needed(patient: str, tmp_path: Path) -> None:
    code, out, _ = call("doctor", "--acl", "--namespace", "shop", cwd=tmp_path)
    assert code == 0
    words = out.replace(">PASSWORD", ">secret").split()
    assert words[:4] == ["ACL", "SETUSER", "shop", "on"]
    with redis.Redis.from_url(patient) as client:
        assert client.execute_command(*words) in {b"OK", True, "OK"}
        client.execute_command("ACL", "DELUSER", "shop")
    assert json.loads(call("doctor", "--acl", "--json", cwd=tmp_path)[1])["rules"] == rules("asyncworker")


def test_nobody_there_is_wrong(tmp_path: Path) -> None:
    code, found = examined(tmp_path, f"unix://{tmp_path}/nothing")
    assert (code, found["redis"]["level"]) == (1, "bad")
    assert "eviction" not in found, "the others would be senseless"


def test_a_replica_is_told(patient: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(patient) as client:
        client.replicaof("127.0.0.1", "1")
        try:
            code, found = examined(tmp_path, patient)
            assert (code, found["role"]["level"]) == (1, "bad")
        finally:
            client.replicaof("NO", "ONE")


async def test_a_database(postgres_dsn: str, tmp_path: Path) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    role = f"reader_{secrets.token_hex(4)}"
    await connection.execute(f"CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    try:
        await connection.execute(f"ALTER ROLE {role} SET statement_timeout = '2s'")
        found = (await asyncio.to_thread(_database, tmp_path, postgres_dsn))[1]
        assert found["rights"]["said"].endswith("is a superuser")
        code, found = await asyncio.to_thread(_database, tmp_path, postgres_dsn.replace("postgres@", f"{role}@"))
        assert code == 0
        assert "cannot make tables" in found["rights"]["said"]
        assert (found["statement_timeout"]["level"], found["statement_timeout"]["said"]) == ("note", "2 s")
        assert found["postgresql"]["level"] == "fine"
        code, found = await asyncio.to_thread(_database, tmp_path, f"{postgres_dsn}_that_is_not_there")
        assert (code, found["postgresql"]["level"]) == (1, "bad")
    finally:
        await connection.execute(f"DROP ROLE {role}")
        await connection.close()


def _database(cwd: Path, dsn: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code, out, err = run("doctor", "--database", dsn, "--json", cwd=cwd)
    assert out, err
    return code, {one["about"]: one for one in json.loads(out)["findings"]}


def test_leftovers_and_few_files_are_told(tmp_path: Path) -> None:
    left = root() / f"{PREFIX}{secrets.token_hex(8)}"
    left.mkdir(mode=0o700)
    try:
        found = examined(tmp_path)[1]
        assert found["shared memory"]["level"] == "note"
        assert left.exists(), "a doctor changes nothing"
    finally:
        left.rmdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1000, soft), hard))
    try:
        (files,) = [one for one in machine() if one.about == "open files"]
        assert (files.level, "ulimit" in files.mend) == ("note", True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_for_people_it_is_a_table(patient: str, tmp_path: Path) -> None:
    code, out, err = call("doctor", patient, cwd=tmp_path)
    assert code == 0
    assert "to mend it" in out.splitlines()[0]
    assert "0 wrong" in err

"""The servers that tests get, and the look at what they leave behind."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Callable

import asyncpg
import pytest
import redis

from tests.support import leaks


def test_redis_is_emptied(fresh_redis_url: str, immortal_keys: Callable[..., list[str]]) -> None:
    with redis.Redis.from_url(fresh_redis_url) as client:
        client.set("stays", 1)
        client.set("goes", 1, ex=10)
        assert immortal_keys(fresh_redis_url) == ["stays"]
        client.delete("stays", "goes")


def test_each_redis_answers(each_redis_url: str, namespace: str) -> None:
    with redis.Redis.from_url(each_redis_url) as client:
        assert client.exists(namespace) == 0


async def test_postgres_is_a_fresh_database(each_postgres_dsn: str) -> None:
    connection = await asyncpg.connect(each_postgres_dsn)
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_stat_user_tables") == 0
        assert await connection.fetchval("SELECT current_database()") != "postgres"
    finally:
        await connection.close()


async def test_a_task_that_stays_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "PATIENCE", 0.01)
    before = asyncio.all_tasks()
    task = asyncio.create_task(asyncio.Event().wait())
    assert await leaks.tasks_left(before) == {task}


def test_a_thread_and_a_process_that_stay_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "PATIENCE", 0.01)
    threads, processes = leaks.threads(), leaks.processes()
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        assert leaks.left(leaks.threads, threads) == {thread}
        assert leaks.left(leaks.processes, processes) == {process.pid}
        process.kill()
    end.set()
    thread.join()

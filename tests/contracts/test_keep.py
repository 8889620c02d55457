"""What each keep of the room does: logs of which the last stay, tables whose values go, errors of one kind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from asyncworker import registry
from asyncworker.errors import KeepError
from asyncworker.queue.keeps import keep as room
from asyncworker.queue.keeps.keep import Keep
from asyncworker.queue.server import start
from tests.support.brokers import until

Open = Callable[..., Keep]


@pytest.fixture(params=registry.names("keep"))
async def opened(request: pytest.FixtureRequest, tmp_path: Path, namespace: str) -> AsyncIterator[Open]:
    """Give what opens the same keep each time; a keep in memory is one process' own, so it is opened once."""
    made: list[Keep] = []
    url = {
        "memory": lambda: "memory://",
        "file": lambda: f"file://{tmp_path}/kept%20here.db",
        "redis": lambda: request.getfixturevalue("redis_url"),
    }[request.param]()

    def make(name: str = namespace) -> Keep:
        if request.param == "memory" and made and name == namespace:
            return made[0]
        made.append(registry.find("keep", request.param).open(url, namespace=name))
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def test_a_log_keeps_its_last_entries_in_their_order(opened: Open) -> None:
    keep = opened()
    assert await keep.last("log", 10) == []
    await keep.append("log", [b"1", b"\x00\xff", b""], 4)
    await keep.append("log", [b"4", b"5"], 4)
    assert await keep.last("log", 10) == [b"\x00\xff", b"", b"4", b"5"]
    assert await keep.last("log", 2) == [b"4", b"5"]
    await keep.append("log", [b"%d" % number for number in range(3000)], 1000)
    assert await keep.last("log", 5000) == [b"%d" % number for number in range(2000, 3000)]
    assert await keep.last("other", 10) == []


async def test_a_table_keeps_values_until_their_time_is_over(opened: Open) -> None:
    keep = opened()
    assert await keep.values("table") == {}
    await keep.put("table", {}, 60)
    await keep.put("table", {"a b": b"1", "ü": b"\x00"}, 60)
    await keep.put("table", {"a b": b"2"}, 60)
    await keep.put("table", {"short": b"3"}, 0.05)
    assert {"a b": b"2", "ü": b"\x00"}.items() <= (await keep.values("table")).items()
    await until(lambda: _lacks(keep, "short"))
    await keep.drop("table", "a b")
    await keep.drop("table", "a b")
    assert await keep.values("table") == {"ü": b"\x00"}
    assert await keep.values("log") == {}


async def _lacks(keep: Keep, name: str) -> bool:
    return name not in await keep.values("table")


async def test_a_table_is_bounded(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = opened()
    monkeypatch.setattr(sys.modules[type(keep).__module__], "MOST_VALUES", 3)
    await keep.put("table", {"first": b""}, 30)
    await keep.put("table", {"a": b"", "b": b"", "c": b""}, 60)
    assert await keep.values("table") == {"a": b"", "b": b"", "c": b""}


async def test_namespaces_are_apart(opened: Open, namespace: str) -> None:
    one, other = opened(), opened(f"{namespace}-other")
    await one.append("log", [b"1"], 10)
    await one.put("table", {"a": b"1"}, 60)
    assert await other.last("log", 10) == []
    assert await other.values("table") == {}


async def test_what_is_kept_outlives_who_wrote_it(opened: Open) -> None:
    first = opened()
    await first.append("log", [b"1"], 10)
    await first.put("table", {"a": b"1"}, 60)
    second = opened()
    if second is not first:
        await first.close()
    assert await second.last("log", 10) == [b"1"]
    assert await second.values("table") == {"a": b"1"}


async def test_many_may_write_at_once(opened: Open) -> None:
    keeps = [opened() for _ in range(4)]
    await asyncio.gather(*(keep.append("log", [b"%d" % number], 100) for number, keep in enumerate(keeps * 5)))
    assert len(await keeps[0].last("log", 100)) == 20


async def test_nothing_stays_for_ever_in_redis(
    redis_url: str, namespace: str, immortal_keys: Callable[..., list[str]]
) -> None:
    keep = registry.find("keep", "redis").open(redis_url, namespace=namespace)
    await keep.append("log", [b"1"], 10)
    await keep.put("table", {"a": b"1"}, room.LOG_S)
    await keep.put("table", {"b": b"1"}, 60)
    await keep.drop("table", "a")
    await keep.close()
    assert immortal_keys(redis_url, f"*{namespace}*") == []


async def test_a_lost_connection_to_redis_is_replaced_at_once() -> None:
    server = await asyncio.to_thread(start)
    keep = registry.find("keep", "redis").open(server.url, namespace="n")
    await keep.put("table", {"a": b"1"}, 60)
    async with Redis.from_url(server.url) as client:
        for _ in range(2):
            await client.client_kill_filter(_type="normal", skipme=True)
            assert await keep.values("table") == {"a": b"1"}
    await keep.close()
    await asyncio.to_thread(server.stop)


async def test_what_is_kept_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    for before in (b"", b"1"):
        server = await asyncio.to_thread(start, tmp_path)
        keep = registry.find("keep", "redis").open(server.url, namespace="n")
        assert b"".join(await keep.last("log", 10)) == before
        await keep.append("log", [b"1"], 10)
        await keep.put("table", {"a": b"1"}, 60)
        await asyncio.to_thread(server.stop)
        with pytest.raises(KeepError, match="does not answer"):
            await keep.values("table")
        await keep.close()


async def test_a_log_in_a_file_goes_a_week_after_its_last_entry(tmp_path: Path) -> None:
    module = registry.find("keep", "file")
    now = 1000.0
    keep = module.FileKeep(tmp_path / "kept", "n", lambda: now)
    await keep.append("log", [b"1"], 10)
    now += room.LOG_S + 1
    assert await keep.last("log", 10) == []
    await keep.append("log", [b"2"], 10)
    assert await keep.last("log", 10) == [b"2"]


async def test_a_place_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    module = registry.find("keep", "file")
    with pytest.raises(KeepError, match="names no file"):
        module.open("file://", namespace="n")
    (tmp_path / "text").write_text("no database, but a text that is long enough to be taken for one" * 20)
    for place in (tmp_path / "absent" / "kept", tmp_path / "text"):
        with pytest.raises(KeepError, match=place.name):
            await module.open(f"file://{place}", namespace="n").last("log", 1)
    away = registry.find("keep", "redis").open(f"unix://:secret@{tmp_path}/none", namespace="n")
    with pytest.raises(KeepError, match="does not answer") as told:
        await away.values("table")
    assert "secret" not in str(told.value)
    await away.close()


def test_a_writer_that_is_killed_leaves_the_file_whole(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, sqlite3
from asyncworker.queue.keeps import file
keep = file.open("file://{tmp_path}/kept", namespace="n")
asyncio.run(keep.append("log", [b"whole"], 10))
db = sqlite3.connect("{tmp_path}/kept")
db.execute("INSERT INTO logs (log, entry, until) VALUES ('n:log', 'half', 9e9)")
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 9
    keep = registry.find("keep", "file").open(f"file://{tmp_path}/kept", namespace="n")
    assert asyncio.run(keep.last("log", 10)) == [b"whole"]

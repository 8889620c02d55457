"""``embedded://``: a broker whose server comes and goes with it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import redis

from asyncworker import registry
from asyncworker.errors import SettingsError
from asyncworker.queue.brokers import embedded


def pid_of(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return client.info("server")["process_id"]


async def test_the_server_ends_with_the_broker() -> None:
    broker = embedded.open("embedded://", namespace="shop")
    pid = pid_of(broker.url)
    try:
        assert (await broker.depth(["default"])).queues["default"].queued == 0
    finally:
        await broker.close()
    assert not psutil.pid_exists(pid)


async def test_a_directory_keeps_the_jobs(tmp_path: Path) -> None:
    data = tmp_path / "two words"
    for life in range(2):
        broker = embedded.open(f"embedded://{tmp_path}/two%20words")
        with redis.Redis.from_url(broker.url) as client:
            assert client.incr("lives") == life + 1
        await broker.close()
    assert (data / "asyncworker.lock").exists()


async def test_the_server_ends_when_the_broker_within_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    pids = []

    class Within:
        def __init__(self, url: str) -> None:
            pids.append(pid_of(url))

        async def close(self) -> None:
            raise OSError("no")

    monkeypatch.setattr(registry, "find", lambda room, name: SimpleNamespace(open=lambda url, **_: Within(url)))
    broker = embedded.open("embedded://")
    with pytest.raises(OSError, match="no"):
        await broker.close()

    def refuse(url: str, **_: object) -> None:
        pids.append(pid_of(url))
        raise SettingsError("too old")

    monkeypatch.setattr(registry, "find", lambda room, name: SimpleNamespace(open=refuse))
    with pytest.raises(SettingsError, match="too old"):
        embedded.open("embedded://")
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)

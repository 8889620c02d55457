from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncworker.daemon.notify import notify, notifying, reloading
from tests.support.brokers import until


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        line.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield line


async def heard(line: socket.socket, word: str) -> list[str]:
    """Return the lines of the first message that has *word*."""

    async def there() -> list[str]:
        try:
            words = line.recv(4096).decode().split("\n")
        except BlockingIOError:
            return []
        return words if word in words else []

    return await until(there)


async def test_it_is_ready_feeds_the_watchdog_and_stops(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    async with notifying(lambda: "all is well"):
        assert await heard(systemd, "READY=1") == ["STATUS=all is well", "READY=1", "WATCHDOG=1"]
        await heard(systemd, "WATCHDOG=1")
    assert "STATUS=draining" in await heard(systemd, "STOPPING=1")


async def test_who_is_not_alive_gets_no_food(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    async with notifying(lambda: "hangs", lambda: False):
        for _ in range(3):
            assert "WATCHDOG=1" not in await heard(systemd, "STATUS=hangs")


async def test_another_process_watchdog_is_not_ours(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    async with notifying(lambda: "works"):
        assert "WATCHDOG=1" not in await heard(systemd, "READY=1")


async def test_a_reload_lasts_until_it_is_over(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    busy = [True]
    reloading()
    words = await heard(systemd, "RELOADING=1")
    assert words[1].startswith("MONOTONIC_USEC=")
    async with notifying(lambda: "renews", busy=lambda: busy[0]):
        assert "READY=1" not in await heard(systemd, "STATUS=renews")
        busy.clear()
        busy.append(False)
        await heard(systemd, "READY=1")


async def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    async with notifying(lambda: "alone"):
        await asyncio.sleep(0)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert notify("READY=1"), "who has asked and went away may come back"


async def test_names_without_a_file_work_too(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"asyncworker-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(f"\0{name}")
        line.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify("READY=1")
        assert line.recv(100) == b"READY=1"

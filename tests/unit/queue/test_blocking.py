"""A blocking connection answers, refuses, and ends when it is told to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from asyncworker.queue.addresses.address import Refused, Target, address_of
from asyncworker.queue.blocking import Blocking
from asyncworker.queue.near import Near


@contextmanager
def peer(serve: Callable[[socket.socket], None]) -> Iterator[Target]:
    """Run a server that treats its one guest as *serve* does."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def welcome() -> None:
            guest, _ = door.accept()
            with guest:
                guest.recv(1000)
                serve(guest)

        thread = threading.Thread(target=welcome)
        thread.start()
        yield Target("127.0.0.1", door.getsockname()[1])
        thread.join()


def test_answers_of_any_size_and_errors(redis_url: str):
    with Blocking(address_of(redis_url).target, 20) as line:
        assert line.ask("PING") == b"PONG"
        assert line.ask("ECHO", bytes(1 << 20)) == bytes(1 << 20)
        with pytest.raises(Refused, match="unknown command"):
            line.ask("NONSENSE")
        assert line.ask("PING") == b"PONG"


def test_the_user_of_the_url(redis_url: str):
    path = urlsplit(redis_url).path
    with pytest.raises(Refused, match="WRONGPASS"):
        Blocking(address_of(f"unix://nobody:wrong@{path}").target, 20)


def test_nobody_is_there():
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        Blocking(Target("127.0.0.1", port), 20)
    with pytest.raises(FileNotFoundError):
        Blocking(Target(path="/nowhere/redis.sock"), 20)


@pytest.mark.parametrize(
    ("said", "error", "text"),
    [
        (b"", ConnectionError, "closed"),
        (b"+PO", ConnectionError, "closed"),
        (b"HTTP/1.1 400", ConnectionError, "no answer"),
    ],
)
def test_what_is_no_answer(said: bytes, error: type[Exception], text: str):
    with (
        peer(lambda guest: guest.sendall(said)) as target,
        Blocking(target, 20) as line,
        pytest.raises(error, match=text),
    ):
        line.ask("PING")


def test_a_silent_server_is_given_up():
    over = threading.Event()
    with peer(lambda _: over.wait(20) and None) as target:
        with Blocking(target, 0.01) as line, pytest.raises(TimeoutError):
            line.ask("PING")
        over.set()


def test_who_hangs_up_ends_the_call_of_another_thread():
    asked, over = threading.Event(), threading.Event()

    def serve(_: socket.socket) -> None:
        asked.set()
        over.wait(20)

    with peer(serve) as target:
        line = Blocking(target, 20)
        told: list[Exception] = []

        def ask() -> None:
            try:
                line.ask("PING")
            except OSError as exc:
                told.append(exc)

        caller = threading.Thread(target=ask)
        caller.start()
        asked.wait(20)
        line.close()
        caller.join(20)
        over.set()
    assert [type(error) for error in told] == [ConnectionError]


def test_it_stays_awake_for_a_near_server(monkeypatch: pytest.MonkeyPatch):
    looked = threading.Event()

    def look(_: Near) -> bool:
        looked.set()
        return True

    def serve(guest: socket.socket) -> None:
        assert looked.wait(20)
        guest.sendall(b"+PONG\r\n")

    monkeypatch.setattr(Near, "sent", lambda _: True)
    monkeypatch.setattr(Near, "worth", look)
    with peer(serve) as target, Blocking(target, 20) as line:
        assert line.ask("PING") == b"PONG"


def test_it_sleeps_until_a_server_far_away_answers(monkeypatch: pytest.MonkeyPatch, redis_url: str):
    monkeypatch.setattr(Near, "sent", lambda _: False)
    monkeypatch.setattr(Near, "worth", None)
    with Blocking(address_of(redis_url).target, 20) as line:
        assert line.ask("PING") == b"PONG"
        assert line.ask("ECHO", bytes(1 << 20)) == bytes(1 << 20)

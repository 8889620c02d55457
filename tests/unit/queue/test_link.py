"""A link carries one command at a time; whatever ends it ends the call that waits, and says how."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import hiredis
import pytest

from asyncworker.queue.addresses.address import Refused, address_of
from asyncworker.queue.link import Link, connect
from asyncworker.queue.near import Near
from asyncworker.queue.wire import Wire

PING = hiredis.pack_command(("PING",))
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def soon(seconds: float = 20.0) -> float:
    return asyncio.get_running_loop().time() + seconds


@asynccontextmanager
async def peer(answer: Answer) -> AsyncIterator[str]:
    """Run a server that speaks as *answer* does; gives its URL."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer)
        await done.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        done.set()
        server.close()


@asynccontextmanager
async def linked(url: str) -> AsyncIterator[Link]:
    link = await connect(address_of(url).target, soon(), Link)
    try:
        yield link
    finally:
        link.close()


async def test_an_answer_and_an_error(redis_url: str):
    async with linked(redis_url) as link:
        assert await link.ask(PING, soon()) == b"PONG"
        with pytest.raises(Refused, match="unknown command"):
            await link.ask(hiredis.pack_command(("NONSENSE",)), soon())
        assert await link.ask(hiredis.pack_command(("ECHO", bytes(1 << 20))), soon()) == bytes(1 << 20)


async def test_the_user_the_name_and_the_database_of_the_url(redis_url: str):
    path = urlsplit(redis_url).path
    async with linked(redis_url) as link:
        await link.ask(hiredis.pack_command(("ACL", "SETUSER", "link", "on", ">p w", "~*", "+@all")), soon())
        try:
            async with linked(f"unix://link:p%20w@{path}?db=3&client_name=known") as other:
                who = (await other.ask(hiredis.pack_command(("CLIENT", "INFO")), soon())).decode()
                assert {"user=link", "db=3", "name=known"} <= set(who.split())
            with pytest.raises(Refused, match="WRONGPASS"):
                await connect(address_of(f"unix://link:wrong@{path}").target, soon(), Link)
        finally:
            await link.ask(hiredis.pack_command(("ACL", "DELUSER", "link")), soon())


async def test_who_hangs_up_ends_the_call():
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"$100\r\nhalf of")
        writer.close()

    async with peer(hang_up) as url, linked(url) as link:
        with pytest.raises(ConnectionError, match="closed"):
            await link.ask(PING, soon())
        with pytest.raises(ConnectionError, match="closed"):
            link.ask(PING, soon())


async def test_who_is_silent_is_given_up_when_its_time_is_over():
    async def say_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"+once\r\n")

    async with peer(say_once) as url, linked(url) as link:
        assert await link.ask(PING, soon()) == b"once"
        with pytest.raises(TimeoutError):
            await link.ask(PING, soon(0.02))


async def test_a_timer_that_rings_early_waits_for_the_later_call():
    async def answer_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for wait in (0.0, 1.1):
            await reader.read(len(PING))
            await asyncio.sleep(wait)
            writer.write(b"+yes\r\n")

    async with peer(answer_slowly) as url, linked(url) as link:
        assert await link.ask(PING, soon(1.0)) == b"yes"
        assert await link.ask(PING, soon()) == b"yes"


async def test_bytes_that_are_no_answer():
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n")

    async with peer(babble) as url, linked(url) as link:
        with pytest.raises(ConnectionError, match="no answer of a Redis"):
            await link.ask(PING, soon())


async def test_a_call_that_was_given_up_leaves_no_answer_to_the_next(redis_url: str):
    wire = Wire(address_of(redis_url))
    first = await wire("CLIENT", "ID", timeout=20)
    call = asyncio.create_task(wire("BLPOP", "test-link-nothing", 0, timeout=20))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await wire("CLIENT", "ID", timeout=20) != first
    wire.close()


async def test_who_waits_for_a_turn_waits_no_longer_than_the_call_may_take():
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...

    async with peer(say_nothing) as url:
        wire = Wire(address_of(url))
        calls = await asyncio.gather(*(wire("PING", timeout=0.05) for _ in range(3)), return_exceptions=True)
        assert {type(call) for call in calls} == {TimeoutError}
        wire.close()


async def test_who_is_not_let_in_has_no_answer() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"-ERR max number of clients reached\r\n")

    async with peer(refuse) as url, linked(url) as link:
        with pytest.raises(ConnectionError, match="max number of clients"):
            await link.ask(PING, soon())


@pytest.mark.parametrize("near", [True, False])
async def test_the_loop_stays_awake_for_a_near_server_alone(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, near: bool
):
    looks: list[None] = []
    monkeypatch.setattr(Near, "sent", lambda _: near)
    monkeypatch.setattr(Near, "worth", lambda _: looks.append(None) or True)
    async with linked(redis_url) as link:
        for _ in range(5):
            del looks[:]
            assert await link.ask(PING, soon()) == b"PONG"
            assert bool(looks) is near
        del looks[:]
        for _ in range(10):
            await asyncio.sleep(0)
        assert looks == [], "it has its answer"


async def test_all_else_goes_on_while_the_loop_stays_awake(monkeypatch: pytest.MonkeyPatch):
    asked, at_last = asyncio.Event(), asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        asked.set()
        await at_last.wait()
        writer.write(b"+PONG\r\n")

    looks: list[None] = []
    monkeypatch.setattr(Near, "sent", lambda _: True)
    monkeypatch.setattr(Near, "worth", lambda _: looks.append(None) or True)
    async with peer(late) as url, linked(url) as link:
        answer = link.ask(PING, soon())
        await asked.wait()
        before = len(looks)
        await asyncio.sleep(0.01)
        assert len(looks) > before > 0, "it is awake all the time"
        at_last.set()
        assert await answer == b"PONG"

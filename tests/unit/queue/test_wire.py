"""Addresses, and what Redis' errors mean; connections that fail are the business of `test_redis_broker.py`."""

from __future__ import annotations

import asyncio

import pytest
from redis import exceptions
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from asyncworker.errors import BrokerDown, BrokerError, QueueFull, SettingsError
from asyncworker.queue.address import Address
from asyncworker.queue.inbox import Inbox
from asyncworker.queue.wire import Wire, is_unloaded, mapped

ADDRESS = Address("redis://localhost")


@pytest.mark.parametrize(
    ("url", "shown", "kind"),
    [
        ("redis://", "redis://localhost:6379", Connection),
        ("redis://shop", "redis://shop:6379", Connection),
        ("redis://shop:7/0", "redis://shop:7", Connection),
        ("redis://user:geheim@shop:7/2", "redis://shop:7/2", Connection),
        ("redis://:ge%2Fheim@[::1]:7/2", "redis://::1:7/2", Connection),
        ("redis://shop?db=4&password=geheim", "redis://shop:6379/4", Connection),
        ("rediss://user:geheim@shop", "rediss://shop:6379", SSLConnection),
        ("rediss://shop?ssl_cert_reqs=none", "rediss://shop:6379", SSLConnection),
        ("unix:///run/redis.sock", "unix:///run/redis.sock", UnixDomainSocketConnection),
        ("unix://user:geheim@/run/redis.sock?db=3", "unix:///run/redis.sock/3", UnixDomainSocketConnection),
    ],
)
def test_addresses(url: str, shown: str, kind: type):
    address = Address(url)
    assert str(address) == shown
    assert "geheim" not in repr(address) + str(address)
    assert type(address.connection()) is kind
    connection = address.connection()
    assert connection.retry.get_retries() == 0
    assert connection.socket_timeout is None
    with address.blocking(2.0) as client:
        made = client.connection_pool.make_connection()
        assert made.retry.get_retries() == 0
        assert made.socket_timeout == 2.0


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop",
        "http://shop",
        "redis://shop:geheim",
        "redis://user:pass/geheim@shop",
        "redis://shop:99999",
        "redis://shop/one",
        "redis://shop/-1",
        "redis://[shop",
        "redis://shop?db=geheim",
        "redis://shop?geheim=1",
        "redis://shop?max_connections=5",
        "redis://shop?protocol=9geheim",
        "unix://",
        "rediss://shop?ssl_cert_reqs=geheim",
    ],
)
def test_what_is_no_address(url: str):
    with pytest.raises(SettingsError) as caught:
        Address(url)
    chain = [caught.value, caught.value.__cause__]
    assert "geheim" not in " ".join(map(str, chain))
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("raised", "meant"),
    [
        (exceptions.ConnectionError("refused"), BrokerDown),
        (exceptions.TimeoutError("late"), BrokerDown),
        (ConnectionResetError("reset"), BrokerDown),
        (TimeoutError(), BrokerDown),
        (exceptions.BusyLoadingError("loading", status_code="LOADING"), BrokerDown),
        (exceptions.ReadOnlyError("replica", status_code="READONLY"), BrokerDown),
        (exceptions.MasterDownError("link", status_code="MASTERDOWN"), BrokerDown),
        (exceptions.ResponseError("BUSY Redis is busy running a script"), BrokerDown),
        (exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"), BrokerDown),
        (exceptions.InvalidResponse("Protocol error"), BrokerDown),
        (exceptions.AuthenticationError("Authentication required.", status_code="NOAUTH"), SettingsError),
        (exceptions.AuthenticationError("invalid password"), SettingsError),
        (exceptions.NoPermissionError("no permissions", status_code="NOPERM"), SettingsError),
        (exceptions.ResponseError("DB index is out of range"), SettingsError),
        (exceptions.ResponseError("invalid DB index"), SettingsError),
        (exceptions.OutOfMemoryError("command not allowed", status_code="OOM"), QueueFull),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), BrokerError),
        (exceptions.ResponseError("unknown command"), BrokerError),
    ],
)
def test_what_errors_mean(raised: Exception, meant: type[Exception]):
    error = mapped(raised, ADDRESS)
    assert type(error) is meant
    assert str(ADDRESS) in str(error)


def test_the_error_within():
    outer = exceptions.ConnectionError("no")
    outer.__cause__ = exceptions.AuthenticationError("invalid username-password pair")
    assert type(mapped(outer, ADDRESS)) is SettingsError


def test_functions_that_are_missing():
    assert is_unloaded(exceptions.ResponseError("Function not found"))
    assert not is_unloaded(exceptions.ResponseError("unknown command"))
    assert not is_unloaded(exceptions.ConnectionError("Function not found"))


async def test_callers_take_turns_and_share_a_connection(redis_url: str):
    wire = Wire(Address(redis_url))
    keys = [f"test-wire-{n}" for n in range(30)]
    assert await asyncio.gather(*(wire("ECHO", key, timeout=5) for key in keys)) == [key.encode() for key in keys]
    first = await wire("CLIENT", "ID", timeout=5)
    assert await wire("CLIENT", "ID", timeout=5) == first
    wire.renew()
    assert await wire("CLIENT", "ID", timeout=5) != first
    wire.close()
    with pytest.raises(exceptions.ConnectionError, match="closed"):
        await wire("PING", timeout=5)


async def test_who_finds_the_connection_lost_by_the_one_before_opens_another(redis_url: str, namespace: str):
    wire, once = Wire(Address(redis_url)), asyncio.Event()

    async def twice() -> bytes:
        await wire("PING", timeout=20)
        once.set()
        answer: bytes = await wire("PING", timeout=20)  # as soon as it is free, though another is next in line
        return answer

    await wire("PING", timeout=20)
    asking = asyncio.create_task(twice())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(wire("BLPOP", f"{namespace}:nothing", 0, timeout=20))
    await once.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    waiting.cancel()
    assert await asking == b"PONG"
    wire.close()


async def test_an_inbox_that_listens_to_nothing_can_listen_again(redis_url: str, namespace: str):
    heard: list[tuple[str, bytes]] = []

    async def resumed() -> None: ...

    inbox = Inbox(Address(redis_url), lambda *message: heard.append(message), resumed, 0.02)
    ask = Wire(Address(redis_url))

    async def pings() -> int:
        found = [
            line for line in (await ask("INFO", "commandstats", timeout=5)).decode().split() if "cmdstat_ping:" in line
        ]
        return int(found[0].split("calls=")[1].split(",")[0]) if found else 0

    try:
        await inbox.listen(f"{namespace}:a")
        await inbox.leave(f"{namespace}:a")
        before = await pings()
        async with asyncio.timeout(10):
            while await pings() < before + 3:  # each was asked because the one before was answered
                await asyncio.sleep(0.01)
            await inbox.listen(f"{namespace}:b")
            await ask("PUBLISH", f"{namespace}:b", "news", timeout=5)
            while not heard:
                await asyncio.sleep(0.01)
        assert heard == [(f"{namespace}:b", b"news")]
    finally:
        await inbox.close()
        ask.close()

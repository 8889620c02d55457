"""Addresses, and what Redis' errors mean; connections that fail are the business of `test_redis_broker.py`."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker.errors import BrokerDown, BrokerError, QueueFull, SettingsError
from asyncworker.queue.addresses import redis as plain
from asyncworker.queue.addresses import rediss
from asyncworker.queue.addresses.address import Refused, Target, address_of
from asyncworker.queue.inbox import Inbox
from asyncworker.queue.wire import Wire, is_unloaded, mapped

ADDRESS = address_of("redis://localhost")


@pytest.mark.parametrize(
    ("url", "shown", "target"),
    [
        ("redis://", "redis://localhost:6379", Target()),
        ("redis://shop", "redis://shop:6379", Target("shop")),
        ("redis://shop:7/0", "redis://shop:7", Target("shop", 7)),
        ("redis://user:geheim@shop:7/2", "redis://shop:7/2", Target("shop", 7, "", "user", "geheim", 2)),
        ("redis://:ge%2Fheim@[::1]:7/2", "redis://::1:7/2", Target("::1", 7, "", "", "ge/heim", 2)),
        ("redis://shop?db=4&password=geheim", "redis://shop:6379/4", Target("shop", password="geheim", database=4)),
        ("redis://shop?client_name=till", "redis://shop:6379", Target("shop", client_name="till")),
        ("unix:///run/a%20b.sock", "unix:///run/a b.sock", Target(path="/run/a b.sock")),
        (
            "unix://user:geheim@/run/redis.sock?db=3",
            "unix:///run/redis.sock/3",
            Target(path="/run/redis.sock", username="user", password="geheim", database=3),
        ),
    ],
)
def test_addresses(url: str, shown: str, target: Target):
    address = address_of(url)
    assert str(address) == shown
    assert address.target == target
    assert "geheim" not in repr(address) + str(address) + repr(target)


@pytest.mark.parametrize("url", ["rediss://user:geheim@shop", "rediss://shop?ssl_cert_reqs=none"])
def test_what_is_encrypted(url: str):
    address = address_of(url)
    assert str(address) == "rediss://shop:6379"
    assert "geheim" not in repr(address.target)
    assert address.target.secure is not None
    context = address.target.secure()
    assert (context.verify_mode is ssl.CERT_NONE) == ("none" in url)


@given(
    st.sampled_from(["redis://{}{}:{}/{}", "redis://{}{}:{}", "redis://{}{}", "unix://{}/{}"]),
    st.sampled_from(["", "a:b@", ":b%40@", "%C3%A4:c%2Fd%3A@", "who@"]),
    st.sampled_from(["shop", "127.0.0.1", "[::1]", "Shop.example"]),
    st.integers(1, 65535),
    st.integers(0, 15),
)
def test_urls_without_options_are_read_as_redis_py_reads_them(form: str, who: str, host: str, port: int, database: int):
    url = form.format(who, host, port, database)
    one, other = plain.open(url, ""), rediss.open(url, "")
    assert (one.target, str(one).lower()) == (other.target, str(other).lower())


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
        address_of(url)
    chain = [caught.value, caught.value.__cause__]
    assert "geheim" not in " ".join(map(str, chain))
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("raised", "meant"),
    [
        (ConnectionError("refused"), BrokerDown),
        (TimeoutError("late"), BrokerDown),
        (ConnectionResetError("reset"), BrokerDown),
        (TimeoutError(), BrokerDown),
        (Refused("LOADING Redis is loading"), BrokerDown),
        (Refused("READONLY it is a replica"), BrokerDown),
        (Refused("MASTERDOWN link"), BrokerDown),
        (Refused("BUSY Redis is busy running a script"), BrokerDown),
        (Refused("MISCONF Redis is configured to save RDB snapshots"), BrokerDown),
        (ConnectionError("Protocol error"), BrokerDown),
        (Refused("NOAUTH Authentication required."), SettingsError),
        (Refused("ERR invalid password"), SettingsError),
        (Refused("ERR AUTH <password> called without any password configured"), SettingsError),
        (Refused("WRONGPASS invalid username-password pair"), SettingsError),
        (Refused("NOPERM no permissions"), SettingsError),
        (Refused("ERR DB index is out of range"), SettingsError),
        (Refused("ERR invalid DB index"), SettingsError),
        (Refused("OOM command not allowed"), QueueFull),
        (Refused("WRONGTYPE Operation against a key"), BrokerError),
        (Refused("ERR unknown command"), BrokerError),
    ],
)
def test_what_errors_mean(raised: Exception, meant: type[Exception]):
    error = mapped(raised, ADDRESS)
    assert type(error) is meant
    assert str(ADDRESS) in str(error)


def test_functions_that_are_missing():
    assert is_unloaded(Refused("ERR Function not found"))
    assert not is_unloaded(Refused("ERR unknown command"))
    assert not is_unloaded(ConnectionError("Function not found"))


async def test_callers_take_turns_and_share_a_connection(redis_url: str):
    wire = Wire(address_of(redis_url))
    keys = [f"test-wire-{n}" for n in range(30)]
    assert await asyncio.gather(*(wire("ECHO", key, timeout=5) for key in keys)) == [key.encode() for key in keys]
    first = await wire("CLIENT", "ID", timeout=5)
    assert await wire("CLIENT", "ID", timeout=5) == first
    wire.renew()
    assert await wire("CLIENT", "ID", timeout=5) != first
    wire.close()
    with pytest.raises(ConnectionError, match="closed"):
        await wire("PING", timeout=5)


async def test_who_finds_the_connection_lost_by_the_one_before_opens_another(redis_url: str, namespace: str):
    wire, once = Wire(address_of(redis_url)), asyncio.Event()

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

    inbox = Inbox(address_of(redis_url), lambda *message: heard.append(message), resumed, 0.02)
    ask = Wire(address_of(redis_url))

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

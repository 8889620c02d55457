"""Strikes: what nobody is to start, from the engine's word to the worker's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker import BadParameters, Engine, State, UnknownName
from asyncworker.queue.codec import pack
from asyncworker.queue.drain import Drained
from asyncworker.queue.strike import AGAIN_S, Strike, read_strikes
from asyncworker.testing import FrozenClock
from asyncworker.work.signature import Signature

MakeEngine = Callable[..., Engine]


async def mail(to: str, tenant: str = "acme") -> None: ...


@pytest.mark.parametrize(
    ("arguments", "args", "kwargs", "hit"),
    [
        ({}, ["a"], {}, True),
        ({"tenant": "acme"}, ["a"], {}, True),
        ({"tenant": "acme"}, ["a", "other"], {}, False),
        ({"tenant": "other"}, ["a"], {"tenant": "other"}, True),
        ({"tenant": "acme", "to": "b"}, ["a"], {}, False),
        ({"tenant": "acme", "to": "a"}, [], {"to": "a"}, True),
        ({"nothing": 1}, ["a"], {}, False),
        ({"to": "a"}, [], {}, False),
    ],
)
def test_which_calls_are_meant(arguments: dict[str, Any], args: list[Any], kwargs: dict[str, Any], hit: bool) -> None:
    assert Strike("mail", arguments).hits(Signature(mail), args, kwargs) is hit


def test_they_travel_and_have_names() -> None:
    strikes = [Strike("mail"), Strike("mail", {"tenant": "acme", "a": [1, None]}), Strike("other")]
    assert [strike.name for strike in strikes] == ["mail", 'mail a=[1,null] tenant="acme"', "other"]
    assert read_strikes(strike.pack() for strike in strikes) == {"mail": strikes[:2], "other": strikes[2:]}
    with pytest.raises(BadParameters):
        Strike("mail", {"to": object()}).pack()


@given(st.binary(max_size=40) | st.builds(pack, st.lists(st.text() | st.integers(-(2**63), 2**64 - 1), max_size=3)))
def test_any_bytes_are_a_strike_or_none(data: bytes) -> None:
    assert sum(map(len, read_strikes([data, Strike("mail").pack()]).values())) in {1, 2}


async def test_a_bad_argument_is_blocked_live_and_goes_on_when_it_is_lifted(
    memory_engine: MakeEngine, frozen_clock: FrozenClock
) -> None:
    engine = memory_engine()
    done: list[str] = []

    @engine.task(name="mail")
    async def send(to: str, tenant: str = "acme") -> None:
        done.append(to)

    async with engine:
        await engine.strikes.add("mail", tenant="acme")
        assert [strike.name for strike in await engine.strikes.ls()] == ['mail tenant="acme"']
        bad, good = await send.enqueue("a"), await send.enqueue("b", tenant="other")
        frozen_clock.advance(AGAIN_S)
        assert await engine.drain() == Drained(succeeded=1)
        status = await bad.status()
        assert (status.state, status.attempt, done) == (State.SCHEDULED, 0, ["b"])
        assert "struck" in (status.error or "")
        assert (await good.status()).state is State.SUCCEEDED
        await engine.strikes.rm("mail", tenant="acme")
        with pytest.raises(UnknownName, match="strike"):
            await engine.strikes.rm("mail", tenant="acme")
        assert await engine.strikes.ls() == []


async def test_who_starts_later_knows_of_it_before_it_claims(
    redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncworker.queue.worker.runner.AGAIN_S", 0.05)
    async with Engine(redis_url, namespace=namespace) as engine:

        @engine.task(name="mail")
        async def send(to: str) -> str:
            return to

        await engine.strikes.add("mail", to="a")
        struck, other = await send.enqueue("a"), await send.enqueue("b")
        working = asyncio.create_task(engine.run(concurrency=1))
        assert await other.result(timeout=20) == "b"
        assert (await struck.status()).state in {State.SCHEDULED, State.QUEUED, State.RUNNING}
        assert "struck" in ((await struck.status()).error or "struck")
        engine.stop()
        await working
        await engine.strikes.rm("mail", to="a")
        working = asyncio.create_task(engine.run(concurrency=1))
        assert await struck.result(timeout=20) == "a"
        engine.stop()
        await working

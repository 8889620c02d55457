from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest
from aiohttp import web

from asyncworker.daemon import feed
from asyncworker.daemon.feed import BEHIND, Feed
from asyncworker.errors import BrokerDown
from tests.support.brokers import until
from tests.support.web import served


class Told(msgspec.Struct):
    text: str


class Source:
    def __init__(self, text: str = "x") -> None:
        self.text = text
        self.looks = 0
        self.away = False

    async def look(self) -> Told:
        self.looks += 1
        if self.away:
            raise BrokerDown("away")
        return Told(self.text)


@asynccontextmanager
async def telling(source: Source, **more: float) -> AsyncIterator[tuple[Feed, aiohttp.ClientSession, str]]:
    made = Feed(source.look, **more)
    async with served(made.listen) as url, aiohttp.ClientSession() as session:
        yield made, session, url
        await made.close()


async def test_all_are_told_the_same_and_it_is_made_once() -> None:
    source = Source()
    async with telling(source, every=0.01) as (_, session, url):
        answers = [await session.get(url) for _ in range(5)]
        for answer in answers:
            for _ in range(3):
                assert await answer.content.readline() == b"event: overview\n"
                assert await answer.content.readline() == b'data: {"text":"x"}\n'
                assert await answer.content.readline() == b"\n"
            answer.close()
        assert source.looks < 100


async def test_nobody_looks_when_nobody_listens() -> None:
    source = Source()
    async with telling(source, every=0.001) as (made, session, url):
        answer = await session.get(url)
        await answer.content.readline()
        answer.close()

        async def rests() -> bool:
            return made._telling is None

        await until(rests, 20.0)
        before = source.looks
        await asyncio.sleep(0.01)
        assert source.looks == before


async def test_an_outage_is_told_and_passes() -> None:
    source = Source()
    source.away = True
    async with telling(source, every=0.01) as (_, session, url):
        answer = await session.get(url)
        assert await answer.content.readline() == b"event: away\n"
        source.away = False
        async with asyncio.timeout(20):
            while await answer.content.readline() != b"event: overview\n":
                pass
        answer.close()


async def test_silence_is_broken() -> None:
    async with telling(Source(), every=1000.0, ping=0.01) as (_, session, url):
        answer = await session.get(url)
        async with asyncio.timeout(20):
            while await answer.content.readline() != b": ping\n":
                pass
        answer.close()


async def test_who_reads_too_slowly_is_let_go() -> None:
    source = Source("x" * 1_000_000)
    async with telling(source, every=0.001) as (made, session, url):
        answer = await session.get(url, read_bufsize=1024)

        async def gone() -> bool:
            return source.looks > BEHIND and not made._listeners

        await until(gone, 20.0)
        answer.close()


async def test_not_too_many_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MOST_LISTENERS", 0)
    request = web.Request.__new__(web.Request)
    with pytest.raises(feed.Refused):
        await Feed(Source().look).listen(request)

from __future__ import annotations

import asyncio

import pytest

from asyncworker.daemon import once
from asyncworker.daemon.guard import Refused
from asyncworker.daemon.once import Once


class Act:
    def __init__(self) -> None:
        self.times = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self) -> int:
        self.times += 1
        await self.go.wait()
        return self.times


async def test_a_key_acts_once() -> None:
    known: Once[int] = Once()
    act = Act()
    assert [await known.answer("me", "k", b"1", act) for _ in range(3)] == [1, 1, 1]
    assert await known.answer("them", "k", b"1", act) == 2
    assert await known.answer("me", "", b"1", act) == 3
    with pytest.raises(Refused, match="another request"):
        await known.answer("me", "k", b"2", act)


async def test_the_second_does_not_wait_for_the_first() -> None:
    known: Once[int] = Once()
    act = Act()
    act.go.clear()
    first = asyncio.create_task(known.answer("me", "k", b"1", act))
    await asyncio.sleep(0)
    with pytest.raises(Refused, match="still"):
        await known.answer("me", "k", b"1", act)
    act.go.set()
    assert await first == 1


async def test_what_failed_may_be_tried_again() -> None:
    known: Once[int] = Once()
    act = Act()
    act.go.clear()
    first = asyncio.create_task(known.answer("me", "k", b"1", act))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    act.go.set()
    assert await known.answer("me", "k", b"1", act) == 2


async def test_keys_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    known: Once[int] = Once()
    act = Act()
    for number in range(once.KEPT + 10):
        await known.answer("me", str(number), b"1", act)
    assert len(known._known) == once.KEPT
    monkeypatch.setattr(once, "KEPT_S", -1.0)
    before = act.times
    await known.answer("me", str(once.KEPT + 9), b"1", act)
    assert act.times == before + 1

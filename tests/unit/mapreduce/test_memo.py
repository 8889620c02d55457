"""What is asked, and what is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from asyncworker.errors import SourceError
from asyncworker.mapreduce import memo
from asyncworker.mapreduce.memo import FAILURES, NOT_ASKED, UNKNOWN, Answers, Memo, answers_of
from tests.support.clock import FrozenClock


class Asked:
    """A look-up that knows the length of a key; writes down what it is asked, and waits while *gate* is closed."""

    label = "asked"

    def __init__(self, batch: int = 1) -> None:
        self.batch = batch
        self.asked: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = False
        self.closed = 0

    async def fetch(self, keys: Sequence[str]) -> Mapping[str, Any]:
        self.asked.append(list(keys))
        await self.gate.wait()
        if self.fails:
            raise SourceError("asked is out of order")
        return {key: len(key) for key in keys if key != "unknown"}

    async def close(self) -> None:
        self.closed += 1


def new(lookup: Asked, **options: Any) -> Memo:
    return Memo(lookup, Answers(options.pop("most", 100), options.pop("ttl_s", 60.0)), **options)


async def test_an_answer_is_asked_for_once_also_that_there_is_none() -> None:
    lookup = Asked()
    asker = new(lookup)
    assert asker.remembered("abc") is NOT_ASKED
    assert [await asker.get(key) for key in ("abc", "abc", "unknown", "unknown")] == [3, 3, UNKNOWN, UNKNOWN]
    assert asker.remembered("abc") == 3
    assert lookup.asked == [["abc"], ["unknown"]]


async def test_who_asks_the_same_at_once_waits_for_one_answer() -> None:
    lookup = Asked()
    asker = new(lookup)
    assert await asyncio.gather(*(asker.get("abc") for _ in range(10))) == [3] * 10
    assert lookup.asked == [["abc"]]


async def test_who_asks_at_once_travels_together() -> None:
    lookup = Asked(batch=4)
    asker = new(lookup)
    keys = ["a", "bb", "ccc", "a", "dddd", "eeeee", "unknown"]
    assert await asyncio.gather(*map(asker.get, keys)) == [1, 2, 3, 1, 4, 5, UNKNOWN]
    assert lookup.asked == [["a", "bb", "ccc", "dddd"], ["eeeee", "unknown"]]


@pytest.mark.parametrize("batch", [1, 3])
async def test_when_the_first_is_cancelled_the_others_ask_again(batch: int) -> None:
    lookup = Asked(batch)
    lookup.gate.clear()
    asker = new(lookup)
    first, second = (asyncio.create_task(asker.get("abc")) for _ in range(2))
    while not lookup.asked:
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    lookup.gate.set()
    assert await second == 3
    assert lookup.asked == [["abc"], ["abc"]]


async def test_who_only_waits_can_be_cancelled_alone() -> None:
    lookup = Asked()
    lookup.gate.clear()
    asker = new(lookup)
    first, second = (asyncio.create_task(asker.get("abc")) for _ in range(2))
    while not lookup.asked:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    lookup.gate.set()
    assert await first == 3


async def test_a_failure_is_not_remembered_but_after_some_in_a_row_nobody_asks() -> None:
    lookup = Asked()
    lookup.fails = True
    asker = new(lookup)
    for _ in range(FAILURES + 3):
        with pytest.raises(SourceError, match="out of order"):
            await asker.get("abc")
    assert len(lookup.asked) == FAILURES
    mended = new(lookup)
    with pytest.raises(SourceError):
        await mended.get("abc")
    lookup.fails = False
    assert await mended.get("abc") == 3


async def test_answers_are_forgotten_by_age_and_number() -> None:
    clock = FrozenClock()
    lookup = Asked()
    asker = new(lookup, most=2, ttl_s=10.0, clock=clock)
    for key in ("a", "b", "a", "c", "a", "b"):
        await asker.get(key)
    assert lookup.asked == [["a"], ["b"], ["c"], ["b"]]  # a was used last, so c drove b out
    clock.advance(10.0)
    await asker.get("b")
    assert lookup.asked[4:] == [["b"]]


async def test_the_rate_is_kept_by_all_who_share_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, slept = FrozenClock(), []

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))

    monkeypatch.setattr(memo.asyncio, "sleep", sleep)
    answers, lookup = Answers(10, 60.0), Asked()
    one, other = (Memo(lookup, answers, 4.0, clock) for _ in range(2))
    for asker, key in ((one, "a"), (other, "b"), (one, "c"), (other, "a")):
        await asker.get(key)
    assert slept == [0.0, 0.25, 0.5]
    clock.advance(60)
    await one.get("d")
    assert slept[3:] == [0.0]


async def test_one_process_remembers_a_bounded_number_of_lookups() -> None:
    first = answers_of("url 0", 10, 60.0)
    assert answers_of("url 0", 10, 60.0) is first
    assert answers_of("url 0", 11, 60.0) is not first
    for number in range(memo.SHELVES):
        answers_of(f"url {number + 1}", 10, 60.0)
    assert answers_of("url 0", 10, 60.0) is not first


async def test_closing_closes_the_lookup() -> None:
    lookup = Asked()
    await new(lookup).close()
    assert lookup.closed == 1

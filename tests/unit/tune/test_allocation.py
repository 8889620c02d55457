from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asyncworker.tune import allocation
from asyncworker.tune.allocation import Growth, growing_lines, likely, survivors, tracing
from asyncworker.tune.census import type_name

KEPT: list[Any] = []
WINDOW = 0.03


class Slotted:
    __slots__ = ("x",)


class Passing:
    __slots__ = ("x",)


class Owner:
    def __init__(self) -> None:
        self.held: list[Any] = []


def make() -> Slotted:
    return Slotted()


def fill() -> None:
    KEPT.append(bytes(5_000))


@pytest.fixture(autouse=True)
def however_much_the_tests_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a very large process holders are not looked for, to be quick; other tests may have made this one large."""
    monkeypatch.setattr(allocation, "TOO_MANY", 10**9)


async def test_in_a_very_large_process_holders_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "TOO_MANY", 1)
    async with always(act):
        found = await survivors({type_name(Slotted)}, WINDOW)
    assert found[type_name(Slotted)].lines
    assert not found[type_name(Slotted)].holders


@asynccontextmanager
async def always(action: Callable[[], object]) -> AsyncIterator[None]:
    async def act() -> None:
        while True:
            action()
            await asyncio.sleep(0)

    acting = asyncio.create_task(act())
    try:
        yield
    finally:
        acting.cancel()
        await asyncio.wait({acting})
        KEPT.clear()


def act() -> None:
    KEPT.append(make())
    Passing()


async def test_objects_that_stay_are_laid_on_their_line_and_holder() -> None:
    async with always(act):
        found = await survivors({type_name(Slotted), type_name(Passing)}, WINDOW)
    assert found.keys() == {type_name(Slotted)}
    of = found[type_name(Slotted)]
    assert set(of.lines) == {(__file__, make.__code__.co_firstlineno + 1)}
    assert of.holders == (f"builtins.list {__name__}.KEPT",)
    assert not tracemalloc.is_tracing()


async def test_a_holder_without_a_name_is_told_by_its_owner() -> None:
    owner = Owner()
    async with always(lambda: owner.held.append(Slotted())):
        found = await survivors({type_name(Slotted)}, WINDOW)
    assert found[type_name(Slotted)].holders == (f"builtins.list of {type_name(Owner)}",)


async def test_lines_whose_memory_stays_are_found_whatever_its_type() -> None:
    async with always(fill):
        found = await growing_lines(WINDOW)
    assert (found[0].file, found[0].line) == (__file__, fill.__code__.co_firstlineno + 1)
    assert found[0].bytes_per_s > 5_000 * found[0].blocks_per_s / 3


def test_the_likely_line_grows_fast_enough_and_has_the_name_in_it() -> None:
    first = make.__code__.co_firstlineno
    other, named, slow = Growth(__file__, 1, 9e9, 100), Growth(__file__, first + 1, 1.0, 100), Growth("z.py", 1, 9e9, 1)
    assert likely("shop.Slotted", 100, [slow, other, named]) == (__file__, first + 1)
    assert likely("shop.Nothing", 100, [slow, other, named]) == (__file__, 1)
    assert likely("shop.Slotted", 1_000, [other, named]) is None


def test_tracing_that_is_on_stays_on() -> None:
    tracemalloc.start()
    try:
        with tracing():
            pass
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()

"""A handler of many, called one by one."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from asyncworker.errors import BadParameters
from asyncworker.work.batched import batched
from asyncworker.work.signature import Signature


async def test_calls_that_meet_share_a_batch():
    sizes: list[int] = []

    async def double(numbers: list[int]) -> list[int | Exception]:
        """Double them."""
        sizes.append(len(numbers))
        await asyncio.sleep(0)
        return [ValueError(number) if number == 7 else 2 * number for number in numbers]

    one = batched(double, max_batch_size=10)
    answers = await asyncio.gather(*(one(number) for number in range(9)), one(numbers=9), return_exceptions=True)
    assert [answer for answer in answers if not isinstance(answer, Exception)] == [0, 2, 4, 6, 8, 10, 12, 16, 18]
    assert repr(answers[7]) == "ValueError(7)"
    assert max(sizes) > 1
    assert sum(sizes) == 10
    assert (one.__name__, one.__doc__) == ("double", "Double them.")


def test_its_signature_is_that_for_one():
    async def store(rows: list[dict[str, int]]) -> None: ...

    signature = Signature(batched(store))
    signature.check(({"a": 1},), {})
    for args, kwargs in (((), {}), (({"a": "x"},), {}), (({},), {"more": 1}), (([{}],), {})):
        with pytest.raises(BadParameters):
            signature.check(args, kwargs)

    async def anything(rows) -> None: ...  # type: ignore[no-untyped-def]

    assert inspect.signature(batched(anything)).parameters["rows"].annotation is Any


def test_each_loop_has_a_batch_of_its_own():
    async def count(items: list[Any]) -> list[int]:
        await asyncio.sleep(0)
        return [len(items)] * len(items)

    one = batched(count)

    async def some() -> list[int]:
        return await asyncio.gather(*(one(item) for item in range(5)))

    for _ in range(2):
        assert set(asyncio.run(some())) <= {1, 2, 3, 4, 5}


async def _none() -> None: ...
async def _two(a: list[int], b: int) -> None: ...
async def _gathers(*a: int) -> None: ...


@pytest.mark.parametrize("handler", [_none, _two, _gathers])
def test_what_is_no_handler(handler: Any):
    with pytest.raises(BadParameters, match="one list of items"):
        batched(handler)

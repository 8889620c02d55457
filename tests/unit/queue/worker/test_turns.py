"""Queues bring jobs in proportion to their weights, and none starves."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncworker import Engine
from asyncworker.errors import BadParameters
from asyncworker.queue.worker.turns import Turns


def claim(turns: Turns, lying: dict[str, int], want: int, slots: int = 99) -> Counter[str]:
    """Claim as a broker does, in the order told; returns what it brought."""
    room = turns.order(dict.fromkeys(lying, min(want, slots)))
    running: Counter[str] = Counter()
    left = want
    for name, most in room.items():
        running[name] = min(lying[name], most, left)
        lying[name] -= running[name]
        left -= running[name]
    turns.took(room, want, {}, running)
    return running


@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.lists(st.integers(1, 30), min_size=5, max_size=30))
def test_who_always_has_work_brings_its_share(weights: list[int], wants: list[int]):
    named = {f"q{n}": weight for n, weight in enumerate(weights)}
    turns, lying, brought = Turns(named), dict.fromkeys(named, 10**6), Counter[str]()
    for want in wants * 10:
        brought += claim(turns, lying, want)
    turn = [brought[name] / weight for name, weight in named.items()]
    assert max(turn) - min(turn) <= 2 * max(wants)


def test_no_queue_starves_behind_a_busy_one():
    turns = Turns({"busy": 100})
    lying = {"busy": 10**6, "quiet": 1}
    for _ in range(5):
        claim(turns, lying, 1)
    assert lying["quiet"] == 0


def test_who_had_nothing_saves_nothing_up():
    turns, lying = Turns({}), {"a": 10**6, "b": 0}
    for _ in range(100):
        claim(turns, lying, 10)
    lying["b"] = 1000
    brought = Counter[str]()
    for _ in range(10):
        brought += claim(turns, lying, 10)
    assert brought == {"a": 50, "b": 50}


def test_when_nobody_waits_all_begin_anew():
    turns, lying = Turns({}), {"a": 3, "b": 0}
    claim(turns, lying, 10)
    assert turns.order({"a": 1, "b": 1}) == {"a": 1, "b": 1}
    assert list(turns.order({"b": 1, "a": 1})) == ["b", "a"]


async def test_a_worker_keeps_to_the_weights():
    order: list[str] = []
    async with Engine(queues={"mail": 9, "bulk": 9}, concurrency=1, weights={"mail": 3}) as engine:

        @engine.task(queue="mail")
        async def mail() -> None:
            order.append("mail")

        @engine.task(queue="bulk")
        async def bulk() -> None:
            order.append("bulk")

        await engine.admin.pause("mail")
        await engine.admin.pause("bulk")
        await mail.enqueue_many([()] * 40)
        await bulk.enqueue_many([()] * 40)
        await engine.admin.resume("mail")
        await engine.admin.resume("bulk")
        await asyncio.wait_for(engine.drain(), 20)
    assert 26 <= order[:40].count("mail") <= 34
    assert len(order) == 80


@pytest.mark.parametrize("weight", [0, -1, True, "3", float("inf")])
def test_what_is_no_weight(weight: object):
    with pytest.raises(BadParameters, match="weight"):
        Engine(weights={"mail": weight})
